"""Giving the tasks of dead jobs to the other jobs of their round."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pyhrf_parallel.engine.plan import JobStatus
from pyhrf_parallel.engine.scheduler import Job
from pyhrf_parallel.outcomes import Ledger
from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import Cursor

_INNOCENT = 3  # failures of a node under the same task after which the task counts as the reason


class Takeover:
    """Gives back the tasks of jobs that have died, or that Slurm has put back into the queue.

    Without it they would wait for the next round, which begins when the last job of this one has ended.

    Parameters
    ----------
    ledger : Ledger
        Knows which tasks have ended.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._given_back: set[str] = set()
        self._innocent: dict[int, int] = {}

    def give_back(self, jobs: Collection[tuple[Job, JobStatus]]) -> None:
        """Give back the tasks of those jobs that do not run any more."""
        for job, row in jobs:
            if job.claims and row.has_died and job.file not in self._given_back:
                self._given_back.add(job.file)
                self._give_back(job, blameless=row.is_blameless)

    def _give_back(self, job: Job, *, blameless: bool) -> None:
        running, (start, stop) = find_tasks(job)
        # It may have died of its running task.
        left = [
            index
            for index in range(start, stop)
            if not self._ledger.is_settled(index) and (blameless or index != running)
        ]
        if left:
            Claims(job.claims).give_back([(index, index + 1) for index in left])

    def excuses(self, index: int, row: JobStatus) -> bool:
        """Return whether a task is not the reason why its job died, counting how often that happens."""
        if not row.is_blameless:
            return False
        self._innocent[index] = self._innocent.get(index, 0) + 1
        return self._innocent[index] < _INNOCENT

    @property
    def excused(self) -> int:
        """How often tasks were excused."""
        return sum(self._innocent.values())


def find_tasks(job: Job) -> tuple[int, tuple[int, int]]:
    """Return the task that a job is running, or -1, and the range that it has claimed."""
    path = Path(RunPaths().cursor(job.file))
    if not path.exists() or path.stat().st_size == 0:
        return -1, (0, 0)
    cursor = Cursor(str(path))
    found = cursor.running, cursor.unsent
    cursor.close()
    return found
