"""The jobs of a run: how each is doing, and whether there is hope for those that wait."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pyhrf_parallel.engine import waiting
from pyhrf_parallel.engine.group_progress import Job, flattened
from pyhrf_parallel.engine.plan import JobStatus, Plan
from pyhrf_parallel.engine.scheduler import Scheduler

_LATE_VALUE = 2.0  # seconds between the end of a job and its exit value


class JobTable:
    """All jobs of a run.

    Parameters
    ----------
    plan : Plan
        Of the run.
    scheduler : Scheduler
        Who runs them.

    Attributes
    ----------
    rows : dict of str to JobStatus
        How they were at the last look, by their file names.
    """

    def __init__(self, plan: Plan, scheduler: Scheduler) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._jobs: dict[int, list[Job]] = {}  # by their round
        self._hopeless: dict[str, float] = {}
        self._without_value: dict[str, float] = {}
        self.rows: dict[str, JobStatus] = {}

    def submit(self, layered: Sequence[Sequence[Sequence[Job]]]) -> tuple[int, list[Job]]:
        """Submit jobs in layers, those of several groups beside one another; return their round, and the jobs."""
        number = self._scheduler.submit(layered)
        self._jobs[number] = jobs = flattened(layered)
        return number, jobs

    def rows_of(self, number: int) -> list[tuple[Job, JobStatus]]:
        """Return the jobs of a round, and how they were at the last look."""
        return [(job, self.rows[job.file]) for job in self._jobs[number]]

    def look(self, number: int) -> bool:
        """Take in how the jobs of a round are; return whether all have ended."""
        jobs = self._jobs[number]
        for job, row in zip(jobs, self._scheduler.look(number), strict=True):
            self.rows[job.file] = row
        return all(self._is_over(job.file) for job in jobs)

    def _is_over(self, file: str) -> bool:
        """Whether a job has ended, and how is known: its exit value may come a moment later."""
        row = self.rows[file]
        if not row.has_ended or row.exit_value is not None or not row.ran:
            return row.has_ended
        began = self._without_value.setdefault(file, time.monotonic())
        return time.monotonic() - began > _LATE_VALUE

    def check_hope(self) -> None:
        """Refuse to wait any longer for a job that can never start.

        Raises
        ------
        RuntimeError
            If one has waited for as long as the plan says.
        """
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
