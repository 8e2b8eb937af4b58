"""What is left to run of a group of tasks, as jobs: the tasks, and the steps around them."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyhrf_parallel.engine import slurm, step
from pyhrf_parallel.engine.plan import JobStatus, Plan, Step, TaskGroup
from pyhrf_parallel.engine.scheduler import Job
from pyhrf_parallel.outcomes import Ledger
from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.launch import python_command, worker_command
from pyhrf_parallel.worker.run_paths import RunPaths


@dataclass
class GroupProgress:
    """How far a group of tasks is: its steps before, its tasks, its steps after them."""

    number: int
    group: TaskGroup
    plan: Plan
    #: Why it ended early; empty if it did not.
    problem: str = ""
    #: How often each task has run out of memory.
    too_big: dict[int, int] = field(default_factory=dict)
    _failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        steps = [*self.group.before, *self.group.after]
        # An earlier engine of this run may have run some.
        self._done = {s.name for s in steps if self._done_file(s).exists()}

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.group.name

    @property
    def left(self) -> tuple[object, ...]:
        """A value that changes whenever a step ends."""
        return sorted(self._done), list(self._failed), self.problem

    def has_tasks(self, ledger: Ledger) -> bool:
        """Whether tasks are left to run."""
        return bool(self._pending(ledger))

    def is_over(self, ledger: Ledger) -> bool:
        """Whether nothing is left to run."""
        return bool(self.problem) or not (self.has_tasks(ledger) or self._left_after(ledger))

    def layers(self, ledger: Ledger, round_name: str) -> list[list[Job]]:
        """Return the jobs that are left, in layers that run one after the other."""
        tasks = self._pending(ledger)
        before = [self._step(s) for s in self.group.before if s.name not in self._done]
        after = [self._step(s) for s in self._left_after(ledger)]
        workers = [self._workers(tasks, round_name)] if tasks else []
        return [*([job] for job in before if tasks), *workers, *([job] for job in after)]

    def discard(self, index: int) -> None:
        """Remove the output of a task that was killed: it may be incomplete."""
        if self.group.outputs:
            output = self.group.outputs[index - self.group.start]
            Path(self.group.directory, output).unlink(missing_ok=True)

    def reopen(self, ledger: Ledger) -> None:
        """Repeat the steps after the tasks, if some tasks are run again."""
        if self.is_over(ledger):
            return
        for one in self.group.after:
            self._done_file(one).unlink(missing_ok=True)
            self._done.discard(one.name)

    def account(self, job: Job, row: JobStatus, why: str) -> None:
        """Take in how a step ended; `why` is the reason if it failed."""
        if job.step is None or not row.ran:  # not run, because of another job
            return
        # The step's own file counts: soma-workflow may not know how a short job ended.
        if row.exit_value == 0 or Path(RunPaths().done(job.file)).exists():
            self._done.add(job.step.name)
        elif job.step in self.group.before or job.step.name in self._failed:
            self.problem = f"job {job.name} failed: {why}"
        else:  # its node may have died, and its input is still there: once more
            self._failed.append(job.step.name)

    def _left_after(self, ledger: Ledger) -> list[Step]:
        """Return the steps after the tasks that are left to do."""
        left = [s for s in self.group.after if s.name not in self._done]
        if not any(s.needs_success for s in left):
            return left
        # Whether all tasks succeed is known in a later round only.
        succeeded = all(map(ledger.has_returned, range(self.group.start, self.group.stop)))
        return [s for s in left if succeeded or not s.needs_success]

    def _pending(self, ledger: Ledger) -> list[tuple[int, int]]:
        return _within(ledger.pending(), self.group.start, self.group.stop)

    def _file(self, one: Step) -> str:
        return f"{self.number}-{one.name}"

    def _done_file(self, one: Step) -> Path:
        return Path(RunPaths().done(self._file(one)))

    def _step(self, one: Step) -> Job:
        words = python_command(step.__name__, ".", self.number, one.name, self._file(one))
        native = self.plan.native if one.native is None else one.native
        return Job(one.name, self._file(one), words, native, self.name, one)

    def _workers(self, ranges: list[tuple[int, int]], round_name: str) -> list[Job]:
        """Return the jobs for tasks; each task that needs more memory gets its own."""
        alone = [index for index in sorted(self.too_big) if any(a <= index < b for a, b in ranges)]
        shared = _without(ranges, alone)
        jobs = [
            self._worker(
                f"{self._job_of(index)}-{index - self.group.start}",  # the others are in the job of that name
                [(index, index + 1)],
                round_name,
                self.too_big[index],
            )
            for index in alone
        ]
        if self.group.bounds is not None:
            return jobs + [
                self._worker(name, own, round_name) for name, own in self._bounded(shared)
            ]
        if not shared:
            return jobs
        names = self.group.names[: sum(b - a for a, b in shared)]
        claims = RunPaths().claims(f"{self.number}-{round_name}")
        Claims.create(claims, shared, len(names))
        return jobs + [self._job(name, claims, round_name) for name in names]

    def _bounded(self, ranges: list[tuple[int, int]]) -> list[tuple[str, list[tuple[int, int]]]]:
        """Return the ranges of each job that has tasks of its own."""
        found = []
        first = self.group.start
        for name, last in zip(self.group.names, self.group.bounds or [], strict=True):
            own = _within(ranges, first, last)
            found += [(name, own)] if own else []
            first = last
        return found

    def _job_of(self, index: int) -> str:
        """Return the name of a task's job; of the first job if they share all tasks."""
        return self.group.names[bisect.bisect_right(self.group.bounds or [], index)]

    def _worker(
        self, name: str, ranges: list[tuple[int, int]], round_name: str, doublings: int = 0
    ) -> Job:
        claims = RunPaths().claims(f"{self.number}-{round_name}-{name}")
        Claims.create(claims, ranges, 1)
        return self._job(name, claims, round_name, doublings)

    def _job(self, name: str, claims: str, round_name: str, doublings: int = 0) -> Job:
        file = f"{self.number}-{name}-{round_name}"
        native = slurm.with_more_memory(self.plan.native, 2**doublings)
        words = worker_command(
            ".", file, "supervise" if self.group.is_supervised else "claim", claims
        )
        return Job(name, file, words, native, self.name, claims=claims)


def make_progress(plan: Plan) -> list[GroupProgress]:
    """Return the groups of a plan, of which nothing has been run."""
    groups = plan.groups or [TaskGroup.of_map(plan.tasks, plan.jobs)]
    return [GroupProgress(number, group, plan) for number, group in enumerate(groups)]


def _within(ranges: Iterable[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return what lies between two indices."""
    cut = ((max(a, start), min(b, stop)) for a, b in ranges)
    return [(a, b) for a, b in cut if a < b]


def _without(ranges: list[tuple[int, int]], indices: Sequence[int]) -> list[tuple[int, int]]:
    """Return ranges without some indices, which are sorted."""
    ends = zip([0, *(index + 1 for index in indices)], [*indices, sys.maxsize], strict=True)
    return [piece for start, stop in ends for piece in _within(ranges, start, stop)]
