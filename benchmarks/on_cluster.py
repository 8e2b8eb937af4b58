"""What is measured on a cluster: a real sshd and Slurm on this machine, 2 slots, started for it.

The tools that have no SSH of their own run on the login node, as a user logged in there runs them. Of
those that need a job per task fewer tasks are measured, and the time per task is taken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from measuring import HERE, Contender, Row, against, duration, in_turns, timed
from work import add, nap

from pyhrf_parallel import remote_map
from pyhrf_parallel.configuration import load_configuration
from pyhrf_parallel.runs.remote import Cluster

sys.path.insert(0, str(HERE.parent))
from tests.cluster.one_node import OneNode, one_node, run, what_is_missing

_SLOTS = 2
_TASKS = 1_000
_FEW = 60  # tasks of the tools that need a job for each
_ARRAY_MB = 200


@contextmanager
def _cluster() -> Iterator[OneNode]:
    # Readable by the account that jobs run in, as a temporary directory of ours is not.
    base = Path(tempfile.mkdtemp(prefix="bench_cluster_", dir="/tmp"))
    with one_node(base) as cluster:
        run(
            sys.executable, "-m", "pip", "--python", cluster.python, "install", "--quiet", "submitit"
        )  # fmt: skip
        place = base / "benchmarks"
        place.mkdir(mode=0o755)
        for name in ("work.py", "login_node.py"):
            shutil.copy(HERE / name, place)
        (site_packages,) = (cluster.python.parents[1] / "lib").glob("python*/site-packages")
        (site_packages / "benchmarks.pth").write_text(f"{place}\n")
        cluster.make_client(Path.home())
        config = Path.home() / ".pyhrf" / "config.cfg"
        config.parent.mkdir()
        config.write_text(
            "[parallel-cluster]\nserver = onenode\nscheduler = slurm\n"
            f"max_jobs = {_SLOTS}\nremote_python = {cluster.python}\n"
        )
        try:
            yield cluster
        finally:
            shutil.rmtree(config.parent)
            shutil.rmtree(Path.home() / ".ssh")


def on_cluster() -> Iterator[Row]:
    """Compare with what runs on the cluster itself, and with what the work takes at least."""
    missing = what_is_missing()
    if missing:
        print(f"left out: {missing}", file=sys.stderr)
        return
    with _cluster() as cluster:
        connection = in_turns({"connection": timed(_connect)}, 5)["connection"]
        many = timed(_map, add, [(i,) for i in range(_TASKS)])
        yield from _many_tasks(cluster, connection, many)
        yield _half_seconds(connection)
        yield _one_task(cluster, connection)
        yield _bytes_that_cross()
        yield from _ten_thousand()


def _connect() -> None:
    Cluster(load_configuration()).close()


_map = partial(remote_map, mode="remote_cluster", progress=False)


def _login_node(cluster: OneNode, what: str, tasks: int) -> Contender:
    """Return a contender that is a process on the login node, which times itself."""
    command = [
        "ssh",
        "-F",
        Path.home() / ".ssh" / "config",
        "-i",
        Path.home() / ".ssh" / "id_ed25519",
    ]
    command += ["-o", f"UserKnownHostsFile={Path.home()}/.ssh/known_hosts", "onenode"]
    command += [f"{cluster.python} -m login_node {what} {tasks}"]

    def measure() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        return float(done.stdout.split()[-1])

    return measure


def _many_tasks(cluster: OneNode, connection: float, ours: Contender) -> Iterator[Row]:
    taken = in_turns(
        {
            "ours": ours,
            "soma": _login_node(cluster, "soma", _FEW),
            "single": _login_node(cluster, "submitit", _FEW),
            "chunked": _login_node(cluster, "submitit-chunked", _TASKS),
        },
        repetitions=3,
    )
    work = f"Slurm, {_TASKS:,} tasks `add(a, b=2)`"
    scale = _TASKS / _FEW
    others: Mapping[str, tuple[float, float]] = {
        "one soma-workflow job per task": (taken["soma"] * scale, 0.1),
        "submitit, array of single tasks": (taken["single"] * scale, 0.2),
    }
    for name, (seconds, target) in others.items():
        yield against("slurm-1000", work, taken["ours"], (name, seconds), target)
    yield against(
        "slurm-1000",
        f"{work}, beyond the connection ({duration(connection)})",
        taken["ours"] - connection,
        (f"submitit, array of {_SLOTS} chunks", taken["chunked"]),
        1.3,
    )


def _half_seconds(connection: float) -> Row:
    tasks, seconds = 100, 0.5
    taken = in_turns({"ours": timed(_map, nap, [(seconds,)] * tasks)}, repetitions=1)["ours"]
    ideal = tasks * seconds / _SLOTS + connection
    work = f"Slurm, {tasks} tasks of {seconds} s"
    return against(
        "slurm-naps", work, taken, (f"ideal on {_SLOTS} slots + connection", ideal), 1.15
    )


def _one_task(cluster: OneNode, connection: float) -> Row:
    taken = in_turns(
        {"ours": timed(_map, add, [(1,)]), "soma": _login_node(cluster, "soma-as-it-comes", 1)},
        repetitions=5,
    )
    other = ("soma-workflow as it comes on the login node + connection", taken["soma"] + connection)
    return against("slurm-one", "Slurm, connection + 1 task", taken["ours"], other, 1.3)


def _bytes_that_cross() -> Row:
    import numpy as np
    from work import mean

    array = np.random.default_rng(0).random(_ARRAY_MB * 125_000)
    before = _loopback_bytes()
    _map(mean, [(array, i) for i in range(100)])
    crossed = (_loopback_bytes() - before) / 1e6
    return Row(
        "slurm-array",
        f"Slurm, 100 tasks sharing a {_ARRAY_MB} MB array: sent over SSH",
        f"{crossed:.0f} MB",
        f"the array: {_ARRAY_MB} MB",
        crossed / _ARRAY_MB,
        1.1,
    )


def _loopback_bytes() -> int:
    """Return what has gone over the loopback interface: SSH, and the little that Slurm says."""
    rows = Path("/proc/net/dev").read_text().splitlines()
    (row,) = (row for row in rows if row.strip().startswith("lo:"))
    return int(row.split(":")[1].split()[0])


_CLIENT = """
import sys, time
from work import add
from pyhrf_parallel import remote_map
began = time.perf_counter()
results = remote_map(add, [(i,) for i in range(int(sys.argv[1]))], mode="remote_cluster", progress=False)
# Not getrusage's figure, which knows the memory of the process that forked this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - began, int(peak) / 1e3)
"""


def _ten_thousand() -> Iterator[Row]:
    seconds, memory = {}, {}
    for tasks in (_TASKS, 10 * _TASKS):
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT, str(tasks)], check=True, capture_output=True, cwd=HERE, text=True
        )  # fmt: skip
        seconds[tasks], memory[tasks] = map(float, done.stdout.split())
    most = 10 * _TASKS
    yield against(
        "slurm-10000",
        f"Slurm, {most:,} tasks: time per task",
        seconds[most] / most,
        (f"of {_TASKS:,} tasks", seconds[_TASKS] / _TASKS),
        1.0,
    )
    yield Row(
        "slurm-10000",
        f"Slurm, {most:,} tasks: memory of the client",
        f"{memory[most]:.0f} MB",
        f"with {_TASKS:,} tasks: {memory[_TASKS]:.0f} MB",
        memory[most],
        200,
        " MB",
    )
