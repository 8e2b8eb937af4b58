"""Beside the scheduler: the engine, which runs the jobs of a run, and the commands that start and stop it."""
