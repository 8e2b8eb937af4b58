"""Time limits count the call of a task, and what a task has printed is in its error: in the users' environment."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from pyhrf_parallel import RemoteException, remote_map
from pyhrf_parallel.backends import MODES, Mode
from pyhrf_parallel.worker import runner
from tests.scripts import Script

WORKER_MODES = [mode for mode in MODES if mode != "serial"]

SLOW_TO_IMPORT = """
import time
time.sleep(1.2)

class Image:
    def __init__(self):
        self.voxels = 1

    def __setstate__(self, state):
        time.sleep(0.8)

def measure(image):
    time.sleep(0.1)
    return 1
"""
LIMITED = """
import sys
from pyhrf_parallel import remote_map
from slow import Image, measure

if __name__ == "__main__":
    print(remote_map(measure, [(Image(),)] * 3, mode=sys.argv[1], n_jobs=2, timeout=0.7))
"""


@pytest.mark.parametrize("mode", WORKER_MODES)
def test_a_time_limit_does_not_count_what_is_loaded(script: Script, mode: Mode) -> None:
    (script.directory / "slow.py").write_text(SLOW_TO_IMPORT)
    assert script.run(LIMITED, mode) == ("[1, 1, 1]\n", "")
    script.assert_nothing_left()


class Slow:
    """Takes its time when it is loaded."""

    def __getstate__(self) -> object:
        return {"n": 1}

    def __setstate__(self, state: object) -> None:
        time.sleep(30)


@pytest.mark.parametrize("mode", ["local", "local_with_dumps"])
@pytest.mark.usefixtures("nothing_left")
def test_loading_has_a_limit_of_its_own(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "START_LIMIT", 2)
    failed, length = remote_map(
        lambda value: len(str(value)),
        [(Slow(),), ("ab",)],
        mode=mode,
        timeout=0.2,
        on_error="return",
    )
    assert length == 2
    assert isinstance(failed, RemoteException)
    assert "had not begun after 2 s" in str(failed)
    assert "loading the arguments" in str(failed)


def test_loading_has_a_limit_in_jobs_too(tmp_path: Path) -> None:
    cursor = runner.Cursor(str(tmp_path / "c"))
    assert cursor.exceeded(1) is None
    cursor.numbers[0], cursor.numbers[1] = 4, -time.monotonic_ns()
    assert cursor.exceeded(1) is None
    cursor.numbers[1] += int((runner.START_LIMIT + 1) * 1e9)
    record = cursor.exceeded(1)
    assert record is not None
    assert record[:2] == ("raised", 3)
    cursor.close()


PRINTS = """
import os, sys
from pyhrf_parallel import remote_map

def end(how):
    print("said")
    print("whispered", file=sys.stderr)
    if how == "exits":
        os._exit(1)
    if how == "closes":
        sys.stdout.close()
    raise ValueError("bad")

if __name__ == "__main__":
    ways = ["raises", "exits", "closes"]
    failures = remote_map(end, [(how,) for how in ways], mode=sys.argv[1], on_error="return")
    print([type(failure).__name__ for failure in failures])
    print([failure.log_tail for failure in failures])
"""


@pytest.mark.parametrize("mode", ["local_with_dumps", "remote_cluster"])
def test_what_tasks_have_printed_is_in_their_errors(script: Script, mode: Mode) -> None:
    out, err = script.run(PRINTS, mode)
    kinds, logs = out.splitlines()
    assert kinds == "['RemoteException', 'TaskLostError', 'RemoteException']"
    assert [("said" in log, "whispered" in log) for log in ast.literal_eval(logs)] == [
        (True, True)
    ] * 3
    assert set(err.split()) == {"said", "whispered"}  # they are shown as well, and nothing else
    script.assert_nothing_left()


@pytest.mark.parametrize("mode", ["local"])
def test_a_task_that_closes_its_output_fails_with_its_own_error(script: Script, mode: Mode) -> None:
    out, _ = script.run(PRINTS, mode)
    kinds = out.splitlines()[-2]
    assert kinds == "['RemoteException', 'TaskLostError', 'RemoteException']"


SLOW_TO_DELIVER = """
import sys, time
from pyhrf_parallel import remote_map

class Heavy:
    def __reduce__(self):
        time.sleep(1.5)
        return Heavy, ()

def make(i):
    time.sleep(0.2)
    return Heavy() if i == 1 else i

if __name__ == "__main__":
    results = remote_map(make, [(i,) for i in range(4)], mode=sys.argv[1], n_jobs=1, timeout=0.8)
    print([type(result).__name__ for result in results])
"""


@pytest.mark.parametrize("mode", WORKER_MODES)
def test_a_time_limit_does_not_count_the_delivery_of_a_result(script: Script, mode: Mode) -> None:
    assert script.run(SLOW_TO_DELIVER, mode) == ("['int', 'Heavy', 'int', 'int']\n", "")
