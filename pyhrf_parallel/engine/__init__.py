"""Beside the scheduler: the process that runs the jobs of a run, and what it and its jobs need there."""
