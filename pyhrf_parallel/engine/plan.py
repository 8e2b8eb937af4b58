"""What an engine is asked to do, and what it says of itself and its jobs: two files of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.files import checksum, write_then_rename
from pyhrf_parallel.worker.run_paths import RunPaths

#: The status of a job that was stopped with its run.
CANCELLED = "cancelled"
#: Counted up when a plan changes in a way that another version would misread.
_FORMAT = 2


@dataclass(frozen=True)
class Step:
    """A command that runs as a job of its own, before or after the tasks of a group.

    Attributes
    ----------
    name : str
        The name of the job.
    command : list of str
        A program and its arguments. A program without a directory is looked for beside the interpreter first.
    takes_outputs : bool
        Whether to append the existing outputs of the group to the command.
    needs_success : bool
        Whether to skip it if a task has failed.
    native : list of str or None
        Options for the scheduler; None for those of the plan.
    """

    name: str
    command: list[str]
    takes_outputs: bool = False
    needs_success: bool = False
    native: list[str] | None = None


@dataclass(frozen=True)
class TaskGroup:
    """Tasks with steps before and after them, as one subject's regions; without steps, a map.

    Attributes
    ----------
    name : str
        Common to all its jobs.
    start, stop : int
        The range of the payload's tasks that belong to it.
    directory : str
        Its files are there, and its steps run there; removed with the run.
    before, after : list of Step
        Steps, each of which runs when the one before has ended well.
    outputs : list of str
        For each task, the file that it writes to `directory`.
    names : list of str
        The names of the jobs that run the tasks.
    bounds : list of int or None
        The end of the range of each job; None if the jobs share all tasks.
    is_supervised : bool
        Whether a job goes on after a task that killed its process. If not, the job ends with it, and what
        the scheduler says of the job is true of the task.
    """

    name: str
    start: int
    stop: int
    directory: str
    before: list[Step]
    after: list[Step]
    outputs: list[str]
    names: list[str]
    bounds: list[int] | None = None
    is_supervised: bool = False

    @classmethod
    def of_map(cls, tasks: int, jobs: int) -> Self:
        """Return the group of a map: all tasks, which its jobs share."""
        names = [f"job-{number}" for number in range(jobs)]
        return cls("", 0, tasks, ".", [], [], [], names, is_supervised=True)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Rebuild from JSON."""
        steps = {key: [Step(**step) for step in values[key]] for key in ("before", "after")}
        return cls(**values | steps)


@dataclass(frozen=True)
class Plan:
    """What the engine is asked to do with a payload.

    Attributes
    ----------
    tasks : int
        The number of tasks.
    jobs : int
        How many jobs share them; with `groups`, how many run at a time.
    stop_at_failure : bool
        Whether tasks after the first one that fails are not needed.
    retries : int
        Retries for a task whose job died.
    scheduler : str
        The name of the scheduler, in most cases one of soma-workflow.
    queue : str or None
        The partition or queue; None for the scheduler's default.
    native : list of str
        Options for the command line of the scheduler.
    refresh : float
        Seconds between two looks of the engine at its jobs.
    attached : bool
        Whether the engine and its jobs end when stdin of the engine is closed.
    name : str
        The name of the workflow.
    checksum : str
        SHA-256 of the payload, checked before anything runs; empty for no check.
    groups : list of TaskGroup
        The groups of all tasks, in their order; none for a map.
    setup : str
        Lines of shell that run first in each job.
    hopeless_after : float
        Seconds until the run fails because a job can never start.
    """

    tasks: int
    jobs: int
    stop_at_failure: bool
    retries: int = 0
    scheduler: str = "local_basic"
    queue: str | None = None
    native: list[str] = field(default_factory=list)
    refresh: float = 0.05
    attached: bool = False
    name: str = "pyhrf_parallel"
    checksum: str = ""
    groups: list[TaskGroup] = field(default_factory=list)
    setup: str = ""
    hopeless_after: float = 60.0

    def write(self, directory: Path) -> None:
        """Write the plan to a run's directory."""
        write_then_rename(Path(RunPaths(directory).plan), self.dumps())

    def with_payload(self, payload: Path) -> Self:
        """Return the plan with the checksum of a payload."""
        return replace(self, checksum=checksum(payload))

    def dumps(self) -> bytes:
        """Return the plan as JSON."""
        return json.dumps(asdict(self) | {"format": _FORMAT}).encode()

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the plan of a run.

        Raises
        ------
        RuntimeError
            If another version of this package wrote it.
        ValueError
            If it is damaged.
        """
        path = Path(RunPaths(directory).plan)
        try:
            values = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if values.pop("format", None) != _FORMAT:
            raise RuntimeError(
                f"{path} was written by another version of pyhrf_parallel: cancel the run with "
                "that version, or submit it again"
            )
        return cls(**values | {"groups": [TaskGroup.of(group) for group in values["groups"]]})


@dataclass(frozen=True)
class JobStatus:
    """The status of a job.

    Attributes
    ----------
    name : str
        As the scheduler knows it.
    status : str
        ``'running'``, ``'done'``, ``'failed'``, ``'cancelled'``, or another word of the scheduler while it waits.
    exit_value : int or None
        Negative for a signal, as in `subprocess`; None before its end, or if it is unknown.
    scheduler_id : str or None
        The scheduler's number for it.
    reason : str
        Why it failed, according to the scheduler.
    group : str
        The name of its task group.
    waits : str
        Why it has not started yet: the scheduler's word, and what that means.
    is_blameless : bool
        Whether the node or the scheduler stopped it, through no fault of its own.
    """

    name: str
    status: str
    exit_value: int | None = None
    scheduler_id: str | None = None
    reason: str = ""
    group: str = ""
    waits: str = ""
    is_blameless: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in ("done", "failed", CANCELLED)

    @property
    def has_died(self) -> bool:
        """Whether it ended in the middle of its work, or waits again after its node failed."""
        return self.is_blameless or (self.has_ended and self.exit_value not in (0, None))

    @property
    def ran(self) -> bool:
        """Whether it has started."""
        return self.exit_value is not None or self.scheduler_id is not None


@dataclass(frozen=True)
class EngineState:
    """The state of an engine and of its jobs.

    Attributes
    ----------
    phase : str
        ``'running'``, ``'done'`` (every task that was needed has a record), ``'failed'`` (see `error`)
        or ``'cancelled'``.
    pid, host : int, str
        The engine's process, and its machine.
    error : str
        Why the engine gave up.
    settled, failed : int
        How many tasks have ended, and how many of them failed.
    jobs : list of JobStatus
        All jobs of the run, in the order of their submission.
    problems : dict of str to str
        Why task groups ended early, by their names.
    """

    phase: str
    pid: int
    host: str
    error: str = ""
    settled: int = 0
    failed: int = 0
    jobs: list[JobStatus] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write the state to a run's directory."""
        write_then_rename(Path(RunPaths(directory).state), self.dumps())

    def dumps(self) -> bytes:
        """Return the state as JSON."""
        return json.dumps(asdict(self)).encode()

    def cancelled(self) -> Self:
        """Return the state in which the run and all jobs that had not ended are cancelled."""
        jobs = [
            row if row.has_ended else replace(row, status=CANCELLED, waits="") for row in self.jobs
        ]
        return replace(self, phase="cancelled", jobs=jobs)

    def summary(self) -> str:
        """Return a line about how many jobs run and wait."""
        running = sum(job.status == "running" for job in self.jobs)
        waiting = [job for job in self.jobs if not job.has_ended and job.status != "running"]
        words = sorted({job.waits.partition(":")[0] for job in waiting} - {""})
        why = f" ({', '.join(words)})" if words else ""
        queued = f"{len(waiting)} queued{why}"
        counts = [f"{running} running"] * bool(running) + [queued] * bool(waiting)
        return f"jobs: {', '.join(counts)}" if counts else ""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the state of a run."""
        return cls.loads(Path(RunPaths(directory).state).read_bytes())

    @classmethod
    def loads(cls, content: bytes) -> Self:
        """Read a state from JSON."""
        values = json.loads(content)
        return cls(**values | {"jobs": [JobStatus(**row) for row in values["jobs"]]})
