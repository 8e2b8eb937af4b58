"""Faults of a real cluster: its SSH server, its scheduler and its nodes stop while a map runs there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil

from tests.cluster.daemons import start, stop, wait_for
from tests.cluster.one_node import OneNode, one_node, what_is_missing
from tests.faults.trials import Call, Trial


@contextmanager
def running_cluster() -> Iterator[OneNode | None]:
    """Run a cluster, None where this machine cannot."""
    if what_is_missing():
        yield None
        return
    with one_node(Path(mkdtemp(prefix="pyhrf_cluster_", dir="/tmp"))) as cluster:
        yield cluster


def _sessions_end(cluster: OneNode, _: Trial) -> None:
    listener = int((cluster.base / "sshd.pid").read_text())
    for session in psutil.Process(listener).children():
        with suppress(psutil.Error):
            session.kill()


def _sshd_is_away(cluster: OneNode, trial: Trial) -> None:
    stop(cluster.base / "sshd.pid", "sshd")
    _sessions_of_account_end(cluster)
    time.sleep(trial.rng.random() * 3)
    start("sshd", "-f", cluster.base / "sshd_config", "-E", cluster.base / "sshd.log")
    wait_for(cluster.listens, 10, "sshd")


def _sessions_of_account_end(cluster: OneNode) -> None:
    for line in cluster.command("ps", "-o", "pid=,comm=", "-u", cluster.user).splitlines():
        pid, name = line.split(None, 1)
        if name.startswith("sshd"):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _slurmctld_is_away(cluster: OneNode, trial: Trial) -> None:
    cluster.slurm.stop_controller()
    time.sleep(trial.rng.random() * 3)
    cluster.slurm.start_controller()


def _slurmd_is_away(cluster: OneNode, trial: Trial) -> None:
    stop(cluster.slurm.place / "node1.pid", "slurmd")
    time.sleep(trial.rng.random() * 3)
    cluster.slurm.start_node(1)


def _node_is_drained(cluster: OneNode, trial: Trial) -> None:
    cluster.command("scontrol", "update", "nodename=node1", "state=drain", "reason=fault")
    time.sleep(trial.rng.random() * 3)
    cluster.command("scontrol", "update", "nodename=node1", "state=resume")


def _node_goes_down(cluster: OneNode, trial: Trial) -> None:
    cluster.command("scontrol", "update", "nodename=node1", "state=down", "reason=fault")
    time.sleep(trial.rng.random() * 2)
    cluster.command("scontrol", "update", "nodename=node1", "state=resume")


def _job_is_cancelled(cluster: OneNode, trial: Trial) -> None:
    if jobs := cluster.jobs():
        cluster.command("scancel", trial.rng.choice(jobs))


def _engine_is_killed(cluster: OneNode, _: Trial) -> None:
    for pid in cluster.processes():
        with suppress(psutil.Error):
            if "pyhrf_parallel.engine.engine" in psutil.Process(pid).cmdline():
                psutil.Process(pid).kill()


# Each with how many tasks it may cost: those of the two jobs, where it ends jobs; with a dead engine it is not
# known whether a task has begun.
_FAULTS: list[tuple[Callable[[OneNode, Trial], None], int]] = [
    (_sessions_end, 0),
    (_sshd_is_away, 0),
    (_slurmctld_is_away, 0),
    (_slurmd_is_away, 0),
    (_node_is_drained, 0),
    (_node_goes_down, 2),
    (_job_is_cancelled, 1),
    (_engine_is_killed, 0),
]


def on_cluster(trial: Trial, cluster: OneNode) -> None:
    """Run a map there, to which something happens at any instant."""
    rng = trial.rng
    home = trial.place / "HOME"
    cluster.make_client(home)
    scheduler = rng.choice(["local_basic", "slurm", "slurm"])
    (home / ".pyhrf").mkdir()
    (home / ".pyhrf" / "config.cfg").write_text(
        "[parallel-cluster]\nserver = onenode\n"
        f"scheduler = {scheduler}\nmax_jobs = 2\nremote_python = {cluster.python}\n"
    )
    calls: list[Call] = [(i, "sleep", rng.random()) for i in range(rng.randrange(2, 8))]
    fault, may_lose = rng.choice(_FAULTS)
    client = trial.start(
        does="maps",
        fault=fault.__name__,
        maps=[{"mode": "remote_cluster", "tasks": calls, "options": {}}],
    )
    time.sleep(1 + rng.random() * 5)
    fault(cluster, trial)
    err = trial.wait(client)
    found = trial.found()
    if found is None:
        trial.wrong.append(f"the client failed: {err[-2000:]} ({trial.plan})")
    else:
        trial.judge(calls, found[0], may_lose=may_lose if scheduler == "slurm" else 0)
    for given in (".ssh", ".pyhrf"):
        (home / given).rename(trial.place / given)
    trial.judge_what_is_left()
    for what, look in (
        ("processes", cluster.processes), ("files", cluster.files), ("jobs", cluster.jobs),
    ):  # fmt: skip
        try:
            wait_for(lambda look=look: not look(), 20, what)  # type: ignore[misc]
        except TimeoutError:
            trial.left.append(f"{what} {look()} after {trial.plan}")
    wait_for(cluster.slurm.is_idle, 60, "an idle node")
