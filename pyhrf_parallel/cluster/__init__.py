"""All that touches soma-workflow: the engine that runs jobs, and the process it lives in."""
