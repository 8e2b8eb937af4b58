"""What runs beside a task: loading it, calling it, writing records. Standard library only, so that workers start fast."""
