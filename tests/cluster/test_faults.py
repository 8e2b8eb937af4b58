"""What goes wrong on a cluster: each time the run completes, or says what is lost, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyhrf_parallel import (
    ClusterError,
    ConfigurationError,
    MapRun,
    RemoteException,
    RunNotFoundError,
    TaskLostError,
    remote_map,
    submit_map,
)
from pyhrf_parallel.tasks import Resources
from tests.cluster.one_node import OneNode, wait_for
from tests.conftest import ROOT
from tests.contract import cases

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.cluster]
FULL = "No space left on device|disk is full"
slurm_only = pytest.mark.parametrize("scheduler", ["slurm"], indirect=True)
once = pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True)


def on_cluster(func: Any, largs: list[tuple[Any, ...]], **options: Any) -> list[Any]:
    return remote_map(func, largs, mode="remote_cluster", **options)


def running(run: MapRun) -> bool:
    return any(job.status == "running" for job in run.status().jobs)


class TestRuns:
    def test_a_run_is_collected_by_another_process(self) -> None:
        with submit_map(cases.fail_at, [(i, 2) for i in range(5)], on_error="return") as run:
            run_id = run.run_id
            assert run.manifest.function == "tests.contract.cases.fail_at"
        with MapRun.load(run_id) as again:
            results = again.result(60)
            assert results[:2] + results[3:] == [0, 1, 3, 4]
            assert results[2].call == "fail_at(2, 2)"
            status = again.status()
            assert (status.phase, status.returned, status.failed) == ("done", 4, 1)
            assert again.result()[0] == 0  # nothing is used up
            again.clean()
        with pytest.raises(RunNotFoundError, match=run_id):
            MapRun.load(run_id)

    def test_wait_with_a_timeout_and_cancel(self, cluster: OneNode) -> None:
        with submit_map(cases.sleep_at, [(0, 0, 100), (1, 0)]) as run:
            with pytest.raises(TimeoutError, match=r"goes on: after 2 s, . of 2 tasks had ended"):
                run.result(2)
            wait_for(lambda: running(run), 30, "a running job")
            assert not run.done()
            assert run.cancel()
            assert (run.done(), run.cancelled()) == (True, True)
            wait_for(lambda: cluster.jobs() == [], 20, "the end of all jobs")
            with pytest.raises(CancelledError, match=r"was cancelled when . of 2 tasks had ended"):
                run.result(20)
            run.clean()

    @once
    def test_a_killed_client(self, client_home: Path) -> None:
        script = (
            "import sys; from pyhrf_parallel import remote_map; from tests.contract import cases\n"
            "remote_map(cases.sleep_at, [(i, 2, 4) for i in range(6)], mode='remote_cluster')\n"
        )
        client = subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        runs = client_home / ".local" / "state" / "pyhrf_parallel" / "runs"
        wait_for(lambda: bool(list(runs.glob("*/manifest.json"))), 40, "a manifest")
        client.kill()
        client.wait()
        (manifest,) = runs.glob("*/manifest.json")
        assert manifest.parent.stat().st_mode & 0o077 == 0
        with MapRun.load(json.loads(manifest.read_text())["run_id"]) as run:
            assert run.result() == [*range(6)]
            run.clean()
        for left in (client_home / "tmp").iterdir():  # a killed process cannot clean up here
            left.rmdir()


class TestConnection:
    @once
    def test_it_is_lost_in_the_middle(self, cluster: OneNode) -> None:
        with submit_map(cases.sleep_at, [(i, 1, 3) for i in range(4)]) as run:
            with pytest.raises(TimeoutError):
                run.result(0.5)
            listener = int((cluster.base / "sshd.pid").read_text())
            for session in psutil.Process(listener).children():
                session.kill()
            assert run.result() == [*range(4)]
            run.clean()

    @once
    def test_it_is_lost_while_the_payload_is_sent(self, cluster: OneNode) -> None:
        def cut() -> None:
            parts = "pyhrf_parallel_runs/*/payload.part"
            wait_for(lambda: any(cluster.home.glob(parts)), 60, "a part of the payload")
            listener = int((cluster.base / "sshd.pid").read_text())
            for session in psutil.Process(listener).children():
                session.kill()

        thread = threading.Thread(target=cut)
        thread.start()
        block = os.urandom(100 << 20)
        assert on_cluster(len, [(block,), (block[:5],)]) == [len(block), 5]
        thread.join()

    @once
    def test_an_unknown_host_key(self, client_home: Path) -> None:
        (client_home / ".ssh" / "known_hosts").write_text("")
        with pytest.raises(ClusterError, match="is unknown; log in once"):
            on_cluster(cases.add, [(1,)])

    @once
    def test_a_changed_host_key(self, client_home: Path, cluster: OneNode) -> None:
        other = " ".join((client_home / ".ssh" / "id_ed25519.pub").read_text().split()[:2])
        known = client_home / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{cluster.ssh_port} {other}\n")
        with pytest.raises(ClusterError, match=r"HAS CHANGED.*ssh-keygen -R"):
            on_cluster(cases.add, [(1,)])

    @once
    def test_a_refused_key(self, client_home: Path) -> None:
        for path in (client_home / ".ssh").glob("id_ed25519*"):
            path.unlink()
        with pytest.raises(ClusterError, match=r"does not accept your key.*ssh-copy-id"):
            on_cluster(cases.add, [(1,)])

    @once
    def test_nobody_there(self, client_home: Path) -> None:
        config = client_home / ".ssh" / "config"
        config.write_text(config.read_text().replace("Port ", "Port 1\n  # "))
        with pytest.raises(ClusterError, match="cannot be reached"):
            on_cluster(cases.add, [(1,)])

    @once
    def test_a_jump_host(self, client_home: Path, cluster: OneNode) -> None:
        config = client_home / ".ssh" / "config"
        config.write_text(
            config.read_text().replace("Host onenode", "Host gate")
            + f"Host onenode\n  HostName 127.0.0.1\n  Port {cluster.ssh_port}\n"
            f"  User {cluster.user}\n  ProxyJump gate\n"
        )
        assert on_cluster(cases.add, [(1,), (2,)]) == [3, 4]


class TestTheOtherSide:
    @once
    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"remote_python": "/nowhere/python"}, "no interpreter /nowhere/python.*setup-cluster"),
            ({"remote_python": "/usr/bin/python3"}, "does not have pyhrf_parallel.*setup-cluster"),
            ({"remote_path": "/proc/nowhere"}, "onenode|says: .*Error"),
            ({"scheduler": "slurm", "queue": "long"}, "no queue 'long', only main"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_runs(
        self, cluster: OneNode, settings: dict[str, str], match: str
    ) -> None:
        given = {"server": "onenode", "remote_python": str(cluster.python)} | settings
        with pytest.raises(ClusterError, match=match):
            on_cluster(cases.add, [(1,)], config={"parallel-cluster": given})

    @pytest.fixture
    def small_disk(self, cluster: OneNode) -> Iterator[tuple[Path, dict[str, dict[str, str]]]]:
        disk = cluster.base / "small disk"
        disk.mkdir()
        options = "size=3m,mode=1777"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
        settings = {
            "server": "onenode",
            "remote_python": str(cluster.python),
            "remote_path": str(disk),
            "scheduler": "local_basic",
        }
        yield disk, {"parallel-cluster": settings}
        try:
            assert list(disk.iterdir()) == []
            wait_for(lambda: not cluster.processes(), 15, "the end of what runs there")
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)
            disk.rmdir()

    @once
    def test_a_disk_too_small(self, small_disk: tuple[Path, Any]) -> None:
        with pytest.raises(ClusterError, match=r"3 MB free.*payload is 6 MB"):
            on_cluster(len, [(bytes(6_000_000),)], config=small_disk[1])

    @once
    def test_a_disk_that_fills_up(self, small_disk: tuple[Path, Any]) -> None:
        calls = [(500_000,)] * 12
        with pytest.raises((ClusterError, RemoteException), match=FULL):
            on_cluster(os.urandom, calls, config=small_disk[1], n_jobs=1)

    @once
    def test_a_disk_that_others_fill(self, small_disk: tuple[Path, Any]) -> None:
        disk, config = small_disk
        place = str(disk / "others")

        def fill(i: int) -> int:
            """Take what room there is, also what is given back meanwhile."""
            deadline = time.monotonic() + 1 + i
            with Path(place).open("ab", buffering=0) as file:
                while time.monotonic() < deadline:
                    try:
                        file.write(bytes(1 << 10))
                    except OSError:
                        time.sleep(0.001)
            return i

        try:
            with pytest.raises((ClusterError, RemoteException), match=FULL):
                on_cluster(fill, [(i,) for i in range(4)], config=config, n_jobs=2)
        finally:
            Path(place).unlink()

    @once
    def test_unknown_resources(self) -> None:
        with pytest.raises(ConfigurationError, match="'memory'; accepted: mem, time, cpus, queue"):
            on_cluster(cases.add, [(1,)], resources={"memory": "4G"})

    @once
    def test_a_module_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody can know before: it is imported within a function of a module."""
        (tmp_path / "only_here.py").write_text("def f():\n    import hypothesis\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        import only_here  # type: ignore[import-not-found]

        with pytest.raises(Exception, match="No module named 'hypothesis'") as caught:
            on_cluster(only_here.f, [()])
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        assert "pyhrf-parallel setup-cluster onenode --with hypothesis" in str(caught.value)

    def test_the_engine_is_killed(self, cluster: OneNode) -> None:
        with submit_map(cases.sleep_at, [(i, 1, 6) for i in range(4)]) as run:
            wait_for(lambda: running(run), 40, "a running job")
            state = run._connected().state()
            assert state is not None
            os.kill(state.pid, signal.SIGKILL)
            wait_for(run._connected().revive, 10, "the engine is dead, and started again")
            assert run.result() == [*range(4)]
            run.clean()

    @once
    def test_nothing_listens_on_the_network(self) -> None:
        def listening() -> set[str]:
            lines = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True)
            return {line.split()[3] for line in lines.stdout.splitlines()}

        before = listening()
        with submit_map(cases.sleep_at, [(0, 0, 3)]) as run:
            wait_for(lambda: running(run), 30, "a running job")
            assert listening() - before == set()
            assert run.result() == [0]
            run.clean()


@slurm_only
class TestSlurm:
    def test_scancel(self, cluster: OneNode) -> None:
        with submit_map(
            cases.sleep_at, [(i, 1, 100) for i in range(4)], n_jobs=1, on_error="return"
        ) as run:
            wait_for(lambda: run.status().returned == 1, 40, "the first result")
            (job,) = cluster.jobs()
            cluster.command("scancel", job)
            results = run.result()
            lost = results.pop(1)
            assert results == [0, 2, 3]
            assert isinstance(lost, TaskLostError)
            assert f"its job {job} ended: it was cancelled (scancel)" in str(lost)
            run.clean()

    def test_the_time_limit(self, cluster: OneNode, client_home: Path) -> None:
        config = client_home / ".pyhrf" / "config.cfg"
        config.write_text(config.read_text() + "time = 00:00:01\n")
        with submit_map(cases.sleep_at, [(0, 0, 300)], on_error="return") as run:
            wait_for(lambda: running(run), 40, "a running job")
            (job,) = cluster.jobs()
            assert "TimeLimit=00:01:00" in cluster.command("scontrol", "show", "job", job)
            # Limits are whole minutes: let this one have begun earlier.
            now = time.strftime("EndTime=%Y-%m-%dT%H:%M:%S")
            cluster.command("scontrol", "update", f"jobid={job}", now)
            assert run.result()[0].args[0].endswith("it reached its time limit on node1")
            run.clean()

    def test_more_memory_than_was_asked_for(self) -> None:
        def use(megabytes: int) -> int:
            block = b"x" * (megabytes << 20)
            time.sleep(4 if megabytes > 100 else 0)  # Slurm looks every second
            return len(block) >> 20

        with submit_map(
            use, [(1,), (500,), (2,)], n_jobs=1, resources={"mem": "150M"}, on_error="return"
        ) as run:
            results = run.result()
            lost = results.pop(1)
            assert results == [1, 2]
            assert isinstance(lost, TaskLostError)
            assert "it used more memory than it had asked for" in str(lost), lost.log_tail
            run.clean()

    def test_a_drained_node(self, cluster: OneNode) -> None:
        cluster.command("scontrol", "update", "nodename=node1", "state=drain", "reason=test")
        try:
            run = submit_map(cases.add, [(1,), (2,)])
            with pytest.raises(TimeoutError):
                run.result(4)
        finally:
            cluster.command("scontrol", "update", "nodename=node1", "state=resume")
        assert run.result() == [3, 4]
        run.clean()
        run.close()

    def test_slurmctld_restarts(self, cluster: OneNode) -> None:
        with submit_map(cases.sleep_at, [(i, 1, 4) for i in range(4)]) as run:
            wait_for(lambda: running(run), 40, "a running job")
            cluster.slurm.stop_controller()
            time.sleep(3)
            cluster.slurm.start_controller()
            assert run.result() == [*range(4)]
            run.clean()

    def test_resources_reach_the_scheduler(self, cluster: OneNode) -> None:
        resources: Resources = {"mem": "100M", "time": "00:03:00", "cpus": 2, "queue": "main"}
        with submit_map(time.sleep, [(3,)], resources=resources) as run:
            wait_for(lambda: bool(cluster.jobs()), 30, "a job")
            shown = cluster.command("scontrol", "show", "job", cluster.jobs()[0])
            for part in (
                "MinMemoryNode=100M",
                "TimeLimit=00:03:00",
                "CPUs/Task=2",
                "Partition=main",
            ):
                assert part in shown
            assert run.result() == [None]
            run.clean()

    def test_threads_follow_the_cpus(self) -> None:
        assert on_cluster(cases.threads, [()], resources={"cpus": 2}) == ["2"]

    def test_many_tasks_take_few_jobs(self, cluster: OneNode) -> None:
        n = 10_000
        with submit_map(abs, [(-i,) for i in range(n)]) as run:
            assert run.result() == [*range(n)]
            assert len(run.status().jobs) == 2
            run.clean()

    def test_two_runs_at_once(self) -> None:
        runs = [submit_map(cases.add, [(i,) for i in range(k, k + 5)]) for k in (0, 10)]
        assert [run.result() for run in runs] == [[2, 3, 4, 5, 6], [12, 13, 14, 15, 16]]
        for run in runs:
            run.clean()
            run.close()


@pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True)
def test_a_directory_that_others_may_write_to(cluster: OneNode) -> None:
    place = cluster.base / "shared by all"
    (place / "pyhrf_parallel_runs").mkdir(parents=True)
    (place / "pyhrf_parallel_runs").chmod(0o777)
    given = {"server": "onenode", "remote_python": str(cluster.python), "remote_path": str(place)}
    with pytest.raises(ClusterError, match="others than this account may write"):
        on_cluster(cases.add, [(1,)], config={"parallel-cluster": given})


@once
def test_a_run_whose_directory_others_could_replace(cluster: OneNode) -> None:
    with submit_map(cases.add, [(1,)]) as run:
        assert run.result() == [3]
        (root,) = cluster.home.glob("pyhrf_parallel_runs")
        root.chmod(0o777)
        with MapRun.load(run.run_id) as again:  # nobody else gets there
            assert again.result() == [3]
        cluster.home.chmod(0o755)
        with MapRun.load(run.run_id) as again, pytest.raises(ConfigurationError, match=str(root)):
            again.result()
        cluster.home.chmod(0o700)
        root.chmod(0o700)
        owner = root.stat().st_uid
        (directory,) = root.iterdir()
        os.chown(directory, 65534, -1)
        with (
            MapRun.load(run.run_id) as again,
            pytest.raises(ConfigurationError, match="another user"),
        ):
            again.result()
        os.chown(directory, owner, -1)
        run.clean()


#: Lets the records of a job be seen only seconds after its end, as on a slow file system.
HIDE_RECORDS = """
import sys, time
from pathlib import Path
runs = Path(sys.argv[1])
while not (found := list(runs.glob("*/*-job*.records.part"))):
    time.sleep(0.01)
(part,) = found
hidden, kept, empty = (part.with_suffix(suffix) for suffix in (".hidden", ".kept", ".empty"))
kept.hardlink_to(part)
empty.touch()
empty.replace(part)
kept.rename(hidden)  # the task ends then, and no sooner
while not part.with_suffix("").exists():
    time.sleep(0.01)
time.sleep(4)
hidden.rename(part.with_suffix(""))
"""


@once
def test_results_that_are_late_are_waited_for(cluster: OneNode) -> None:
    runs = cluster.home / "pyhrf_parallel_runs"

    def wait_until_hidden(_: int) -> int:
        from pathlib import Path

        while not list(Path("~/pyhrf_parallel_runs").expanduser().glob("*/*.hidden")):
            time.sleep(0.01)
        return os.getpid()

    with subprocess.Popen([sys.executable, "-c", HIDE_RECORDS, runs]) as helper:
        try:
            with submit_map(wait_until_hidden, [(1,)], n_jobs=1) as run:
                (pid,) = run.result()
                assert isinstance(pid, int)
                assert len(run.status().jobs) == 1  # it was not run again
                run.clean()
        finally:
            helper.kill()


@once
def test_a_hostile_remote_path(cluster: OneNode) -> None:
    settings = {
        "server": "onenode",
        "remote_python": str(cluster.python),
        "remote_path": '~/a dir\'s "q" $HOME `x`; é\nnew line',
        "scheduler": "slurm",
    }
    for scheduler in ("slurm", "local_basic"):
        config = {"parallel-cluster": settings | {"scheduler": scheduler}}
        assert on_cluster(cases.add, [(1,), (2,)], config=config) == [3, 4]
    # the directory that was asked for stays; only what is in it goes
    (left,) = cluster.home.glob("a dir*")
    assert list(left.iterdir()) == []
    left.rmdir()


@once
def test_the_end_of_a_map_never_waits_for_an_engine_that_has_nothing_to_say() -> None:
    lasted = []
    for _ in range(6):  # it did in every other run, for ten seconds
        began = time.monotonic()
        assert remote_map(cases.add, [(1,)], mode="remote_cluster") == [3]
        lasted.append(time.monotonic() - began)
    assert max(lasted) < min(lasted) + 8


@slurm_only
def test_a_dry_run_sends_nothing(client_home: Path, cluster: OneNode) -> None:
    (client_home / ".ssh" / "known_hosts").write_text("")  # it does not even connect
    preview = submit_map(
        abs, [(i,) for i in range(50)], resources={"mem": "4G", "queue": "main"}, dry_run=True
    )
    assert (preview.jobs, preview.job_options) == (2, ["--partition=main", "--mem=4G"])
    assert set(preview.files) == {"payload", "plan.json"}
    text = str(preview)
    for part in (
        f"On {cluster.user}@127.0.0.1:{cluster.ssh_port}, in ~/pyhrf_parallel_runs/",
        f"send payload, {preview.files['payload']:,} bytes",
        f"run {cluster.python} -P -m pyhrf_parallel.engine.agent prepare",
        "submit 2 job(s) to slurm, each with --partition=main --mem=4G:",
    ):
        assert part in text
