"""``pyhrf-parallel doctor``: checks of a cluster, each of which needs the ones before."""
