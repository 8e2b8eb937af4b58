"""Runs of maps, which go on whether or not this process does."""

from __future__ import annotations

from typing import Any

from pyhrf_parallel.progress import ProgressOption, reporting
from pyhrf_parallel.runs.manifests import Manifest
from pyhrf_parallel.runs.run import Run


class MapRun(Run):
    """A map on a cluster or on this machine, which goes on whether or not this process does.

    Made by `pyhrf_parallel.submit_map`, or by `MapRun.load` in another process. A context manager that closes the
    connection and leaves the run alone. `result`, `done`, `cancel` and `cancelled` work as those of
    `concurrent.futures.Future`.

    Attributes
    ----------
    manifest : Manifest
        What was submitted, by whom, and with which settings.
    """

    @staticmethod
    def _knows(manifest: Manifest) -> bool:
        return not manifest.treatments

    def result(self, timeout: float | None = None, *, progress: ProgressOption = None) -> list[Any]:
        """Wait for the end; return the results as `remote_map` does, or raise what it would.

        The run keeps its files until `clean` is called, so that nothing is lost if this process ends.

        Parameters
        ----------
        timeout : float, optional
            How long to wait, in seconds.
        progress : bool or callable, optional
            See `remote_map`.

        Returns
        -------
        list
            The results, in the order of the tasks.

        Raises
        ------
        TimeoutError
            If the run is not over in time; it goes on.
        concurrent.futures.CancelledError
            If it was cancelled before it had ended.
        Exception
            All that `remote_map` raises once tasks run.
        """
        with reporting(progress, self.manifest.tasks, self.manifest.function) as report:
            self._outcomes.show(report)
            try:
                self._wait(timeout)
            finally:
                self._outcomes.show(None)
        return self._outcomes.results()
