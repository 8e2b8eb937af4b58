"""The modes: each is a `Backend`, a module of this package that has the name of the mode."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

from pyhrf_parallel.errors import ConfigurationError

if TYPE_CHECKING:
    from pyhrf_parallel.configuration import Configuration
    from pyhrf_parallel.outcomes import Outcomes
    from pyhrf_parallel.tasks import Work

Mode = Literal["serial", "local", "local_with_dumps", "remote_cluster"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Backend(Protocol):
    """A module that runs the tasks of a map in one mode.

    Attributes
    ----------
    RAISES_ORIGINAL : bool
        Whether a map fails with the function's own exception instead of a RemoteException.
    """

    RAISES_ORIGINAL: bool

    def run(self, work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
        """Run tasks until ``outcomes.complete``, and enter the value or failure of each there.

        However this ends, no files and no processes may be left. Invalid input is refused before any task
        runs.
        """


def check_mode(mode: str) -> None:
    """Check that a mode of this name exists.

    Raises
    ------
    ConfigurationError
        If it does not; the message lists those that do.
    """
    if mode not in MODES:
        raise ConfigurationError(f"There is no mode {mode!r}; the modes are {', '.join(MODES)}")


def load_backend(mode: str) -> Backend:
    """Import the module of a mode, after `check_mode`."""
    check_mode(mode)
    return cast("Backend", importlib.import_module(f"{__name__}.{mode}"))
