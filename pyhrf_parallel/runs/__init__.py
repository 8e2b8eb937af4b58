"""A run, seen from here: its start on this machine or on a cluster, following it, fetching what comes of it."""
