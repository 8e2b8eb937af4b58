"""What the engine says of jobs."""

from __future__ import annotations

import pytest

from pyhrf_parallel.engine.engine import _describe_end
from pyhrf_parallel.engine.plan import JobRow, State
from pyhrf_parallel.engine.slurm import JobState, parse_jobs
from pyhrf_parallel.engine.waiting import can_never_start, explain, explain_complaint


@pytest.mark.parametrize(
    ("exit_value", "told"),
    [(7, "status 7"), (-9, "SIGKILL"), (None, "nobody knows how")],
)
def test_the_end_of_a_job(exit_value: int | None, told: str) -> None:
    assert told in _describe_end(JobRow("job", "failed", exit_value))


def test_a_summary_has_the_schedulers_words() -> None:
    rows = [
        JobRow("a", "running"),
        JobRow("b", "queued_active", waits=explain("Priority")),
        JobRow("c", "queued_active", waits=explain("(Resources)")),
        JobRow("d", "done", 0),
    ]
    state = State("running", 1, "here", jobs=rows)
    assert state.summary() == "jobs: 1 running, 2 queued (Priority, Resources)"
    stopped = state.cancelled()
    assert [row.status for row in stopped.jobs] == ["cancelled"] * 3 + ["done"]
    assert (stopped.phase, stopped.summary()) == ("cancelled", "")


def test_reasons() -> None:
    assert explain("None") == explain("") == ""
    assert explain("Something New") == "Something New"
    assert explain("QOSMaxCpuPerUserLimit") == "QOSMaxCpuPerUserLimit: you use as much as you may"
    assert not can_never_start("QOSMaxCpuPerUserLimit")
    assert can_never_start("QOSMaxCpuPerJobLimit")
    line = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
    assert explain_complaint(line).startswith("MaxJobCount: ")
    assert explain_complaint("sbatch: warning: x\n") == "sbatch: warning: x"


def test_a_job_that_is_back_in_the_queue() -> None:
    fields = ("12", "PENDING", "0", "0", "BeginTime", "", "1")
    widths = (20, 20, 12, 12, 80, 80, 12)
    line = "".join(field.ljust(width) for field, width in zip(fields, widths, strict=True))
    (job,) = parse_jobs(line).values()
    assert job == JobState("PENDING", 0, "BeginTime", "", 1)
    assert job.is_back
