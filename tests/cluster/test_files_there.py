"""Files of the cluster: read in pieces, whatever their size, and what is said if that is impossible."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pyhrf_parallel import TransferError, submit_map
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.runs import ssh
from pyhrf_parallel.runs.cluster import Cluster
from pyhrf_parallel.runs.sftp import SFTPFiles
from tests.cluster.one_node import OneNode, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def there(client_home: Path) -> Iterator[Cluster]:
    with Cluster(Configuration(server="onenode")) as connected:
        yield connected


def read(cluster: Cluster, path: Path, position: int = 0) -> bytes:
    return b"".join(SFTPFiles(cluster).pieces(str(path), position))


class TestReading:
    @pytest.mark.parametrize("size", [0, 1, 32_768, 4_194_303, 4_194_305, 20_000_000])
    def test_what_is_there_arrives(self, size: int, there: Cluster, tmp_path: Path) -> None:
        content = os.urandom(size)
        (tmp_path / "x").write_bytes(content)
        assert read(there, tmp_path / "x") == content
        assert read(there, tmp_path / "x", size // 3) == content[size // 3 :]
        assert read(there, tmp_path / "x", size + 5) == b""

    def test_time_is_in_proportion_to_the_size(self, there: Cluster, tmp_path: Path) -> None:
        """In one piece, 80 MB took 17 s, and 160 MB four times as long."""
        with (tmp_path / "x").open("wb") as file:
            file.truncate(200_000_000)
        began = time.monotonic()
        tracemalloc.start()
        sizes = [len(piece) for piece in SFTPFiles(there).pieces(str(tmp_path / "x"))]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(sizes) == 200_000_000
        assert time.monotonic() - began < 60
        assert peak < 40_000_000

    def test_the_connection_is_lost_in_the_middle(
        self, there: Cluster, cluster: OneNode, tmp_path: Path
    ) -> None:
        content = os.urandom(10_000_000)
        (tmp_path / "x").write_bytes(content)
        pieces = SFTPFiles(there).pieces(str(tmp_path / "x"))
        got = [next(pieces)]
        send(signal.SIGKILL, sessions(cluster))
        assert b"".join(got + list(pieces)) == content

    def test_a_server_that_does_not_answer_any_more(
        self, client_home: Path, cluster: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a laptop's sleep, when nobody says that the connection is gone."""
        monkeypatch.setattr(ssh, "_TIMEOUT", 2)
        (tmp_path / "x").write_bytes(b"here")
        with Cluster(Configuration(server="onenode")) as connected:
            assert read(connected, tmp_path / "x") == b"here"
            stopped = sessions(cluster)
            send(signal.SIGSTOP, stopped)
            try:
                assert read(connected, tmp_path / "x") == b"here"
            finally:
                send(signal.SIGKILL, stopped)

    def test_a_bar_for_a_large_file(
        self, there: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with (tmp_path / "x").open("wb") as file:
            file.truncate(60_000_000)
        for progress, shown in ((True, True), (False, False), (None, False)):
            SFTPFiles(there).get(str(tmp_path / "x"), tmp_path / f"{progress}", progress)
            assert ("60.0M/60.0M" in capsys.readouterr().err) == shown


def sessions(cluster: OneNode) -> list[psutil.Process]:
    """Return the processes that serve the account's connections."""
    processes = psutil.process_iter(["name", "username"])
    found = [process for process in processes if process.info["username"] == cluster.user]
    found = [process for process in found if process.info["name"].startswith("sshd")]
    assert found
    return found


def send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended with another of them
            process.send_signal(number)


@pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True)
@pytest.mark.usefixtures("configured")
class TestRuns:
    def test_a_large_result_and_how_it_arrives(self, capsys: pytest.CaptureFixture[str]) -> None:
        with submit_map(bytes, [(60_000_000,)]) as run:
            # What is read while it is written comes in small pieces, which nobody has to wait for.
            wait_for(lambda: run.status().phase == "done", 60, "the end of the run")
            assert run.result(progress=True) == [bytes(60_000_000)]
            told = capsys.readouterr().err
            run.clean()
        assert re.search(r"received \d+ of 60 MB", told)
        assert "1/1" in told

    def test_what_was_here_already_counts(self) -> None:
        with submit_map(abs, [(-1,), (-2,)]) as run:
            assert run.result() == [1, 2]
            seen: list[tuple[int, int]] = []
            assert run.result(progress=lambda *done: seen.append(done)) == [1, 2]
            assert seen == [(2, 2)]
            run.clean()

    def test_the_end_of_a_log(
        self, there: Cluster, cluster: OneNode, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def chatter(lines: int) -> None:
            for number in range(lines):
                print(f"line {number} of many, many lines that a task may write")

        with submit_map(chatter, [(300_000,)], n_jobs=1) as run:
            run.result()
            began = time.monotonic()
            logs = run.logs(3)
            assert time.monotonic() - began < 5
            (name,) = logs
            assert name.startswith("0-job-0-")
            assert [line.split()[1] for line in logs[name].splitlines()] == [
                "299997", "299998", "299999",
            ]  # fmt: skip
            assert len(run.logs(None)[name].splitlines()) == 300_000
            assert main(["logs", run.run_id]) == 0
            printed = capsys.readouterr().out.splitlines()
            assert printed[0] == f"--- {name} (the last 50 lines) ---"
            assert len(printed) == 51
            assert main(["logs", run.run_id, "-n", "2", "--job", name]) == 0
            assert len(capsys.readouterr().out.splitlines()) == 2
            assert main(["logs", run.run_id, "--all"]) == 0
            assert len(capsys.readouterr().out.splitlines()) == 300_001
            run.clean()


@pytest.fixture
def full_disk(cluster: OneNode) -> Iterator[Path]:
    """A file system on which no file can be made: it has space, and no inode."""
    disk = cluster.base / "no inodes"
    disk.mkdir()
    options = "size=3m,nr_inodes=2,mode=1777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    (disk / "x").write_bytes(b"x")
    yield disk
    subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def test_what_a_server_calls_failure(there: Cluster, full_disk: Path, tmp_path: Path) -> None:
    files = SFTPFiles(there)
    (tmp_path / "x").write_bytes(bytes(2_000_000))
    target = f"{full_disk}/y"
    actions: list[Callable[[], None]] = [
        lambda: files.put(tmp_path / "x", target),
        lambda: files.write(target, b"x"),
    ]
    for action in actions:
        with pytest.raises(TransferError) as told:
            action()
        assert str(there.address) in str(told.value)
        assert f"df -h '{full_disk}'; df -i '{full_disk}'; quota -s" in str(told.value)
        assert (told.value.path, told.value.reason) == (target, "Failure")
    with pytest.raises(TransferError, match=r"nothing can be read of .*shadow: .*denied"):
        b"".join(files.pieces("/etc/shadow"))
