"""The engine's rounds, its account of deaths, and retries: with a scheduler that runs jobs in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pyhrf_parallel.engine import engine as engines
from pyhrf_parallel.engine.engine import Engine, _describe_end
from pyhrf_parallel.engine.plan import EngineState, JobStatus, Plan, TaskGroup
from pyhrf_parallel.engine.scheduler import Job, Round, flattened
from pyhrf_parallel.outcomes import Ledger
from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.record_files import RecordFile, RecordStream
from pyhrf_parallel.worker.records import note, raised, returned
from pyhrf_parallel.worker.runner import Cursor

#: What a task does to its job, each time that it is run: it returns when nothing is left.
Fates = dict[int, list[str]]


class JobHere:
    """A job that runs one task at each look."""

    def __init__(self, job: Job, fates: Fates) -> None:
        self.row = JobStatus(job.name, "running", scheduler_id=job.file)
        self._fates = fates
        self._cursor = Cursor(f"{job.file}.cursor")
        self._records = RecordFile(f"{job.file}.records")
        self._claims = Claims(job.claims)
        self._in_hand: list[int] = []

    def advance(self) -> None:
        """Run a task; or end, if there is none."""
        if not self._in_hand:
            start, stop = self._claims.take(2) or (0, 0)
            self._in_hand = [*range(start, stop)]
            self._cursor.numbers[2], self._cursor.numbers[3] = start, stop
        if not self._in_hand:
            self._records.finish()
            self.row = replace(self.row, status="done", exit_value=0)
            return
        index = self._in_hand.pop(0)
        self._cursor.numbers[0], self._cursor.numbers[1] = index + 1, time.monotonic_ns()
        fates = self._fates.get(index)
        match fates.pop(0) if fates else "return":
            case "return":
                self._send(index, returned(index, [index]))
            case "raise":
                self._send(index, [raised(index, ValueError(index))])
            case "wait":
                self._in_hand.insert(0, index)
            case "kill":
                self.row = replace(self.row, status="failed", exit_value=-9)
            case "memory":
                reason = "it used more memory than it had asked for"
                self.row = replace(self.row, status="failed", exit_value=-9, reason=reason)
            case "node":
                self.row = replace(
                    self.row,
                    status="failed",
                    exit_value=1,
                    reason="its node failed",
                    is_blameless=True,
                )

    def _send(self, index: int, records: list[tuple[object, ...]]) -> None:
        self._records.write(records)
        self._cursor.numbers[0] = self._cursor.numbers[1] = 0
        self._cursor.numbers[2] = index + 1


@dataclass
class SchedulerHere:
    """Runs jobs in this process; `turn_to` changes the rows that it shows."""

    fates: Fates = field(default_factory=dict)
    turn_to: Callable[[JobStatus], JobStatus] | None = None
    rounds: list[list[Job]] = field(default_factory=list)
    cancelled: bool = False

    def submit(self, jobs: Round) -> None:
        self.rounds.append(flattened(jobs))
        self._running = {job.file: JobHere(job, self.fates) for job in self.rounds[-1]}

    def look(self) -> dict[str, JobStatus]:
        for job in self._running.values():
            if not job.row.has_ended and not self.turn_to and not self.cancelled:
                job.advance()
        rows = {file: job.row for file, job in self._running.items()}
        return {file: self.turn_to(row) for file, row in rows.items()} if self.turn_to else rows

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "_LATE", 0)


def run(scheduler: SchedulerHere, tasks: int, jobs: int = 1, **options: object) -> dict[int, str]:
    """Run an engine; return what its records say of each task."""
    plan = Plan(tasks, jobs, **{"stop_at_failure": False, "refresh": 0.0} | options)  # type: ignore[arg-type]
    Engine(plan, scheduler).run()
    return found(tasks)


def found(tasks: int) -> dict[int, str]:
    ledger = Ledger(tasks, stop_at_failure=False)
    lost: dict[int, str] = {}
    for path in Path().glob("*.records*"):
        with path.open("rb") as file:
            for records in RecordStream(skim=True).read(file):
                note(records, ledger)
                lost |= {record[1]: record[2] for record in records if record[0] == "lost"}
    words = {i: "returned" if ledger.has_returned(i) else "failed" for i in range(tasks)}
    return {i: lost.get(i, word) for i, word in words.items() if ledger.is_settled(i)}


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_one_round_runs_all_tasks(jobs: int) -> None:
    scheduler = SchedulerHere()
    assert run(scheduler, 5, jobs) == dict.fromkeys(range(5), "returned")
    assert [len(jobs) for jobs in scheduler.rounds] == [jobs]
    state = EngineState.loads(Path("state.json").read_bytes())
    assert (state.phase, state.settled, state.failed) == ("done", 5, 0)


def test_a_task_that_kills_its_job_is_lost_alone() -> None:
    scheduler = SchedulerHere({1: ["kill"]})
    outcome = run(scheduler, 5)
    lost = outcome.pop(1)
    assert lost.startswith("its job ")
    assert "SIGKILL" in lost
    assert outcome == dict.fromkeys([0, 2, 3, 4], "returned")
    assert len(scheduler.rounds) == 2  # the rest


def test_it_is_tried_again_as_often_as_wanted() -> None:
    assert run(SchedulerHere({1: ["kill"]}), 3, retries=1)[1] == "returned"
    for path in Path().glob("*.records*"):
        path.unlink()
    assert "SIGKILL" in run(SchedulerHere({1: ["kill"] * 2}), 3, retries=1)[1]


@pytest.mark.parametrize(("times", "is_lost"), [(1, False), (2, False), (3, True)])
def test_a_node_that_fails_is_not_the_tasks_fault_at_first(times: int, is_lost: bool) -> None:
    outcome = run(SchedulerHere({0: ["node"] * times}), 2)
    assert (outcome[0] != "returned") == is_lost
    assert outcome[1] == "returned"


def test_others_take_at_once_what_a_dead_job_had_in_hand() -> None:
    scheduler = SchedulerHere({0: ["kill"], 2: ["wait"] * 3})
    outcome = run(scheduler, 8, 2)
    assert [outcome[i] for i in range(1, 8)] == ["returned"] * 7
    assert len(scheduler.rounds) == 1


def test_what_is_stopped_after_the_first_failure_is_not_lost() -> None:
    scheduler = SchedulerHere({0: ["wait", "raise"], 1: ["wait"] * 99})
    outcome = run(scheduler, 4, 2, stop_at_failure=True)
    assert scheduler.cancelled
    assert outcome == {0: "failed"}


def test_an_engine_that_is_started_again_runs_the_rest_only() -> None:
    records = RecordFile("job-1-0.records")
    records.write(returned(0, [0, 1]))
    records.finish()
    assert run(SchedulerHere({0: ["kill"], 1: ["kill"]}), 4) == dict.fromkeys(range(4), "returned")


def test_a_job_that_is_refused() -> None:
    def refuse(row: JobStatus) -> JobStatus:
        return replace(row, status="failed", scheduler_id=None, reason="no such queue")

    with pytest.raises(RuntimeError, match="refuses the job: no such queue"):
        run(SchedulerHere(turn_to=refuse), 2)


def test_jobs_that_end_before_they_run_a_task() -> None:
    def fail(row: JobStatus) -> JobStatus:
        Path(f"{row.scheduler_id}.log").write_text("no such interpreter\n")
        return replace(row, status="failed", exit_value=127)

    scheduler = SchedulerHere(turn_to=fail)
    with pytest.raises(RuntimeError, match="before they have run a task: no such interpreter"):
        run(scheduler, 2)
    assert len(scheduler.rounds) == 2


def test_a_job_that_can_never_start() -> None:
    def wait(row: JobStatus) -> JobStatus:
        return replace(row, status="queued", waits="PartitionConfig: asks for more than there is")

    with pytest.raises(RuntimeError, match=r"can never start: asks for more .*see mem"):
        run(SchedulerHere(turn_to=wait), 2, hopeless_after=0.05, refresh=0.02)


def test_a_region_that_needs_more_memory_gets_a_job_with_more() -> None:
    place = Path("one")
    place.mkdir()
    group = TaskGroup("one", 0, 3, str(place), [], [], ["0.pck", "1.pck", "2.pck"], ["one-0"])
    scheduler = SchedulerHere({1: ["memory", "memory"]})
    outcome = run(scheduler, 3, groups=[group], retries=2, native=["--mem=100M"])
    assert outcome == dict.fromkeys(range(3), "returned")
    asked = [[job.native for job in jobs] for jobs in scheduler.rounds]
    assert asked[0] == [["--mem=100M"]]
    assert ["--mem=200M"] in asked[1]
    assert ["--mem=400M"] in asked[2]


@pytest.mark.parametrize(
    ("exit_value", "told"),
    [(7, "status 7"), (-9, "SIGKILL"), (None, "nobody knows how")],
)
def test_the_end_of_a_job(exit_value: int | None, told: str) -> None:
    assert told in _describe_end(JobStatus("job", "failed", exit_value))
