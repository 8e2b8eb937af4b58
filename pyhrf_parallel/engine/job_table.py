"""The statuses of all jobs of a run, and whether those that wait can still start."""

from __future__ import annotations

import time

from pyhrf_parallel.engine import waiting
from pyhrf_parallel.engine.plan import JobStatus, Plan
from pyhrf_parallel.engine.scheduler import Scheduler

_LATE_VALUE = 2.0  # seconds between the end of a job and its exit value


class JobTable:
    """Keeps the status of each job of a run.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    scheduler : Scheduler
        The scheduler that runs the jobs.

    Attributes
    ----------
    rows : dict of str to JobStatus
        At the last look, by `Job.file`.
    """

    def __init__(self, plan: Plan, scheduler: Scheduler) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._hopeless: dict[str, float] = {}
        self._without_value: dict[str, float] = {}
        self.rows: dict[str, JobStatus] = {}

    def look(self) -> bool:
        """Take in the statuses of the jobs of a round; return whether all have ended."""
        found = self._scheduler.look()
        self.rows |= found
        return all(map(self._is_over, found))

    def _is_over(self, file: str) -> bool:
        """Whether a job has ended and its exit value is known, which may come a moment later."""
        row = self.rows[file]
        if not row.has_ended or row.exit_value is not None or not row.ran:
            return row.has_ended
        began = self._without_value.setdefault(file, time.monotonic())
        return time.monotonic() - began > _LATE_VALUE

    def check_hope(self) -> None:
        """Raise a RuntimeError for a job that can never start and has waited for as long as the plan allows."""
        now = time.monotonic()
        for file, row in self.rows.items():
            word, _, plain = row.waits.partition(": ")
            if row.has_ended or not waiting.can_never_start(word):
                self._hopeless.pop(file, None)
            elif now - self._hopeless.setdefault(file, now) > self._plan.hopeless_after:
                raise RuntimeError(
                    f"Job {row.scheduler_id} can never start: {plain} ({word}); see mem, time, cpus, queue "
                    "and native_specification of [parallel-cluster], and resources="
                )
