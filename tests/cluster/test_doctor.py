"""`pyhrf-parallel doctor`, against a real cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyhrf_parallel.runs.ssh import SSHConnection
from tests.cluster.conftest import Command, Printed
from tests.cluster.one_node import SYSTEM_PYTHON, OneNode

pytestmark = pytest.mark.cluster


class TestDoctor:
    def outcomes(self, printed: Printed) -> dict[str, str]:
        return {check["check"]: check["outcome"] for check in printed.json()["checks"]}

    def broken(self, command: Command, check: str, told: str) -> dict[str, str]:
        """Run it; this check has to be the only one that fails."""
        printed = command("doctor", "--json", "--no-job")
        outcomes = self.outcomes(printed)
        assert [name for name, outcome in outcomes.items() if outcome == "FAIL"] == [check]
        assert told in printed.out
        assert printed.status == 1
        assert printed.json()["ok"] is False
        return outcomes

    def test_all_is_well(self, config: Callable[..., None], command: Command) -> None:
        config()
        printed = command("doctor", "--no-job")
        assert printed.status == 0
        assert "not wanted" in printed.out

    def test_unknown_host_key(
        self, config: Callable[..., None], client_home: Path, command: Command
    ) -> None:
        config()
        (client_home / ".ssh" / "known_hosts").unlink()
        outcomes = self.broken(command, "host key", "is unknown")
        assert outcomes["network"] == "ok"
        assert outcomes["login"] == "skip"

    @pytest.mark.parametrize(
        ("changes", "check", "told"),
        [
            ({"serverr": "x"}, "configuration", "unknown key"),
            ({"port": 1}, "network", "Connection refused"),
            ({"user": "nobody"}, "login", "does not accept your key"),
            ({"remote_path": "/root/x"}, "remote_path", "nothing can be made in /root"),
            ({"remote_python": "/none/python"}, "remote_python", "setup-cluster onenode"),
            ({"queue": "nix", "scheduler": "slurm"}, "scheduler", "no queue 'nix', only main"),
        ],
    )
    def test_wrong_settings(
        self,
        changes: dict[str, object],
        check: str,
        told: str,
        config: Callable[..., None],
        command: Command,
    ) -> None:
        config(**changes)
        self.broken(command, check, told)

    def test_other_python(
        self, cluster: OneNode, other_places: Path, config: Callable[..., None], command: Command
    ) -> None:
        python = other_places / "something" / "python"
        python.parent.mkdir(mode=0o755)
        python.write_text('#!/bin/sh\necho \'{"version": [3, 9, 2], "venv": true, "own": true}\'\n')
        python.chmod(0o755)
        config(remote_python=python)
        self.broken(command, "remote_python", "Python 3.9.2, and here runs 3.")

    def test_without_the_package(
        self, cluster: OneNode, other_places: Path, config: Callable[..., None], command: Command
    ) -> None:
        bare = other_places / "bare"
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", bare], check=True)
        cluster.own(bare)
        config(remote_python="~/bare/bin/python")
        self.broken(command, "packages", "pyhrf_parallel is missing there")

    def test_slurm_not_on_the_path(
        self, cluster: OneNode, other_places: Path, config: Callable[..., None], command: Command
    ) -> None:
        startup = cluster.home / ".bashrc"
        text = startup.read_text()
        config(scheduler="slurm")
        try:
            programs = other_places / "something"
            programs.mkdir(mode=0o755)
            for name in ("uname", "df"):
                (programs / name).symlink_to(shutil.which(name) or "")
            startup.write_text(f"{text}PATH=~/something\n")
            self.broken(command, "scheduler", "sbatch is not found")
        finally:
            startup.write_text(text)

    def test_no_sftp(
        self,
        config: Callable[..., None],
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def sftp(self: SSHConnection) -> None:
            self.close()  # as nobody else would
            raise EOFError  # what paramiko says when the subsystem ends at once

        config()
        monkeypatch.setattr(SSHConnection, "sftp", property(sftp))
        self.broken(command, "files", "sftp onenode")

    def test_job_that_is_refused(self, config: Callable[..., None], command: Command) -> None:
        config(scheduler="slurm", mem="900T")
        printed = command("doctor")
        assert printed.status == 1
        assert "-> see mem, time" in printed.out

    def test_job_that_does_not_start(
        self, cluster: OneNode, config: Callable[..., None], command: Command
    ) -> None:
        config(scheduler="slurm", native_specification="--hold")
        printed = command("doctor", "--patience", "1")
        assert printed.status == 1
        assert "not over after 1 s; jobs: " in printed.out
        assert cluster.jobs() == []
        assert cluster.files() == []
