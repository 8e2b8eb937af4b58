"""The console scripts: thin."""
