"""The process that runs the jobs of one run, on this machine or on a cluster.

It is started in the directory of the run, and reads its plan there. It submits jobs for the tasks of the payload and
the steps around them, and again for what a dead job has left, until every task has a record and every step is
done. An attached engine ends with the process that started it; any other goes on by itself.

It is a process of its own because soma-workflow prints to stdout, keeps threads and exit handlers, changes the
environment and reads files in HOME: none of this may happen to the user's process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from pyhrf_parallel.engine import slurm
from pyhrf_parallel.engine.group_progress import GroupProgress, make_progress
from pyhrf_parallel.engine.job_table import JobTable
from pyhrf_parallel.engine.plan import EngineState, JobStatus, Plan
from pyhrf_parallel.engine.scheduler import Job, Scheduler, flattened, make_scheduler
from pyhrf_parallel.engine.takeover import Takeover, find_tasks
from pyhrf_parallel.files import checksum, remove_directory
from pyhrf_parallel.outcomes import Ledger
from pyhrf_parallel.processes import adopt_orphans, kill_descendants
from pyhrf_parallel.worker.launch import describe_death, read_log_tail
from pyhrf_parallel.worker.payload import Payload
from pyhrf_parallel.worker.record_files import RecordFile, RecordStream
from pyhrf_parallel.worker.records import is_return, lost, note
from pyhrf_parallel.worker.run_paths import RunPaths

_LATE = 20.0  # seconds that a shared file system may need to show a file
_HOPELESS = 2  # rounds in a row in which no job ran a task
_RESERVED = 64 << 10  # bytes of a file for the last word: a full disk has no room for another
_PATHS = RunPaths()  # the engine works in the run's directory


class _Cancelled(BaseException):
    """The run is to be cancelled."""


class Engine:
    """Runs the jobs of one run.

    Parameters
    ----------
    plan : Plan
        The plan of the run in the working directory.
    scheduler : Scheduler
        Runs the jobs.
    """

    def __init__(self, plan: Plan, scheduler: Scheduler) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._ledger = Ledger(plan.tasks, stop_at_failure=plan.stop_at_failure)
        self._streams: dict[str, RecordStream] = {}
        self._deaths: dict[int, int] = {}
        self._takeover = Takeover(self._ledger)
        self._groups = make_progress(plan)
        self._written: EngineState | None = None
        self._records = RecordFile(_PATHS.records(f"engine-{os.getpid()}"))
        earlier = Path(_PATHS.earlier)
        self._earlier = set(json.loads(earlier.read_bytes())) if earlier.exists() else set()
        self._table = JobTable(plan, scheduler)

    def run(self, *, again: bool = False) -> None:
        """Submit jobs, round after round, until no group has anything left to run.

        Parameters
        ----------
        again : bool
            Whether to run tasks that failed, and the steps after them, again.
        """
        idle_rounds = 0
        self._read()
        if again:
            for group in self._groups:
                group.reopen(self._ledger)
        while not all(group.is_over(self._ledger) for group in self._groups):
            before = self._progress()
            jobs = self._round()
            idle_rounds = 0 if self._progress() != before else idle_rounds + 1
            if idle_rounds == _HOPELESS:
                raise RuntimeError(
                    f"The jobs end before they have run a task: {self._why(jobs[0])}"
                )
        self._records.finish()
        self.say("done")

    def _progress(self) -> tuple[object, ...]:
        left = [group.left for group in self._groups]
        deaths = sum(self._deaths.values()) + self._takeover.excused
        return self._ledger.settled, deaths, left

    def _round(self) -> list[Job]:
        """Run jobs for all tasks without a record, and the steps around them; return the jobs."""
        name = f"{os.getpid()}-{len(self._table.rows)}"
        running = [group for group in self._groups if not group.is_over(self._ledger)]
        layered = [group.layers(self._ledger, name) for group in running]
        jobs = flattened(layered)
        self._scheduler.submit(layered)
        while not self._look(jobs):
            time.sleep(self._plan.refresh)
        group_of = {group.name: group for group in running}
        for job in jobs:
            self._account(group_of[job.group], job)
        self._read()
        if all(self._table.rows[job.file].exit_value == 0 for job in jobs if job.step is None):
            self._wait_for_late_records(running)
        return jobs

    def _wait_for_late_records(self, groups: Sequence[GroupProgress]) -> None:
        """Wait for records of jobs that ended well: a shared file system may show them late."""
        deadline = time.monotonic() + _LATE
        while any(s.has_tasks(self._ledger) for s in groups) and time.monotonic() < deadline:
            time.sleep(self._plan.refresh)
            self._read()

    def _look(self, jobs: Sequence[Job]) -> bool:
        """Take in the news of a round; return whether it is over."""
        over = self._table.look()
        self._read()
        self.say("running")
        self._table.check_hope()
        if not over:
            self._takeover.give_back([(job, self._table.rows[job.file]) for job in jobs])
        if self._ledger.complete and self._ledger.settled < self._plan.tasks and not over:
            self._scheduler.cancel()  # a task has failed: the rest is not needed
            return True
        return over

    def _read(self) -> None:
        for name, path in _PATHS.all_records():
            stream = self._streams.setdefault(name, RecordStream(skim=True))
            with suppress(FileNotFoundError), Path(path).open("rb") as file:
                for records in stream.read(file):
                    is_earlier = name in self._earlier
                    note(filter(is_return, records) if is_earlier else records, self._ledger)

    def _account(self, group: GroupProgress, job: Job) -> None:
        """Take in how a job ended, and settle the task that it died of."""
        row = self._table.rows[job.file]
        if row.reason and row.scheduler_id is None:
            raise RuntimeError(f"The scheduler refuses the job: {row.reason}")
        group.account(job, row, self._why(job))
        index, _ = find_tasks(job)
        if row.exit_value == 0 or index < 0 or self._ledger.is_settled(index):
            return
        if index >= self._ledger.limit:  # an earlier task failed, and the job was stopped for it
            return
        if self._takeover.excuses(index, row):
            return
        self._deaths[index] = self._deaths.get(index, 0) + 1
        memory = slurm.killed_for_memory(self._schedulers_tail(job), row.reason)
        if self._deaths[index] > self._plan.retries:
            how = memory or row.reason or _describe_end(row)
            reason = f"its job {row.scheduler_id or job.name} ended: {how}"
            self._records.write([lost(index, reason, self._tail(job))])
            group.discard(index)
        elif memory:
            group.too_big[index] = group.too_big.get(index, 0) + 1

    def _tail(self, job: Job) -> str:
        """Return the end of the logs of a job."""
        return read_log_tail(_PATHS.log(job.file)) + self._schedulers_tail(job)

    def _schedulers_tail(self, job: Job) -> str:
        """Return the end of the scheduler's log of a job, in which is also what it printed before it had its own."""
        number = slurm.job_number(self._table.rows[job.file].scheduler_id or "")
        return read_log_tail(_PATHS.slurm_log(job.name, number)) if number else ""

    def _why(self, job: Job) -> str:
        row = self._table.rows[job.file]
        message = "\n".join(filter(None, [row.reason, self._tail(job).strip()]))
        return message or f"exit {row.exit_value}"

    def cancel(self) -> None:
        """Stop all jobs that have not ended, and note that the run is cancelled."""
        self.cancel_jobs()
        self._read()
        self.state("running").cancelled().write(Path())

    def cancel_jobs(self) -> None:
        """Stop all jobs that have not ended."""
        self._scheduler.cancel()

    def say(self, phase: str) -> None:
        """Write the state, if it has changed."""
        state = self.state(phase)
        if state != self._written:
            state.write(Path())
            self._written = state

    def state(self, phase: str, error: str = "") -> EngineState:
        """Return the state of the run."""
        return EngineState(
            phase, os.getpid(), os.uname().nodename, error,
            self._ledger.settled, self._ledger.failed, list(self._table.rows.values()),
            {group.name: group.problem for group in self._groups if group.problem},
        )  # fmt: skip


def _describe_end(row: JobStatus) -> str:
    """Describe the end of a job for which the scheduler gives no reason."""
    if row.exit_value is None:
        return "nobody knows how, its scheduler gives no exit status"
    return describe_death(row.exit_value)


def _take_payload(plan: Plan) -> None:
    """Check the payload, and unpack the modules that came with it."""
    if plan.checksum and checksum(_PATHS.payload) != plan.checksum:
        raise RuntimeError("The payload is not what was sent (wrong checksum)")
    with closing(Payload(_PATHS.payload)) as payload:
        payload.unpack_code(_PATHS.code)


def _write_last(state: EngineState) -> None:
    """Write the last state of a run that failed, even if the disk is full."""
    content = state.dumps()
    if len(content) > _RESERVED:
        content = replace(state, jobs=[]).dumps()
    try:
        with Path(_PATHS.reserve).open("r+b") as file:
            file.write(content.ljust(_RESERVED))
        Path(_PATHS.reserve).replace(_PATHS.state)
    except OSError:  # the disk was full from the beginning
        state.write(Path())


def _die_with_parent() -> None:
    """Wait for the end of stdin, which means that the parent has died: it kills this process otherwise."""
    sys.stdin.read()
    kill_descendants(os.getpid())
    remove_directory(Path.cwd())
    os.killpg(0, signal.SIGKILL)


def _cancel(_number: int, _frame: object) -> None:
    raise _Cancelled


def main() -> None:
    """Run the engine of the run in the working directory."""
    os.chdir(sys.argv[1])
    log = os.open(_PATHS.engine_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGTERM, _cancel)
    plan = Plan.read(Path())
    adopt_orphans()
    if plan.attached:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    engine: Engine | None = None
    here = os.getpid(), os.uname().nodename
    try:
        Path(_PATHS.reserve).write_bytes(bytes(_RESERVED))
        _take_payload(plan)
        engine = Engine(plan, make_scheduler(plan))
        engine.run(again="again" in sys.argv[2:])
    except _Cancelled:
        if engine is not None:
            engine.cancel()
        else:
            EngineState("cancelled", *here).write(Path())
    except BaseException as error:
        with suppress(OSError):
            traceback.print_exc()
        state = EngineState("failed", *here, f"{error}" or type(error).__name__)
        if engine is not None:
            with suppress(Exception):
                engine.cancel_jobs()
            with suppress(Exception):
                state = engine.state("failed", state.error)
        _write_last(state)
    if plan.attached:  # the parent reads the records, and then kills this process
        threading.Event().wait()
    os._exit(0)  # the engine's threads would not let the interpreter end
