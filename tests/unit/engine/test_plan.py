"""The files of a run: what is written of a plan and a state is what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pyhrf_parallel.engine.plan import EngineState, JobStatus, Plan, Step, TaskGroup
from pyhrf_parallel.engine.waiting import explain

STEPS = [
    Step("split", ["split", "it's\n"], native=["--mem=2G"]),
    Step("merge", ["m"], takes_outputs=True, needs_success=True, native=[]),
]
GROUP = TaskGroup("S é", 0, 2, "/a place", STEPS[:1], STEPS[1:], ["1.pck", "2.pck"], ["a", "b"])
PLANS = [
    Plan(3, 2, stop_at_failure=True),
    Plan(
        3, 2, stop_at_failure=False, retries=1, scheduler="slurm", queue="long", native=["--x='y z'"],
        refresh=0.5, attached=True, name="n", checksum="0f", setup="module load\n", hopeless_after=9.5,
        groups=[GROUP, replace(GROUP, start=2, stop=3, bounds=[3])],
    ),
]  # fmt: skip
ROWS = [
    JobStatus("a", "running", None, "12"),
    JobStatus("b", "queued_active", waits=explain("Priority")),
    JobStatus("c", "submitted", waits=explain("(Resources)")),
    JobStatus("d", "queued_active", waits=explain("(Resources)")),
    JobStatus("e", "done", 0, "3", group="g"),
    JobStatus("f", "failed", -9, "4", "its node failed", is_blameless=True),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_that_is_read_again(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert Plan.read(tmp_path) == plan


def test_the_checksum_of_a_payload(tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"abc")
    plan = PLANS[1].with_payload(tmp_path / "payload")
    assert plan.checksum == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert replace(plan, checksum=PLANS[1].checksum) == PLANS[1]


def test_a_state_that_is_read_again(tmp_path: Path) -> None:
    state = EngineState("failed", 7, "node é", "no\nroom", 4, 1, ROWS, {"g": "job merge failed: x"})
    state.write(tmp_path)
    content = (tmp_path / "state.json").read_bytes()
    assert EngineState.loads(content) == state
    assert EngineState.loads(content.ljust(9000)) == state  # as written into a file of that size


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], ""),
        (ROWS[4:], ""),
        (ROWS[:1], "jobs: 1 running"),
        (ROWS, "jobs: 1 running, 3 queued (Priority, Resources)"),
        ([JobStatus("a", "submitted")], "jobs: 1 queued"),
    ],
)
def test_summary(rows: list[JobStatus], told: str) -> None:
    assert EngineState("running", 1, "here", jobs=rows).summary() == told


def test_a_state_of_a_run_that_is_stopped() -> None:
    stopped = EngineState("running", 1, "here", settled=2, jobs=ROWS).cancelled()
    assert (stopped.phase, stopped.settled, stopped.summary()) == ("cancelled", 2, "")
    assert [row.status for row in stopped.jobs] == ["cancelled"] * 4 + ["done", "failed"]
    assert not any(row.waits for row in stopped.jobs)
    assert stopped.jobs[4:] == ROWS[4:]  # what has ended before stays as it was


@pytest.mark.parametrize(
    ("row", "ended", "died", "ran"),
    [
        (JobStatus("j", "submitted"), False, False, False),
        (JobStatus("j", "running", None, "1"), False, False, True),
        (JobStatus("j", "done", 0), True, False, True),
        (JobStatus("j", "done", None, "1"), True, False, True),  # nobody knows how
        (JobStatus("j", "failed", 1, "1"), True, True, True),
        (JobStatus("j", "failed"), True, False, False),  # one before it has failed
        (JobStatus("j", "queued_active", None, "1", is_blameless=True), False, True, True),
    ],
)
def test_what_a_row_tells(row: JobStatus, ended: bool, died: bool, ran: bool) -> None:
    assert (row.has_ended, row.has_died, row.ran) == (ended, died, ran)


@pytest.mark.parametrize("values", [{}, {"format": 1}, {"format": 3}])
def test_the_plan_of_another_version(tmp_path: Path, values: dict[str, int]) -> None:
    Plan(2, 1, stop_at_failure=True).write(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_bytes())
    del plan["format"]
    (tmp_path / "plan.json").write_text(json.dumps(plan | values))
    with pytest.raises(RuntimeError, match=r"plan.json was written by another version"):
        Plan.read(tmp_path)
