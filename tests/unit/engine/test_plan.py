"""The files of a run: what is written of a plan and a state is what is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyhrf_parallel.engine.plan import PLAN, STATE, JobRow, Plan, Stage, State, Step
from pyhrf_parallel.engine.waiting import explain

STEPS = [
    Step("split", ["split", "it's\n"], native=["--mem=2G"]),
    Step("merge", ["m"], takes_outputs=True, needs_success=True, native=[]),
]
STAGE = Stage("S é", 0, 2, "/a place", STEPS[:1], STEPS[1:], ["1.pck", "2.pck"], ["a", "b"])
PLANS = [
    Plan(3, 2, stop_at_failure=True),
    Plan(
        3, 2, stop_at_failure=False, retries=1, scheduler="slurm", queue="long", native=["--x='y z'"],
        refresh=0.5, attached=False, name="n", checksum="0f", setup="module load\n", hopeless_after=9.5,
        stages=[STAGE, replace(STAGE, start=2, stop=3, bounds=[3])],
    ),
]  # fmt: skip
ROWS = [
    JobRow("a", "running", None, "12"),
    JobRow("b", "queued_active", waits=explain("Priority")),
    JobRow("c", "submitted", waits=explain("(Resources)")),
    JobRow("d", "queued_active", waits=explain("(Resources)")),
    JobRow("e", "done", 0, "3", group="g"),
    JobRow("f", "failed", -9, "4", "its node failed", is_blameless=True),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_that_is_read_again(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PLAN]
    assert Plan.read(tmp_path) == plan


def test_the_checksum_of_a_payload(tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"abc")
    plan = PLANS[1].with_payload(tmp_path / "payload")
    assert plan.checksum == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert replace(plan, checksum=PLANS[1].checksum) == PLANS[1]


def test_a_state_that_is_read_again(tmp_path: Path) -> None:
    state = State("failed", 7, "node é", "no\nroom", 4, 1, ROWS, {"g": "job merge failed: x"})
    state.write(tmp_path)
    content = (tmp_path / STATE).read_bytes()
    assert State.loads(content) == state
    assert State.loads(content.ljust(9000)) == state  # as written into a file of that size


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], ""),
        (ROWS[4:], ""),
        (ROWS[:1], "jobs: 1 running"),
        (ROWS, "jobs: 1 running, 3 queued (Priority, Resources)"),
        ([JobRow("a", "submitted")], "jobs: 1 queued"),
    ],
)
def test_summary(rows: list[JobRow], told: str) -> None:
    assert State("running", 1, "here", jobs=rows).summary() == told


def test_a_state_of_a_run_that_is_stopped() -> None:
    stopped = State("running", 1, "here", settled=2, jobs=ROWS).cancelled()
    assert (stopped.phase, stopped.settled, stopped.summary()) == ("cancelled", 2, "")
    assert [row.status for row in stopped.jobs] == ["cancelled"] * 4 + ["done", "failed"]
    assert not any(row.waits for row in stopped.jobs)
    assert stopped.jobs[4:] == ROWS[4:]  # what has ended before stays as it was


@pytest.mark.parametrize(
    ("row", "ended", "died", "ran"),
    [
        (JobRow("j", "submitted"), False, False, False),
        (JobRow("j", "running", None, "1"), False, False, True),
        (JobRow("j", "done", 0), True, False, True),
        (JobRow("j", "done", None, "1"), True, False, True),  # nobody knows how
        (JobRow("j", "failed", 1, "1"), True, True, True),
        (JobRow("j", "failed"), True, False, False),  # one before it has failed
        (JobRow("j", "queued_active", None, "1", is_blameless=True), False, True, True),
    ],
)
def test_what_a_row_tells(row: JobRow, ended: bool, died: bool, ran: bool) -> None:
    assert (row.has_ended, row.has_died, row.ran) == (ended, died, ran)
