"""What every execution mode has to do."""

from __future__ import annotations

from typing import Protocol

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.tasks import Work


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
