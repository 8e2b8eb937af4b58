"""The version of the package, for all that has to agree on it."""

__version__ = "0.1.0"
