"""Logins that do not work, and those that take long or are noisy."""

from __future__ import annotations

import json
import os
import pty
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyhrf_parallel import ClusterError, remote_map
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.runs.cluster import Cluster
from tests.cluster.one_node import OneNode
from tests.conftest import ROOT
from tests.contract import cases

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True),
    pytest.mark.usefixtures("configured"),
]


def on_cluster() -> list[float]:
    return remote_map(cases.add, [(1,), (2,)], mode="remote_cluster")


class TestAKeyWithAPassphrase:
    @pytest.fixture
    def key(self, client_home: Path) -> Path:
        path = client_home / ".ssh" / "id_ed25519"
        argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(path)]
        subprocess.run(argv, check=True)
        return path

    def test_nobody_can_be_asked(self, key: Path) -> None:
        with pytest.raises(ClusterError) as told:
            on_cluster()
        assert f"ssh-add {shlex.quote(str(key))}" in str(told.value)
        assert "ssh-copy-id" not in str(told.value)

    def test_beside_one_that_is_refused(self, key: Path, client_home: Path) -> None:
        other = client_home / ".ssh" / "id_ecdsa"
        argv = ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(other)]
        subprocess.run(argv, check=True)
        with pytest.raises(ClusterError, match=r"ssh-add .*id_ed25519"):
            on_cluster()

    def test_an_agent_has_it(
        self, key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with agent(monkeypatch):
            ask = tmp_path / "ask"
            ask.write_text("#!/bin/sh\necho secret\n")
            ask.chmod(0o755)
            environment = os.environ | {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", key], env=environment, check=True)
            assert on_cluster() == [3, 4]

    def test_on_a_terminal_it_is_asked_for(self, key: Path) -> None:
        code = (
            "from pyhrf_parallel import remote_map; from tests.contract import cases; "
            "print(remote_map(cases.add, [(1,), (2,)], mode='remote_cluster'))"
        )
        terminal, inside = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=inside, stdout=inside, stderr=inside, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        shown, answered = b"", False
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
                if b"Passphrase of" in shown and not answered:
                    answered = True
                    os.write(terminal, b"secret\n")
        except OSError:  # its end
            pass
        assert process.wait() == 0
        os.close(terminal)
        assert b"[3, 4]" in shown


@contextmanager
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    words = dict(w.split("=", 1) for w in started.replace(";", " ").split() if "=" in w)
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    try:
        yield
    finally:
        subprocess.run(["ssh-agent", "-k"], capture_output=True, check=True)


def test_a_host_that_closes_before_its_banner(client_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        code = (
            "from pyhrf_parallel import remote_map\n"
            "try: remote_map(abs, [(1,)], mode='remote_cluster', "
            f"config={{'parallel-cluster': {{'server': '127.0.0.1', 'port': {port}}}}})\n"
            "except Exception as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "closes the connection before it says that it is an SSH server" in done.stdout


class TestStartupFiles:
    @contextmanager
    def bashrc(self, cluster: OneNode, line: str) -> Iterator[None]:
        startup = cluster.home / ".bashrc"
        text = startup.read_text()
        startup.write_text(f"{line}\n{text}")
        try:
            yield
        finally:
            startup.write_text(text)

    def test_a_map_logs_in_once(self, cluster: OneNode, tmp_path: Path) -> None:
        with self.bashrc(cluster, f"echo . >> '{tmp_path}/logins'"):
            assert on_cluster() == [3, 4]
        assert (tmp_path / "logins").read_text() == ".\n"

    def test_slow_ones(self, cluster: OneNode, capsys: pytest.CaptureFixture[str]) -> None:
        with self.bashrc(cluster, "sleep 3"):
            assert main(["doctor", "--no-job", "--json"]) == 0
        checks = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
        assert checks["login"]["outcome"] == "warn"
        assert "a command takes" in checks["login"]["found"]

    @pytest.mark.parametrize(
        "noise", ["echo welcome", "echo -n welcome", "echo '{}'; echo welcome"]
    )
    def test_noisy_ones(
        self, noise: str, cluster: OneNode, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with self.bashrc(cluster, noise):
            assert on_cluster() == [3, 4]
            assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["ok"]
        outcomes = {check["check"]: check["outcome"] for check in found["checks"]}
        assert {name for name, outcome in outcomes.items() if outcome == "warn"} == {"login"}


class TestConversations:
    def test_one_that_has_ended_is_begun_again(
        self, cluster: OneNode, client_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Configuration(server="onenode", remote_python=str(cluster.python))
        with Cluster(settings) as there:
            first = there.ask("describe", "local_basic")
            for pid in cluster.processes():
                os.kill(pid, 9)
            while cluster.processes():
                time.sleep(0.02)
            monkeypatch.setattr("pyhrf_parallel.runs.conversation._FRESH", 0)
            assert there.ask("describe", "local_basic") == first
            with pytest.raises(ClusterError, match="says: KeyError: 'nonsense'"):
                there.ask("nonsense")
            with pytest.raises(ClusterError, match="says: FileNotFoundError"):
                there.ask("checksum", "/none")
            assert there.ask("describe", "local_basic") == first

    def test_an_interpreter_that_is_none(self, cluster: OneNode) -> None:
        settings = Configuration(server="onenode", remote_python="/bin/false")
        with Cluster(settings) as there:
            for _ in range(2):
                with pytest.raises(ClusterError, match="ended with status 1"):
                    there.ask("describe", "local_basic")
