"""The command line, against a real cluster; what needs none is tested here too."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import pytest

from pyhrf_parallel import MapRun, RemoteException, submit_map
from pyhrf_parallel.commands import config_file
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.commands.setup import wheels
from pyhrf_parallel.configuration import load_configuration
from pyhrf_parallel.runs.manifests import list_runs
from pyhrf_parallel.runs.ssh import SSHConnection
from pyhrf_parallel.version import __version__
from tests.cluster.one_node import SYSTEM_PYTHON, OneNode, wait_for
from tests.contract import cases

OTHER = "~/other venv/bin/python"


@dataclass
class Printed:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Printed]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> Printed:
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        assert "Traceback (most recent call last):\n  File" not in err.partition("--- ")[0]
        return Printed(status, out, err)

    return run


class TestEntry:
    def test_help_names_all_commands_in_order(self, command: Command) -> None:
        printed = command("--help")
        assert printed.status == 0
        names = (
            "setup-cluster",
            "doctor",
            "runs",
            "status",
            "logs",
            "collect",
            "cancel",
            "retry",
            "clean",
        )
        positions = [printed.out.index(f"\n  {name} ") for name in names]
        assert positions == sorted(positions)

    def test_help_is_fast(self) -> None:
        code = (
            "import sys; from pyhrf_parallel.commands.main import main; main(['collect', '--help']); "
            "print({'paramiko', 'numpy', 'cloudpickle', 'tqdm'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.endswith(b"set()\n")

    def test_without_click(self) -> None:
        code = (
            "import sys; sys.modules['click'] = None; "
            "from pyhrf_parallel.commands.main import main; sys.exit(main())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 1
        assert b"pip install 'pyhrf_parallel[cluster]'" in done.stderr

    @pytest.mark.parametrize(
        ("argv", "told"),
        [
            (["nonsense"], "No such command 'nonsense'"),
            (["clean"], "--all-done"),
            (["clean", "x", "--all-done"], "--all-done"),
            (["setup-cluster", "x", "--scheduler", "sge"], "slurm"),
        ],
    )
    def test_wrong_use(self, argv: list[str], told: str, command: Command) -> None:
        printed = command(*argv)
        assert (printed.status, printed.out) == (2, "")
        assert printed.err.startswith("error: ")
        assert told in printed.err


class TestConfigFile:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", "[parallel-cluster]\nserver = new\nport = 5\n"),
            ("# mine", "# mine\n\n[parallel-cluster]\nserver = new\nport = 5\n"),
            ("[a]\nb: %s\n", "[a]\nb: %s\n\n[parallel-cluster]\nserver = new\nport = 5\n"),
            (
                "[parallel-cluster]\n  Server: old\n    and more\n\n# of port\nPORT=4\n\n\n[z]\nserver = z\n",
                "[parallel-cluster]\n  Server: new\n\n# of port\nPORT=5\n\n\n[z]\nserver = z\n",
            ),
            (
                "[parallel-cluster]\r\nserver = old\r\n\r\n[z]\r\n\u2028 = 1\r\n",
                "[parallel-cluster]\r\nserver = new\r\nport = 5\r\n\r\n[z]\r\n\u2028 = 1\r\n",
            ),
            ("[parallel-cluster]\nserver =\n", "[parallel-cluster]\nserver = new\nport = 5\n"),
        ],
    )
    def test_all_other_lines_stay(self, before: str, after: str) -> None:
        values = {"server": "new", "port": 5}
        assert config_file.changed(before, values) == after
        assert config_file.changed(after, values) == after

    def test_mode_link_and_first_backup_are_kept(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("[a]\n")
        real.chmod(0o640)
        link.symlink_to(real)
        for name in ("x", "y"):
            text, known = config_file.read(link)
            assert known.server in (None, "x")
            new = config_file.changed(text, {"server": name})
            expected = load_configuration({"parallel-cluster": {"server": name}})
            config_file.write(link, new, expected)
        assert link.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "real.bak").read_text() == "[a]\n"
        assert {p.name for p in tmp_path.iterdir()} == {"real", "link", "real.bak"}

    def test_nothing_is_written_that_means_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "config.cfg"
        path.write_text("[a]\n")
        expected = load_configuration({"parallel-cluster": {"server": "x"}})
        with pytest.raises(click.ClickException, match="by hand"):
            config_file.write(path, "[a]\n[parallel-cluster]\nserver = y\n", expected)
        assert [p.name for p in tmp_path.iterdir()] == ["config.cfg"]
        assert path.read_text() == "[a]\n"


def test_wheels_hold_what_runs_here() -> None:
    files = wheels.collect_wheels() | dict([wheels.pip_wheel()])
    ours = zipfile.ZipFile(BytesIO(files[f"pyhrf_parallel-{__version__}-py3-none-any.whl"]))
    assert (
        ours.read("pyhrf_parallel/mapping.py")
        == Path(sys.modules["pyhrf_parallel.mapping"].__file__ or "").read_bytes()
    )
    soma = next(content for name, content in files.items() if name.startswith("soma_workflow"))
    names = zipfile.ZipFile(BytesIO(soma)).namelist()
    # The adapter of scheduler = drmaa imports what comes with it.
    assert {"somadrmaa/__init__.py", "somadrmaa2/__init__.py"} < set(names)
    for content in files.values():
        wheel = zipfile.ZipFile(BytesIO(content))
        record = next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        listed = [line.split(",")[0] for line in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist())


@pytest.fixture
def other_places(cluster: OneNode) -> Iterator[Path]:
    """Where on the cluster these tests make things; all of it has to be named here."""
    yield cluster.home
    for name in ("other venv", "bare", "something"):
        shutil.rmtree(cluster.home / name, ignore_errors=True)
    assert cluster.files() == []


@pytest.fixture
def config(client_home: Path, cluster: OneNode) -> Callable[..., None]:
    """Write a configuration that works, but for what is said."""

    def write(**changes: object) -> None:
        keys = {"server": "onenode", "remote_python": cluster.python, "scheduler": "local_basic"}
        lines = [f"{key} = {value}" for key, value in (keys | changes).items()]
        path = client_home / ".pyhrf" / "config.cfg"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["[parallel-cluster]", *lines, ""]))

    return write


@pytest.mark.cluster
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


@pytest.mark.cluster
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


@pytest.mark.cluster
class TestRuns:
    @pytest.fixture(autouse=True)
    def all_is_gone(
        self, cluster: OneNode, config: Callable[..., None], client_home: Path
    ) -> Iterator[None]:
        config()
        yield
        left = list_runs()
        for manifest in left:  # not to disturb other tests
            MapRun.load(manifest.run_id).clean()
        assert left == []
        wait_for(lambda: not cluster.processes(), 15, "the end of all processes on the cluster")
        assert cluster.files() == []

    def submit(self, func: Any, *arguments: object, **options: Any) -> str:
        with submit_map(func, [(argument,) for argument in arguments], **options) as run:
            run_id: str = run.run_id
            return run_id

    def test_round_trip(self, command: Command, tmp_path: Path) -> None:
        assert command("runs").out == "There are no runs.\n"
        assert command("runs", "--json").json() == []
        run_id = self.submit(math.sqrt, 4, 9, 16)
        assert run_id in command("runs").out
        (row,) = command("runs", "--json").json()
        assert (row["run_id"], row["tasks"], row["cluster"]) == (run_id, 3, "onenode")
        output = tmp_path / "results.pck"
        printed = command("collect", run_id[:-2], "--output", output, "--keep", "--json")
        assert printed.status == 0
        assert printed.json()["returned"] == 3
        assert pickle.loads(output.read_bytes()) == [2, 3, 4]

        assert "done: 3 of 3 tasks returned" in command("runs", "--status").out
        printed = command("status", "last")
        assert "done: 3 of 3 tasks returned" in printed.out
        assert "\njob-" in printed.out
        status = command("status", "last", "--json").json()
        assert (status["phase"], status["returned"]) == ("done", 3)
        assert command("logs", run_id, "--json").json() == {}  # test_files_there.py has full ones
        assert command("logs", run_id).out == "Nothing was written.\n"
        assert "those that have: none" in command("logs", run_id, "--job", "nix").err
        assert "was done already" in command("cancel", run_id).out

        assert "give --output FILE" in command("collect", "last").err
        refused = command("collect", "last", "--output", output)
        assert (refused.status, "--force" in refused.err) == (1, True)
        assert command("collect", "last", "-o", output, "--force").status == 0
        assert {p.name for p in tmp_path.iterdir()} == {"results.pck"}
        assert "There are no runs" in command("status", "last").err

    def test_failures_are_in_their_places(self, command: Command, tmp_path: Path) -> None:
        self.submit(math.sqrt, 4, -1, 9, -4, on_error="return")
        output = tmp_path / "results.pck"
        printed = command("collect", "last", "--output", output)
        assert printed.status == 1
        assert "error: 2 of 4 tasks failed, 0 were not run" in printed.err
        assert "Task 1 failed on" in printed.err
        assert "Task 3 failed on" in printed.err
        values = pickle.loads(output.read_bytes())
        assert (values[0], values[2]) == (2, 3)
        assert isinstance(values[1], RemoteException)
        assert values[3].call == "sqrt(-4)"

    def test_tasks_after_the_first_failure_may_not_have_run(
        self, command: Command, tmp_path: Path
    ) -> None:
        """The second has begun when the first fails: its job, which is stopped for that, has not died of it."""
        with submit_map(cases.meet, [(tmp_path, 0), (tmp_path, 1)], n_jobs=2) as run:
            wait_for(lambda: run.status().phase == "done", 60, "the engine's last word")
        output = tmp_path / "results.pck"
        printed = command("collect", "last", "--output", output, "--json")
        assert printed.status == 1
        assert printed.json()["not_run"] == 1
        _, second = pickle.loads(output.read_bytes())
        assert str(second).startswith("Task 1 was not run: task 0 had failed: meet(")

    def test_cancel_and_collect_the_rest(self, command: Command, tmp_path: Path) -> None:
        run_id = self.submit(time.sleep, 0, 60, n_jobs=1)
        assert "is not over" in command("collect", "last", "-o", tmp_path / "x", "--no-wait").err
        wait_for(lambda: command("status", run_id, "--json").json()["returned"] == 1, 20, "a task")
        printed = command("cancel", run_id, "--json")
        assert (printed.status, printed.json()["phase"]) == (0, "cancelled")
        printed = command("collect", run_id, "--output", tmp_path / "x")
        assert printed.status == 1
        first, second = pickle.loads((tmp_path / "x").read_bytes())
        assert first is None
        assert "the run was cancelled" in str(second)

    def test_names_and_cleaning(self, command: Command, client_home: Path) -> None:
        first, second = self.submit(math.sqrt, 4), self.submit(time.sleep, 60)  # in one second
        printed = command("status", first[:3])
        assert printed.status == 1
        assert f"2 runs begin with '{first[:3]}': {first}, {second}" in printed.err
        assert f"known: {first}, {second}" in command("logs", "nix").err
        refused = command("clean", first)
        assert refused.status == 2
        assert "--yes" in refused.err

        wait_for(lambda: "done" in command("status", first).out, 20, "the first run")
        printed = command("clean", "--all-done", "--yes", "--json")
        assert printed.json() == {"cleaned": [first], "errors": {}}
        assert command("clean", "last", second, "--yes").out == f"Cleaned: {second}.\n"

    def test_a_cluster_that_is_gone_does_not_hide_the_others(
        self, command: Command, client_home: Path
    ) -> None:
        run_id, lost = self.submit(math.sqrt, 4), self.submit(math.sqrt, 9)
        forgotten = MapRun.load(lost).manifest
        known = client_home / ".ssh" / "known_hosts"
        keys = known.read_text()
        known.write_text("")
        printed = command("runs", "--status")
        assert printed.status == 0
        assert "unknown (The host key" in printed.out
        printed = command("clean", run_id, "--yes")
        assert printed.status == 1
        assert run_id in printed.err
        assert command("clean", "--all-done", "--forget", "--yes").status == 2
        assert command("clean", lost, "--forget", "--yes").out == f"Cleaned: {lost}.\n"
        assert lost not in command("runs").out
        known.write_text(keys)
        MapRun(forgotten).clean()  # it is not gone after all
        assert command("clean", run_id, "--yes").status == 0

    def test_where_results_cannot_go(self, command: Command, tmp_path: Path) -> None:
        run_id = self.submit(math.sqrt, 4)
        printed = command("collect", run_id, "--output", tmp_path / "none" / "x")
        assert (printed.status, "no directory to write to" in printed.err) == (1, True)
        assert command("clean", run_id, "--yes").status == 0
