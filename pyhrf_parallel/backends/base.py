"""What every execution mode has to do."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Protocol

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import BackendUnavailableError
from pyhrf_parallel.tasks import Outcomes, Work


class Backend(Protocol):
    """Runs the tasks of a map.

    Attributes
    ----------
    raises_original : bool
        Whether a map fails with the function's own exception instead of a RemoteException.
    """

    raises_original: bool

    def run(self, work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
        """Run tasks until ``outcomes.complete``, entering there what becomes of each.

        Nothing may be left on disk, and no process running, however this ends. Bad input is refused
        before any task runs.
        """


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
