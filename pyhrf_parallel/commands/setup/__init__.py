"""``pyhrf-parallel setup-cluster``: what it finds and makes on a cluster."""
