"""Optional dependencies, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from pyhrf_parallel.errors import BackendUnavailableError


def require(module: str, mode: str, extra: str) -> ModuleType:
    """Import an optional dependency of a mode.

    Raises
    ------
    BackendUnavailableError
        With the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            f"mode={mode!r} needs {module.partition('.')[0]}, which cannot be imported ({error}); "
            f"install it with: pip install 'pyhrf_parallel[{extra}]'"
        ) from error
