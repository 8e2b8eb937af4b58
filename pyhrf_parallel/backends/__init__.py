"""One module per execution mode: its name is the mode, and its `BACKEND` does the work."""
