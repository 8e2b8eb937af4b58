"""What the engine asks of whoever runs its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyhrf_parallel.engine.group_progress import Job
from pyhrf_parallel.engine.plan import JobStatus


class Scheduler(Protocol):
    """Runs jobs, round after round."""

    def submit(self, layered: Sequence[Sequence[Sequence[Job]]]) -> int:
        """Submit the jobs of a round.

        Parameters
        ----------
        layered : sequence of sequence of sequence of Job
            For each group, layers of jobs, each to run after the one before.

        Returns
        -------
        int
            The number of the round.
        """

    def look(self, number: int) -> list[JobStatus]:
        """Return how the jobs of a round are, in the order in which they were given.

        Raises
        ------
        RuntimeError
            If it cannot run jobs any more.
        """

    def cancel(self) -> None:
        """Stop all jobs that have not ended, and submit no others."""
