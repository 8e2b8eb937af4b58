"""The engine's view of a scheduler: jobs that it submits, looks at and cancels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from pyhrf_parallel.engine.plan import JobStatus, Plan, Step

_SOMA_WORKFLOW = "pyhrf_parallel.engine.soma:SomaScheduler"
#: Schedulers that soma-workflow does not run, as ``module:class`` by their names in the configuration.
SCHEDULERS: dict[str, str] = {}


@dataclass(frozen=True)
class Job:
    """A job to submit.

    Attributes
    ----------
    name : str
        As the scheduler knows it.
    file : str
        What its files in the run's directory are called; unique in the run.
    words : list of str
        The command that it runs.
    native : list of str
        Options for the scheduler.
    group : str
        The name of its task group.
    step : Step or None
        The step that it runs; None if it runs tasks.
    claims : str
        The file of the tasks that it may take.
    """

    name: str
    file: str
    words: list[str]
    native: list[str]
    group: str = ""
    step: Step | None = None
    claims: str = ""


#: The jobs of a round: for each task group, layers of jobs, each to run after the one before.
Round = Sequence[Sequence[Sequence[Job]]]


class Scheduler(Protocol):
    """Runs jobs in the working directory, which is that of the run: one round after the other."""

    def submit(self, jobs: Round) -> None:
        """Submit the jobs of a round, after the last round has ended."""

    def look(self) -> dict[str, JobStatus]:
        """Return the status of each job of the round, by `Job.file`.

        A job is given up (``'failed'``, with neither exit value nor id) if one of the layer before failed.

        Raises
        ------
        RuntimeError
            If the scheduler cannot run jobs any more.
        """

    def cancel(self) -> None:
        """Stop all jobs that have not ended, and submit no others."""


def make_scheduler(plan: Plan) -> Scheduler:
    """Return the scheduler that a plan names."""
    module, _, name = SCHEDULERS.get(plan.scheduler, _SOMA_WORKFLOW).partition(":")
    scheduler: Scheduler = getattr(import_module(module), name)(plan)
    return scheduler


def flattened(jobs: Round) -> list[Job]:
    """Return the jobs of a round, those of one task group after the other."""
    return [job for layers in jobs for layer in layers for job in layer]
