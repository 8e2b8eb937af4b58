"""`submit_map` without a cluster: a run of this machine, which outlives the process that submitted it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from pyhrf_parallel import (
    ClusterError,
    MapRun,
    NotShippableError,
    RemoteException,
    RunNotFoundError,
    TaskLostError,
    submit_map,
)
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.runs import run as runs
from pyhrf_parallel.runs.manifests import list_runs
from tests.conftest import files_in
from tests.contract import cases
from tests.treatment_jobs.conftest import processes_in


@pytest.fixture
def home(nothing_left: Path) -> Iterator[Path]:
    """A HOME in which nothing may be left, files or processes."""
    place = Path(os.environ["HOME"])
    yield place
    assert processes_in(place) == []
    for made in sorted(map(Path, files_in(place)), reverse=True):
        if made.is_dir():
            made.rmdir()  # directories that others may have use for stay


def test_it_goes_on_without_the_process_that_submitted_it(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from pyhrf_parallel import submit_map\n"
        "def slow(x):\n    time.sleep(1)\n    return x * x\n"
        "if __name__ == '__main__':\n"
        "    print(submit_map(slow, [(2,), (3,)], n_jobs=2).run_id)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    run_id = done.stdout.strip()
    assert [run.run_id for run in list_runs()] == [run_id]
    with MapRun.load(run_id) as run:
        assert run.manifest.here
        assert not run.done()
        with pytest.raises(TimeoutError, match=r"goes on: after 0 s, 0 of 2 tasks had ended"):
            run.result(timeout=0)
        assert run.result() == [4, 9]
        status = run.status()
        assert (status.phase, status.returned, status.failed) == ("done", 2, 0)
        assert (run.done(), run.cancelled(), run.cancel()) == (True, False, False)
        run.clean()
    assert list_runs() == []
    with pytest.raises(RunNotFoundError):
        MapRun.load(run_id)


def test_it_finds_the_callers_modules_and_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def read(name):\n    return open(name).read()\n")
    (tmp_path / "data").write_text("here")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import mine  # type: ignore[import-not-found]

    with submit_map(mine.read, [("data",)]) as run:
        assert run.result() == ["here"]
        run.clean()


def test_failures(home: Path) -> None:
    with submit_map(cases.fail_at, [(i, 1) for i in range(3)], on_error="return") as run:
        first, failed, last = run.result()
        assert (first, last) == (0, 2)
        assert isinstance(failed, RemoteException)
        run.clean()
    with submit_map(os.kill, [(0, 0), (os.getpid(), 0)], n_jobs=1) as run:
        assert run.result() == [None, None]
        run.clean()

    def die(number: int) -> int:
        if number:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with submit_map(die, [(0,), (9,)], n_jobs=1) as run:
        with pytest.raises(TaskLostError, match=r"Task 1 was lost: .*SIGKILL"):
            run.result()
        run.clean()


def test_nothing_is_kept_of_what_cannot_be_submitted(home: Path) -> None:
    with pytest.raises(NotShippableError):
        submit_map(len, [((i for i in "ab"),)])
    assert list(home.rglob("*.pck")) == []
    assert list_runs() == []


def test_no_task(home: Path) -> None:
    with submit_map(abs, []) as run:
        assert run.result() == []
        run.clean()


def test_a_dry_run(home: Path) -> None:
    preview = submit_map(abs, [(-1,)] * 50, n_jobs=2, dry_run=True)
    assert str(preview).startswith(f"On this machine, in {home}/.local/state/pyhrf_parallel/here/")
    assert (preview.jobs, preview.commands, preview.scheduler) == (2, [], "local_basic")
    assert set(preview.files) == {"payload", "plan.json"}
    assert files_in(home) == []


def test_the_commands(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(x: int) -> int:
        print("said", x)
        return x

    run_id = submit_map(say, [(1,), (2,)], n_jobs=1).run_id
    assert MapRun.load(run_id).result(60) == [1, 2]

    def printed(*argv: str) -> str:
        assert main(list(argv)) == 0
        return capsys.readouterr().out

    assert "(this machine)" in printed("runs")
    deadline = time.monotonic() + 60
    while True:  # the engine's word comes after the results
        status = json.loads(printed("status", "last", "--json"))
        if status["phase"] != "running" or time.monotonic() > deadline:
            break
    assert (status["phase"], status["returned"]) == ("done", 2)
    assert "said 1\nsaid 2\n" in printed("logs", run_id)
    output = tmp_path / "results.pickle"
    printed("collect", "last", "-o", str(output))
    assert pickle.loads(output.read_bytes()) == [1, 2]
    assert printed("runs") == "There are no runs.\n"

    run_id = submit_map(time.sleep, [(60,)] * 2).run_id
    assert "is cancelled" in printed("cancel", run_id)
    assert MapRun.load(run_id).cancelled()
    with pytest.raises(CancelledError, match="was cancelled when 0 of 2 tasks had ended"):
        MapRun.load(run_id).result()
    assert run_id in printed("clean", run_id, "--yes")


def test_an_engine_that_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhrf_parallel.runs.run._REVIVAL", 1.0)
    with submit_map(time.sleep, [(3,)], n_jobs=1) as run:
        state = run.status()
        while not state.jobs:
            state = run.status()
        os.kill(
            int(Path(run.manifest.directory, "engine.pid").read_text().split()[0]), signal.SIGKILL
        )
        assert run.result() == [None]
        run.clean()


def test_an_engine_that_never_says_a_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started again, and not for ever."""
    monkeypatch.setattr(runs, "_REVIVAL", 0.2)
    with submit_map(time.sleep, [(60,)]) as run:
        state = None
        while state is None:
            state = run._connected().state()
        directory = Path(run.manifest.directory)
        os.kill(state.pid, signal.SIGKILL)
        (directory / "engine.log").unlink()
        (directory / "engine.log").mkdir()  # nowhere to say why it ends
        with pytest.raises(
            ClusterError, match=r"ended 3 times without a word .*logs " + run.run_id
        ):
            run.result()
        run.clean()


@pytest.mark.parametrize("content", ["half a pl", '{"format": 1}'])
def test_an_engine_whose_plan_cannot_be_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(runs, "_REVIVAL", 0.2)
    with submit_map(time.sleep, [(60,)]) as run:
        while (state := run._connected().state()) is None:
            time.sleep(0.01)
        plan = Path(run.manifest.directory, "plan.json")
        before = plan.read_bytes()
        plan.write_text(content)
        os.kill(state.pid, signal.SIGKILL)
        with pytest.raises(ClusterError, match=r"plan.json (is damaged|was written by another)"):
            run.result()
        plan.write_bytes(before)
        run.clean()
