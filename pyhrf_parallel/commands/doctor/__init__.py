"""``pyhrf-parallel doctor``: checks of everything between here and a job on the cluster."""
