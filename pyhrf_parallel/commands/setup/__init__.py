"""``pyhrf-parallel setup-cluster``: what it finds out of a cluster, and makes there."""
