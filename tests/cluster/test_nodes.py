"""Slurm with three nodes: nodes that go down, jobs that it puts back into its queue, jobs that it lets wait."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyhrf_parallel import ClusterError, MapRun, submit_map
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.runs import planning
from tests.cluster.one_node import OneNode, wait_for
from tests.cluster.slurm import Slurm
from tests.contract import cases

pytestmark = [
    pytest.mark.usefixtures("three_nodes", "configured"),
    pytest.mark.cluster,
    pytest.mark.xdist_group("three nodes"),
    pytest.mark.parametrize("scheduler", ["slurm"], indirect=True),
]
MANY = 4  # jobs, one more than there are nodes


@pytest.fixture(scope="module")
def three(cluster: OneNode) -> Iterator[Slurm]:
    """Takes no more than a few jobs at a time."""
    found = Slurm(cluster.base / "three", cluster.slurm.munge, nodes=3, cpus=1)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture
def three_nodes(cluster: OneNode, three: Slurm) -> Iterator[Slurm]:
    with cluster.world(slurm=three):
        yield three
    wait_for(three.is_idle, 60, "idle nodes")


def jobs_that_run(run: MapRun, number: int) -> list[str]:
    """Wait until as many jobs run; return their ids."""

    def found() -> list[str]:
        rows = run.status().jobs
        return [row.scheduler_id for row in rows if row.status == "running" and row.scheduler_id]

    wait_for(lambda: len(found()) == number, 40, f"{number} running jobs")
    return found()


def node_of(cluster: OneNode, job: str) -> str:
    return cluster.command("squeue", "-h", "-j", job, "-o", "%N").strip()


def test_a_node_that_goes_down(cluster: OneNode) -> None:
    with submit_map(cases.sleep_at, [(i, i, 2) for i in range(9)], n_jobs=3) as run:
        _, _, job = jobs_that_run(run, 3)
        node = node_of(cluster, job)
        cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        assert run.result() == [*range(9)]
        # Nobody has waited for Slurm to forget it.
        assert "JobState=NODE_FAIL" in cluster.command("scontrol", "show", "job", job)
        assert any("its node failed" in row.reason for row in run.status().jobs)
        run.clean()


def test_a_node_that_dies(cluster: OneNode, three_nodes: Slurm) -> None:
    """With its daemon, and with what the job ran there; Slurm takes half a minute to notice."""
    with submit_map(cases.sleep_at, [(i, i, 2) for i in range(9)], n_jobs=3) as run:
        job = jobs_that_run(run, 3)[-1]
        number = int(node_of(cluster, job).removeprefix("node"))
        three_nodes.kill_node(number)
        try:
            assert run.result() == [*range(9)]
        finally:
            three_nodes.start_node(number)
        run.clean()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_tasks_of_a_job_in_the_queue_again(n_jobs: int, cluster: OneNode, configured: Path) -> None:
    config = configured / ".pyhrf" / "config.cfg"
    config.write_text(f"{config.read_text()}native_specification = --requeue\n")
    with submit_map(cases.sleep_at, [(i, i, 2) for i in range(6)], n_jobs=n_jobs) as run:
        job = jobs_that_run(run, n_jobs)[-1]
        cluster.command("scontrol", "requeue", job)
        assert run.result() == [*range(6)]
        # Slurm was going to start it again two minutes later; nobody has waited for that.
        assert "JobState=CANCELLED" in cluster.command("scontrol", "show", "job", job)
        reasons = [row.reason for row in run.status().jobs if row.scheduler_id == job]
        assert reasons == ["Slurm had put it back into the queue"]
        run.clean()


def test_a_job_that_asks_for_room_for_several_processes(
    cluster: OneNode, configured: Path, tmp_path: Path
) -> None:
    """It still runs each of its tasks once."""
    config = configured / ".pyhrf" / "config.cfg"
    config.write_text(f"{config.read_text()}native_specification = --nodes=2 --ntasks=2\n")
    with submit_map(cases.count_and_exit, [(tmp_path, i, -1) for i in range(4)], n_jobs=1) as run:
        assert run.result() == [*range(4)]
        run.clean()
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == [*"0123"]


def test_a_step_that_a_task_runs_may_fail() -> None:
    """The job has not: the task alone knows what that means."""

    def exit_of_step(*words: str) -> int:
        return subprocess.run(["srun", *words], check=False).returncode

    with submit_map(exit_of_step, [("sh", "-c", "exit 3")], n_jobs=1) as run:
        assert run.result() == [3]
        wait_for(lambda: run.status().jobs[0].has_ended, 20, "the end of the job")
        assert [(row.status, row.exit_value) for row in run.status().jobs] == [("done", 0)]
        run.clean()


def test_a_job_that_waits_says_why(cluster: OneNode, capsys: pytest.CaptureFixture[str]) -> None:
    with submit_map(time.sleep, [(300,)] * MANY, n_jobs=MANY) as run:
        jobs_that_run(run, 3)
        wait_for(
            lambda: any(row.waits for row in run.status().jobs), 30, "the reason of the fourth"
        )
        told = {row.waits for row in run.status().jobs} - {""}
        assert told <= {
            "Resources: waits for free nodes",
            "Priority: jobs of higher priority go first",
        }
        assert run_command(["status", "last"]) == 0
        assert told.pop() in capsys.readouterr().out
        run.cancel()
        assert {row.status for row in run.status().jobs} == {"cancelled"}
        run.clean()


def test_a_job_that_can_never_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_HOPELESS_AFTER", 2)
    with submit_map(abs, [(1,)], resources={"cpus": 64}) as run:
        told = r"can never start: asks for more than the queue gives \(PartitionConfig\); see mem, time, cpus"
        with pytest.raises(ClusterError, match=told):
            run.result()
        assert run.status().phase == "failed"
        run.clean()


@pytest.fixture
def full(cluster: OneNode, three: Slurm) -> Iterator[Slurm]:
    """A Slurm that takes one job, and then no more for some minutes."""
    found = Slurm(cluster.base / "full", three.munge, settings="MaxJobCount=2")
    try:
        found.up()
        with cluster.world(slurm=found):
            yield found
    finally:
        found.down()


def test_a_queue_that_is_full(full: Slurm) -> None:
    with submit_map(time.sleep, [(300,)] * 3, n_jobs=3) as run:
        wait_for(
            lambda: any("MaxJobCount" in row.waits for row in run.status().jobs),
            30,
            "word of what keeps the last one",
        )
        run.cancel()
        run.clean()
