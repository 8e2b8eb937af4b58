"""The command line where no cluster is configured, and what all commands have in common."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyhrf_parallel import MapRun, submit_map
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.version import __version__
from tests.conftest import files_in


@pytest.fixture
def home(nothing_left: Path) -> Iterator[Path]:
    place = Path(os.environ["HOME"])
    yield place
    for made in sorted(map(Path, files_in(place)), reverse=True):
        if made.is_dir():
            made.rmdir()


Printed = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run a command that has to succeed; return what it has printed."""

    def run(*argv: str) -> str:
        status = main(list(argv))
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return run


class TestEntry:
    def test_help_names_all_commands_in_order(self, printed: Printed) -> None:
        text = printed("--help")
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
        positions = [text.index(f"\n  {name} ") for name in names]
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
    def test_wrong_use(
        self, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert told in err

    def test_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pyhrf_parallel", "--version"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == f"pyhrf-parallel {__version__}\n"
        done = subprocess.run(
            [sys.executable, "-m", "pyhrf_parallel", "nonsense"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "see pyhrf-parallel --help" in done.stderr

    def test_the_version_without_click(self) -> None:
        code = (
            "import sys; sys.modules['click'] = None; sys.argv = ['pyhrf-parallel', '--version']; "
            "from pyhrf_parallel.commands.main import main; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"pyhrf-parallel {__version__}\n"

    @pytest.mark.parametrize(
        ("argv", "status"),
        [
            (["status", "last", "--json"], 1),
            (["setup-cluster", "nowhere.invalid", "--json"], 1),
            (["setup-cluster", "x", "--scheduler", "sge", "--json"], 2),
            (["clean", "--json"], 2),
        ],
    )
    def test_an_error_is_json_too(
        self, argv: list[str], status: int, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(argv) == status
        out, err = capsys.readouterr()
        assert err == f"error: {json.loads(out)['error']}\n"

    def test_it_is_one_json(
        self, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id = submit_map(abs, [(-1,), ("x",)], on_error="return").run_id
        assert main(["collect", run_id, "-o", str(tmp_path / "x"), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["failed"] == 1


class TestDoctor:
    def test_no_cluster(self, home: Path, printed: Printed) -> None:
        lines = [line for line in printed("doctor").splitlines() if line.startswith("ok ")]
        assert [line.split()[:2] for line in lines] == [
            ["ok", "configuration"], ["ok", "cluster"], ["ok", "job"],
        ]  # fmt: skip
        assert "jobs run on this machine" in lines[1]
        assert "setup-cluster" in lines[1]
        assert "2 tasks ran on" in lines[2]
        assert json.loads(printed("doctor", "--no-job", "--json"))["ok"]

    @pytest.mark.parametrize("no_color", ["", "1"])
    def test_colours(self, no_color: str, home: Path) -> None:
        """On a terminal, unless they are unwanted as https://no-color.org says; elsewhere never."""
        argv = [sys.executable, "-m", "pyhrf_parallel", "doctor", "--no-job"]
        environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
        terminal, inside = pty.openpty()
        subprocess.run(argv, stdout=inside, env=environment, check=True)
        os.close(inside)
        shown = b""
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:  # the end of a terminal, on Linux
            pass
        os.close(terminal)
        assert b"configuration" in shown
        assert (b"\033[" in shown) == (not no_color)
        piped = subprocess.run(argv, capture_output=True, env=environment, check=True).stdout
        assert b"\033[" not in piped


class TestAnEngineThatIsKilled:
    def test_its_run_is_stopped(self, home: Path, printed: Printed) -> None:
        with submit_map(time.sleep, [(60,)] * 2, n_jobs=1) as run:
            while "running" not in {job.status for job in run.status().jobs}:
                time.sleep(0.05)
            engine = int(Path(run.manifest.directory, "engine.pid").read_text().split()[0])
            assert run.status().phase == "running"
            os.kill(engine, signal.SIGKILL)
            while run.status().phase == "running":
                time.sleep(0.05)
        assert "status    stopped: 0 of 2 tasks returned" in printed("status", "last")
        assert f"pyhrf-parallel collect {run.run_id} starts it again" in printed("runs", "--status")
        assert "is cancelled" in printed("cancel", "last")
        assert MapRun.load(run.run_id).status().phase == "cancelled"
        printed("clean", "last", "--yes")

    def test_in_its_first_moment(self, home: Path) -> None:
        with submit_map(abs, [(-1,)]) as run:
            engine = int(Path(run.manifest.directory, "engine.pid").read_text().split()[0])
            os.kill(engine, signal.SIGKILL)
            while run.status().phase == "running":
                time.sleep(0.05)
            assert run.status().phase in ("stopped", "done")
            run.clean()
