"""The jobs of a run as the scheduler has them: how each is doing, and stopping them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from soma_workflow import constants

from pyhrf_parallel.engine import waiting
from pyhrf_parallel.engine.plan import JobRow, Plan
from pyhrf_parallel.engine.slurm import Commands
from pyhrf_parallel.engine.stages import Job
from pyhrf_parallel.processes import kill_descendants

_LATE_VALUE = 2.0  # seconds between the end of a job and its exit value
_SUBMISSION = 3.0  # seconds that a submission under way may take


class JobTable:
    """All jobs of a run.

    Parameters
    ----------
    plan : Plan
        Of the run.
    controller : object
        soma-workflow's.
    commands : Commands
        Slurm's.

    Attributes
    ----------
    rows : dict of str to JobRow
        How they were at the last look, by their file names.
    """

    def __init__(self, plan: Plan, controller: Any, commands: Commands) -> None:
        self._plan = plan
        self._controller = controller
        self._slurm = commands
        self._jobs: dict[int, Sequence[Job]] = {}  # by the id of their workflow
        self._hopeless: dict[str, float] = {}
        self._back: set[str] = set()
        self._without_value: dict[str, float] = {}
        self.rows: dict[str, JobRow] = {}

    def add(self, workflow_id: int, jobs: Sequence[Job]) -> None:
        """Take up the jobs of a workflow, in the order in which they were given to it."""
        self._jobs[workflow_id] = jobs

    def rows_of(self, workflow_id: int) -> list[tuple[Job, JobRow]]:
        """Return the jobs of a workflow, and how they were at the last look."""
        return [(job, self.rows[job.file]) for job in self._jobs[workflow_id]]

    def look(self, workflow_id: int) -> bool:
        """Take in how the jobs of a workflow are; return whether all have ended."""
        # Each job's own row: the workflow's status tells nothing of failed jobs.
        elements = sorted(self._controller.workflow_elements_status(workflow_id)[0])
        # It numbers them as they were given.
        for element, job in zip(elements, self._jobs[workflow_id], strict=True):
            _id, status, _queue, ended, _dates, scheduler_id = element
            row = JobRow(
                job.name, status, ended[1] if ended else None, str(scheduler_id or "") or None,
                self._slurm.refusals.get(job.name, ""), job.group,
            )  # fmt: skip
            unclear = status not in (constants.RUNNING, constants.DONE)
            if self._plan.scheduler == "slurm" and unclear:
                row = self._ask_slurm(row)
            self.rows[job.file] = row
        return all(self._is_over(job.file) for job in self._jobs[workflow_id])

    def _is_over(self, file: str) -> bool:
        """Tell whether a job has ended, and how: soma-workflow writes the exit value a moment later."""
        row = self.rows[file]
        if not row.has_ended or row.exit_value is not None or not row.ran:
            return row.has_ended
        began = self._without_value.setdefault(file, time.monotonic())
        return time.monotonic() - began > _LATE_VALUE

    def _ask_slurm(self, row: JobRow) -> JobRow:
        """Return a row with what Slurm says of a job that waits, or has failed."""
        if row.scheduler_id is None:
            complaint = self._slurm.complaints.get(row.name, "")
            return replace(row, waits=waiting.explain_complaint(complaint))
        found = self._slurm.job(row.scheduler_id)
        if found is None:
            return row
        if found.is_back and row.scheduler_id not in self._back:
            # Slurm lets it wait for minutes, and what is left can be run at once.
            self._back.add(row.scheduler_id)
            self._slurm.cancel([row.scheduler_id])
        if row.scheduler_id in self._back:
            return replace(row, reason="Slurm had put it back into the queue", is_blameless=True)
        if row.status == constants.FAILED:
            return replace(row, reason=found.failure, is_blameless=found.is_blameless)
        return replace(row, waits=waiting.explain(found.reason))

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

    def cancel(self) -> None:
        """Stop all jobs that have not ended."""
        # soma-workflow's own way waits for news of the workflow, which may have had its last.
        if self._plan.scheduler == "slurm":
            self._slurm.close()
            self._slurm.cancel(self._submitted())
        elif self._plan.scheduler == "local_basic":
            kill_descendants(os.getpid())
        else:
            for workflow_id in self._controller.workflows():
                with suppress(Exception):  # an engine that cannot be asked has no jobs
                    self._controller.stop_workflow(workflow_id)

    def _submitted(self) -> list[str]:
        """Return the jobs that have not ended, by the scheduler's id."""
        deadline = time.monotonic() + _SUBMISSION
        for workflow_id in self._controller.workflows():
            while True:
                self.look(workflow_id)
                running = [row for row in self.rows.values() if not row.has_ended]
                # One may be on its way to the scheduler just now.
                if all(row.scheduler_id for row in running) or time.monotonic() > deadline:
                    break
                time.sleep(self._plan.refresh)
        return [
            row.scheduler_id for row in self.rows.values() if row.scheduler_id and not row.has_ended
        ]
