"""`pyhrf-parallel setup-cluster`, against a real cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyhrf_parallel.version import __version__
from tests.cluster.conftest import Command
from tests.cluster.one_node import SYSTEM_PYTHON, OneNode

pytestmark = pytest.mark.cluster
OTHER = "~/other venv/bin/python"


class TestSetup:
    def test_from_nothing_and_again(
        self, cluster: OneNode, client_home: Path, other_places: Path, command: Command
    ) -> None:
        path = client_home / ".pyhrf" / "config.cfg"
        path.parent.mkdir()
        old = "# mine\n[other]\npath = %(x)s\n[parallel-cluster]\nserver = None\n; queue\n\n[z]\na=1\n"
        path.write_text(old)
        setup = ("setup-cluster", "onenode", "--remote-python", OTHER)

        dry = command(*setup, "--dry-run")
        assert dry.status == 0
        assert "-m venv --without-pip ~/'other venv'" in dry.out
        assert "+server = onenode" in dry.out
        refused = command(*setup)
        assert refused.status == 2
        assert "--yes" in refused.err
        assert cluster.files() == []
        assert path.read_text() == old
        assert [p.name for p in path.parent.iterdir()] == ["config.cfg"]

        done = command(*setup, "--yes")
        assert (done.status, done.err) == (0, "")
        new = old.replace("server = None\n; queue\n", f"server = onenode\n; queue\nremote_python = {OTHER}\nscheduler = slurm\n")  # fmt: skip
        assert path.read_text() == new
        assert (path.parent / "config.cfg.bak").read_text() == old
        assert {p for p in cluster.files() if p.count("/") == str(cluster.home).count("/") + 1} == {
            str(cluster.home / "other venv")
        }

        for again in (setup, ("setup-cluster", "onenode")):
            printed = command(*again, "--json")
            assert printed.status == 0
            assert printed.json()["changed"] is False
            assert printed.json()["environment"]["pyhrf_parallel"] == __version__
        assert path.read_text() == new

        printed = command("doctor")
        assert printed.status == 0, printed.out
        assert {line[:4].strip() for line in printed.out.splitlines()} == {"ok"}
        assert "2 tasks ran on" in printed.out

        # Of the same version, and not what runs here.
        (changed,) = (cluster.home / "other venv").rglob("site-packages/pyhrf_parallel/tasks.py")
        right = changed.read_text()
        changed.write_text(f"{right}\n# older\n")
        assert command(*setup, "--yes").status == 0
        assert changed.read_text() == right

        self.break_environment(cluster.home / "other venv")
        printed = command(*setup, "--yes", "--json")
        assert printed.status == 0
        assert "--clear" in printed.json()["steps"][0]["text"]
        assert command(*setup, "--json").json()["steps"] == []

    def break_environment(self, place: Path) -> None:
        """What an update of the cluster's Python does."""
        for name in ("python", "python3", f"python3.{sys.version_info[1]}"):
            (place / "bin" / name).unlink(missing_ok=True)
            (place / "bin" / name).symlink_to("/nonexistent")

    def test_settings_of_another_cluster_do_not_stay(
        self, config: Callable[..., None], client_home: Path, command: Command
    ) -> None:
        config(server="elsewhere", user="else", queue="q", port=5, server_id="r", mem="1G")
        lines = command("setup-cluster", "onenode", "--dry-run").out.split()
        assert "".join(lines).count("=None") == 4
        assert "mem" not in [line.lstrip("+-") for line in lines if line[0] in "+-"]

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--remote-python", SYSTEM_PYTHON], "belongs to the system"),
            (["--remote-python", "~/something/bin/python"], "is no virtual environment"),
            (["--remote-python", "~/python"], "has to be .../bin/python"),
            (["--remote-python", OTHER, "--base-python", "/bin/false"], "/bin/false: ended with"),
            (
                ["--remote-python", OTHER, "--base-python", "/none"],
                "module: --setup 'module load NAME'",
            ),
            (["--queue", "nix", "--scheduler", "slurm"], "no queue 'nix', only main"),
            (["--port", "1"], "cannot be reached"),
        ],
    )
    def test_refusals(
        self, options: list[str], told: str, other_places: Path, client_home: Path, command: Command
    ) -> None:
        (other_places / "something" / "there").mkdir(parents=True)
        printed = command("setup-cluster", "onenode", "--yes", *options)
        assert (printed.status, printed.out) == (1, "")
        assert told in printed.err
        assert not (client_home / ".pyhrf").exists()

    def test_another_base_for_an_environment_that_is_there(
        self, cluster: OneNode, other_places: Path, client_home: Path, command: Command
    ) -> None:
        setup = ("setup-cluster", "onenode", "--yes", "--remote-python", cluster.python)
        other = other_places / "something" / "python"
        other.parent.mkdir(mode=0o755)
        version = list(sys.version_info[:3])
        found = json.dumps({"version": version, "venv": True, "own": False, "base": "/opt/other"})
        other.write_text(f"#!/bin/sh\necho '{found}'\n")
        other.chmod(0o755)
        printed = command(*setup, "--base-python", other)
        assert printed.status == 1
        assert "is there already, of the Python" in printed.err
        assert command(*setup, "--base-python", SYSTEM_PYTHON).status == 0  # which it is of

    def test_unknown_host_key(self, client_home: Path, command: Command) -> None:
        (client_home / ".ssh" / "known_hosts").unlink()
        printed = command("setup-cluster", "onenode", "--yes")
        assert printed.status == 1
        assert "host key" in printed.err
