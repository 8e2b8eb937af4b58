"""The account of this process. In a container it may have no name and no home."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from pyhrf_parallel.errors import ConfigurationError


def user_name() -> str:
    """Return the name of the account, or its number if it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def home() -> Path:
    """Return the home directory.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigurationError(
            f"The account {user_name()} has no home directory; set the environment variable HOME"
        ) from None
