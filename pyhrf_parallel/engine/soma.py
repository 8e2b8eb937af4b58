"""soma-workflow as a scheduler: in "light" mode, which opens no port, with all its state in the working directory."""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import soma_workflow.engine
from soma_workflow import client, configuration, constants
from soma_workflow.schedulers import local_scheduler

from pyhrf_parallel.account import user_name
from pyhrf_parallel.engine import waiting
from pyhrf_parallel.engine.plan import JobStatus, Plan
from pyhrf_parallel.engine.quoting import in_braces
from pyhrf_parallel.engine.scheduler import Job, Round, flattened
from pyhrf_parallel.engine.slurm import CPUS
from pyhrf_parallel.engine.slurm_commands import Commands, adapt
from pyhrf_parallel.processes import kill_descendants, kill_tree
from pyhrf_parallel.tasks import available_cpus
from pyhrf_parallel.worker.run_paths import RunPaths

# Workers run side by side, so each must not start a thread per CPU; what the user has set stays.
_TRANSFERS = "./transfers"  # files that jobs of soma-workflow transfer; ours do not
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

_SUBMISSION = 3.0  # seconds that a submission under way may take


class SomaScheduler:
    """Runs jobs with soma-workflow: on this machine, or with what it knows of Slurm and others.

    Parameters
    ----------
    plan : Plan
        The plan of the run in the working directory.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        _limit_threads(plan)
        self._slurm = Commands(plan.refresh)
        if plan.scheduler == "slurm":
            adapt(self._slurm)
        self._broken = _watch_threads()
        self._controller = _make_controller(plan)
        self._workflow: int | None = None  # of the round
        self._jobs: list[Job] = []
        self._back: set[str] = set()
        _write_setup(plan)

    def submit(self, jobs: Round) -> None:
        """Submit the jobs of a round as a workflow."""
        workflow = _make_workflow(jobs, self._plan.scheduler)
        self._workflow = None  # should this be interrupted
        self._jobs = flattened(jobs)
        self._workflow = self._controller.submit_workflow(
            workflow, name=self._plan.name, queue=self._plan.queue
        )
        # Its loop has just begun to wait, and would submit the jobs only after that.
        self._controller._engine_proxy.engine_loop._scheduler.jobs_finished_event.set()  # noqa: SLF001

    def look(self) -> dict[str, JobStatus]:
        """Return the status of each job of the round, by `Job.file`."""
        if self._broken:
            raise RuntimeError(f"soma-workflow's engine has failed: {self._broken[0]}")
        # The status of each job: that of the workflow does not say which jobs failed.
        elements = sorted(self._controller.workflow_elements_status(self._workflow)[0])
        # It numbers them as they were given.
        return {
            job.file: self._row(element, job)
            for element, job in zip(elements, self._jobs, strict=True)
        }

    def _row(self, element: Any, job: Job) -> JobStatus:
        _id, status, _queue, ended, _dates, scheduler_id = element
        row = JobStatus(
            job.name, status, ended[1] if ended else None, str(scheduler_id or "") or None,
            self._slurm.refusals.get(job.name, ""), job.group,
        )  # fmt: skip
        unclear = status not in (constants.RUNNING, constants.DONE)
        return self._ask_slurm(row) if self._plan.scheduler == "slurm" and unclear else row

    def _ask_slurm(self, row: JobStatus) -> JobStatus:
        """Return a row with Slurm's reason why a job waits, or has failed."""
        if row.scheduler_id is None:
            complaint = self._slurm.complaints.get(row.name, "")
            return replace(row, waits=waiting.explain_complaint(complaint))
        found = self._slurm.job(row.scheduler_id)
        if found is None:
            return row
        if found.is_back and row.scheduler_id not in self._back:
            # Slurm lets it wait for minutes, and its tasks can be run at once.
            self._back.add(row.scheduler_id)
            self._slurm.cancel([row.scheduler_id])
        if row.scheduler_id in self._back:
            return replace(row, reason="Slurm had put it back into the queue", is_blameless=True)
        if row.status == constants.FAILED:
            return replace(row, reason=found.failure, is_blameless=found.is_blameless)
        return replace(row, waits=waiting.explain(found.reason))

    def cancel(self) -> None:
        """Stop all jobs that have not ended, and submit no others."""
        # soma-workflow's own way waits for a change of the workflow, which may never come.
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
        """Return the scheduler's ids of the jobs that have not ended."""
        deadline = time.monotonic() + _SUBMISSION
        while self._workflow is not None:
            running = [row for row in self.look().values() if not row.has_ended]
            # One may be being submitted right now.
            if all(row.scheduler_id for row in running) or time.monotonic() > deadline:
                return [row.scheduler_id for row in running if row.scheduler_id]
            time.sleep(self._plan.refresh)
        return []


def _make_controller(plan: Plan) -> Any:
    """Start the engine with all its state in the working directory, and none in HOME."""
    # It asks for the name, and an account may have none.
    os.environ.setdefault("LOGNAME", user_name())
    soma_workflow.engine.refreshment_interval = plan.refresh
    slots = plan.jobs
    scheduler = configuration.LocalSchedulerCfg
    # Otherwise a ~/.soma-workflow-scheduler.cfg of the user would decide on the slots, and setting them
    # later would write that file.
    scheduler.search_config_path = staticmethod(lambda: "the number of slots given here")
    scheduler.load_from_file = classmethod(lambda cls, _path: cls(slots, max_proc_nb=slots))
    # Without psutil it starts sessions, which no signal to the group reaches.
    local_scheduler.have_psutil = True
    local_scheduler.kill_process_tree = kill_tree
    # Relative paths: the engine would expand a dollar sign in others.
    # A database of its own: that of a killed engine may be damaged, and is not needed.
    database = f"./jobs-{os.getpid()}.db"
    settings = configuration.Configuration(
        "localhost", "light", plan.scheduler, database, _TRANSFERS
    )
    # Otherwise it leaves a directory in TMPDIR that everybody may write to.
    settings._shared_temporary_dir = "."  # noqa: SLF001
    # It would let a group write to the directories that it makes there. That of the run is private anyway.
    Path(_TRANSFERS).mkdir(mode=0o700, exist_ok=True)
    controller = client.WorkflowController("localhost", config=settings)
    for directory in Path(_TRANSFERS).iterdir():
        directory.chmod(0o700)
    return controller


def _write_setup(plan: Plan) -> None:
    """Write the lines that run first in each job to a file, as a scheduler's shell would change them."""
    if plan.setup:
        Path(RunPaths().setup).write_text(f'{in_braces(plan.setup)}\nexec "$@"\n')


def _watch_threads() -> list[str]:
    """Return a list to which the exception of each thread that dies is added.

    soma-workflow's engine and schedulers are threads; when one has died, nothing happens any more.
    """
    reasons: list[str] = []

    def note(end: threading.ExceptHookArgs) -> None:
        reasons.append(f"{end.exc_type.__name__}: {end.exc_value}")
        threading.__excepthook__(end)

    threading.excepthook = note
    return reasons


def _make_workflow(layered: Round, scheduler: str) -> client.Workflow:
    """Make a workflow of the jobs of a round.

    The first steps of the groups run one after the other, as each reads whole images.
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
    """Make a job, which Slurm must not put back into its queue: the engine submits what is left itself."""
    words = (
        ["/bin/bash", RunPaths().setup, *job.words]
        if Path(RunPaths().setup).exists()
        else job.words
    )
    native = ["--no-requeue", *job.native] if scheduler == "slurm" else job.native
    return client.Job(words, name=job.name, native_specification=native or None)


def _limit_threads(plan: Plan) -> None:
    """Let linear algebra in each job use the CPUs that the job has: its share here, elsewhere what it asks for."""
    asked = [o.removeprefix(f"{CPUS}=") for o in plan.native if o.startswith(f"{CPUS}=")]
    if plan.scheduler == "local_basic":
        asked = [str(max(1, available_cpus() // plan.jobs))]
    for name in _THREAD_LIMITS if asked else ():
        os.environ.setdefault(name, asked[-1])
