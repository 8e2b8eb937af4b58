"""Setting soma-workflow up in this process: in "light" mode, with all its state in the working directory."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soma_workflow.engine
from soma_workflow import client, configuration
from soma_workflow.schedulers import local_scheduler

from pyhrf_parallel.account import user_name
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.engine.quoting import in_braces
from pyhrf_parallel.engine.stages import Job
from pyhrf_parallel.processes import kill_tree
from pyhrf_parallel.tasks import available_cpus

# As many workers run side by side, each must not start a thread per CPU; what the user set stays.
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

_SETUP = "setup.sh"


def make_controller(plan: Plan) -> Any:
    """Start the engine with all its state in the working directory, and none in HOME."""
    os.environ.setdefault(
        "LOGNAME", user_name()
    )  # it asks for the name, and an account may have none
    soma_workflow.engine.refreshment_interval = plan.refresh
    slots = plan.jobs
    scheduler = configuration.LocalSchedulerCfg
    # Otherwise a ~/.soma-workflow-scheduler.cfg of the user would decide on the slots, and setting them
    # later would write that file.
    scheduler.search_config_path = staticmethod(lambda: "the number of slots given here")
    scheduler.load_from_file = classmethod(lambda cls, _path: cls(slots, max_proc_nb=slots))
    # Its own answer to a psutil that is absent are sessions, which no group's signal reaches.
    local_scheduler.have_psutil = True
    local_scheduler.kill_process_tree = kill_tree
    # Relative paths: the engine would expand a dollar sign in others.
    # A database of its own: that of an engine which was killed may be half made, and is not needed.
    database = f"./jobs-{os.getpid()}.db"
    settings = configuration.Configuration(
        "localhost", "light", plan.scheduler, database, "./transfers"
    )
    # Otherwise a directory that everybody may write to is left in the temporary directory.
    settings._shared_temporary_dir = "."  # noqa: SLF001
    return client.WorkflowController("localhost", config=settings)


def write_setup(plan: Plan) -> None:
    """Write the lines that run first in each job to a file: a scheduler's shell would change them."""
    if plan.setup:
        Path(_SETUP).write_text(f'{in_braces(plan.setup)}\nexec "$@"\n')


def watch_threads() -> list[str]:
    """Return a list that gets the reason when a thread ends with an exception.

    soma-workflow's engine and schedulers are threads, and nothing happens any more without them.
    """
    reasons: list[str] = []

    def note(end: threading.ExceptHookArgs) -> None:
        reasons.append(f"{end.exc_type.__name__}: {end.exc_value}")
        threading.__excepthook__(end)

    threading.excepthook = note
    return reasons


def make_workflow(layered: Sequence[Sequence[Sequence[Job]]], scheduler: str) -> client.Workflow:
    """Make a workflow of stages, each of layers of jobs, a layer running after the one before.

    The first jobs of the stages run one after the other: each reads whole images.
    """
    jobs: list[client.Job] = []
    dependencies: list[tuple[client.Job, client.Job]] = []
    groups: list[Any] = []
    first: client.Job | None = None
    for layers in layered:
        made = [[_job(job, scheduler) for job in layer] for layer in layers]
        for layer, following in itertools.pairwise(made):
            dependencies += itertools.product(layer, following)
        if first is not None and layers[0][0].step is not None:
            dependencies.append((first, made[0][0]))
        first = made[0][0]
        jobs += itertools.chain.from_iterable(made)
        groups.append(client.Group(list(itertools.chain.from_iterable(made)), layers[0][0].group))
    return client.Workflow(jobs, dependencies, groups if groups[0].name else None)


def _job(job: Job, scheduler: str) -> client.Job:
    """Make a job, which Slurm must not put into its queue again: what is left is submitted at once."""
    words = ["/bin/bash", _SETUP, *job.words] if Path(_SETUP).exists() else job.words
    native = ["--no-requeue", *job.native] if scheduler == "slurm" else job.native
    return client.Job(words, name=job.name, native_specification=native or None)


def submit(controller: Any, plan: Plan, workflow: client.Workflow) -> int:
    """Submit a workflow; return its id."""
    workflow_id: int = controller.submit_workflow(workflow, name=plan.name, queue=plan.queue)
    # Its loop has just begun to wait: the jobs would be submitted only after that.
    controller._engine_proxy.engine_loop._scheduler.jobs_finished_event.set()  # noqa: SLF001
    return workflow_id


def limit_threads(plan: Plan) -> None:
    """Share the CPUs among jobs that run on this machine."""
    if plan.scheduler == "local_basic":  # elsewhere the scheduler gives each job its CPUs
        for name in _THREAD_LIMITS:
            os.environ.setdefault(name, str(max(1, available_cpus() // plan.jobs)))
