"""However a run ends, nothing of it goes on: in the environment that ``setup-cluster`` makes, and no other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from pyhrf_parallel import MapRun, RemoteException, remote_map, submit_map
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.runs.manifests import list_runs
from tests.cluster.one_node import OneNode, wait_for
from tests.contract import cases

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.cluster]
once = pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True)


def kill_engine(run: MapRun) -> None:
    def is_running() -> bool:
        return any(job.status == "running" for job in run.status().jobs)

    wait_for(is_running, 40, "a running job")
    state = run._connected().state()
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)


def daemon_maker() -> Callable[[int], int]:
    """Return a function that travels by value: this module is not on the cluster."""

    def leave_a_daemon(i: int) -> int:
        import os
        import subprocess

        if os.fork() == 0:
            os.setsid()
            subprocess.Popen(["sleep", "300"], start_new_session=True)
            os._exit(0)
        os.wait()
        if i == 1:
            os.kill(os.getpid(), 9)
        return i

    return leave_a_daemon


def wait_for_daemon(cluster: OneNode) -> None:
    def is_there() -> bool:  # and not dead, waiting to be reaped
        rows = cluster.command("ps", "-o", "stat=,comm=", "-u", cluster.user).splitlines()
        return any(row.endswith("sleep") and not row.startswith("Z") for row in rows)

    wait_for(is_there, 40, "a daemon")


def test_there_are_no_other_packages_than_the_users(cluster: OneNode) -> None:
    code = "import psutil"
    done = cluster.command(str(cluster.python), "-c", code)
    assert "No module named 'psutil'" in done


def test_a_run_whose_engine_is_dead_is_cancelled(cluster: OneNode) -> None:
    with submit_map(cases.sleep_at, [(i, 0, 100) for i in range(2)]) as run:
        kill_engine(run)
        assert cluster.processes()
        run.cancel()
        wait_for(lambda: not cluster.processes(), 15, "the end of all workers")
        assert run.status().phase != "running"
        wait_for(lambda: cluster.jobs() == [], 15, "the end of all jobs")
        assert run_command(["clean", "last", "--yes"]) == 0


@once
def test_a_run_whose_engine_is_dead_is_cleaned(cluster: OneNode) -> None:
    with submit_map(cases.sleep_at, [(i, 0, 100) for i in range(2)]) as run:
        kill_engine(run)
        run.clean()


@once
def test_a_run_that_loses_its_files_meanwhile_is_not_said_to_be_running(
    cluster: OneNode, capsys: pytest.CaptureFixture[str]
) -> None:
    with submit_map(cases.sleep_at, [(i, 0, 100) for i in range(2)]) as run:
        kill_engine(run)
        (state,) = cluster.home.glob("pyhrf_parallel_runs/*/state.json")
        state.unlink()  # as whoever waits for it does, who removes all of it
        assert run_command(["cancel", "last"]) == 0
        assert "is cancelled: " in capsys.readouterr().out
        assert run.status().phase == "cancelled"
        run.clean()


@once
def test_a_map_whose_run_is_cancelled_elsewhere_fails(cluster: OneNode) -> None:
    """And has no None in place of a result that is not there."""
    with ThreadPoolExecutor(1) as pool:
        tasks = [(0, 1, 100), (1, 1, 100)]
        waiting = pool.submit(remote_map, cases.sleep_at, tasks, mode="remote_cluster")
        wait_for(lambda: bool(list_runs()), 40, "a run")
        wait_for(
            lambda: bool(list_runs() and cluster.processes()), 40, "a run, and what it started"
        )
        assert run_command(["cancel", "last"]) == 0
        with pytest.raises(CancelledError, match=r"was cancelled when . of 2 tasks had ended"):
            waiting.result(60)


@once
def test_a_map_that_fails_stops_its_workers() -> None:
    with pytest.raises(RemoteException, match="Task 0"):
        remote_map(time.sleep, [(-1,), (300,)], mode="remote_cluster", n_jobs=2)


def test_daemons_of_tasks_end_with_the_job() -> None:  # or the cluster is not empty afterwards
    found: list[Any] = remote_map(
        daemon_maker(), [(i,) for i in range(3)], mode="remote_cluster", on_error="return"
    )
    assert found[::2] == [0, 2]
    assert "SIGKILL" in str(found[1])


@pytest.mark.parametrize("scheduler", ["slurm"], indirect=True)
def test_daemons_of_tasks_end_with_a_job_that_the_scheduler_ends(cluster: OneNode) -> None:
    leave, wait = daemon_maker(), time.sleep

    def leave_and_wait(i: int) -> None:
        leave(i)
        wait(300)

    with submit_map(leave_and_wait, [(0,)], on_error="return") as run:
        wait_for_daemon(cluster)
        cluster.command("scancel", *cluster.jobs())
        (lost,) = run.result()
        assert "it was cancelled (scancel)" in str(lost)
        wait_for(lambda: not cluster.processes(), 15, "the end of all that it has left")
        run.clean()


@once
def test_daemons_of_tasks_end_with_a_run_that_is_cancelled(cluster: OneNode) -> None:
    leave, wait = daemon_maker(), time.sleep

    def leave_and_wait(i: int) -> None:
        leave(i)
        wait(300)

    with submit_map(leave_and_wait, [(0,)]) as run:
        wait_for_daemon(cluster)
        run.cancel()
        wait_for(lambda: not cluster.processes(), 15, "the end of all that it has left")
        run.clean()
