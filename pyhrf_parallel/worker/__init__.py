"""Beside a task: loading it, calling it, writing records. Only the standard library: a worker starts fast."""
