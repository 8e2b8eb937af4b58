"""The directory of a run: what lies in it, and what its engine is asked to do.

The same on this machine and on a cluster. Only the standard library, for the engine's side.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from pyhrf_parallel.files import write_then_rename

PLAN = "plan.json"
STATE = "state.json"
ENGINE_LOG = "engine.log"
#: The end of the name of every file that holds records of tasks.
RECORDS = ".records"


@dataclass(frozen=True)
class Plan:
    """What the engine is asked to do with a payload.

    Attributes
    ----------
    tasks : int
        Their number.
    jobs : int
        How many jobs share them.
    stop_at_failure : bool
        Whether nothing after the first failing task is needed.
    retries : int
        How often a task is tried again with which a whole job died.
    scheduler : str
        soma-workflow's name of the scheduler.
    queue : str or None
        The partition or queue; None for the scheduler's default.
    native : list of str
        Options for the scheduler, each as its command line takes it.
    refresh : float
        Seconds between two looks of the engine at its jobs.
    attached : bool
        Whether the engine ends, with all jobs, when its stdin does.
    checksum : str
        SHA-256 of the payload, which is checked before anything runs; empty for none.
    """

    tasks: int
    jobs: int
    stop_at_failure: bool
    retries: int = 0
    scheduler: str = "local_basic"
    queue: str | None = None
    native: list[str] = field(default_factory=list)
    refresh: float = 0.05
    attached: bool = True
    checksum: str = ""

    def write(self, directory: Path) -> None:
        """Write the plan to a run's directory."""
        write_then_rename(directory / PLAN, self.dumps())

    def dumps(self) -> bytes:
        """Return the plan as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the plan of a run."""
        return cls(**json.loads((directory / PLAN).read_bytes()))


@dataclass(frozen=True)
class JobRow:
    """How a job is doing: a row of the engine's table."""

    name: str
    status: str
    exit_value: int | None = None
    scheduler_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class State:
    """What the engine says of itself and its jobs.

    Attributes
    ----------
    phase : str
        ``'running'``, ``'done'`` (every task has a record that needs one), ``'failed'`` (see `error`)
        or ``'cancelled'``.
    pid : int
        The engine's process.
    host : str
        Its machine.
    error : str
        Why the engine gave up.
    settled, failed : int
        How many tasks have ended, and how many of them failed.
    jobs : list of JobRow
        All jobs of the run, the last one first submitted last.
    """

    phase: str
    pid: int
    host: str
    error: str = ""
    settled: int = 0
    failed: int = 0
    jobs: list[JobRow] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write the state to a run's directory."""
        write_then_rename(directory / STATE, json.dumps(asdict(self)).encode())

    def summary(self) -> str:
        """Say how many jobs run and wait."""
        running = sum(job.status == "running" for job in self.jobs)
        waiting = sum(job.status not in ("running", "done", "failed") for job in self.jobs)
        counts = [f"{running} running"] * bool(running) + [f"{waiting} queued"] * bool(waiting)
        return f"jobs: {', '.join(counts)}" if counts else ""

    @classmethod
    def loads(cls, content: bytes) -> Self:
        """Read a state from JSON."""
        values = json.loads(content)
        return cls(**values | {"jobs": [JobRow(**row) for row in values["jobs"]]})
