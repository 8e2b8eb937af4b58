"""The user's side of a run: starting it, here or on a cluster, following it, and fetching its results."""
