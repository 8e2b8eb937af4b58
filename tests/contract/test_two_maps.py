"""Maps of mode 'local' beside others, and beside the user's own calls of joblib: nobody loses anything."""

from __future__ import annotations

import joblib
import pytest

from tests.scripts import Script

TWO_THREADS = """
import os, sys, threading, time
from pyhrf_parallel import RemoteException, TaskLostError, remote_map

def end(how, i):
    if i == 0:
        time.sleep(0.5)
        if how == "raises":
            raise ValueError("bad")
        if how == "crashes":
            os._exit(3)
        if how == "is killed":
            os.kill(os.getpid(), 9)
    time.sleep(1 if how == "takes too long" else 5)

def innocent(i):
    time.sleep(0.7)
    return os.getpid()

def fail(how):
    options = {"timeout": 0.5} if how == "takes too long" else {}
    try:
        remote_map(end, [(how, i) for i in range(2)], mode="local", n_jobs=2, **options)
    except Exception as error:
        errors.append(error)

if __name__ == "__main__":
    errors = []
    thread = threading.Thread(target=fail, args=sys.argv[1:])
    thread.start()
    time.sleep(float(sys.argv[2]) if sys.argv[2:] else 0)
    for _ in range(3):
        assert len(remote_map(innocent, [(i,) for i in range(2)], mode="local", n_jobs=2)) == 2
    thread.join()
    print(type(errors[0]).__name__, errors[0])
"""
WHAT_FAILS = {
    "raises": "ValueError bad",
    "crashes": "exited with status 3",
    "is killed": "SIGKILL (out of memory?)",
    "takes too long": "TimeoutError the task was stopped after timeout=0.5 s",
}


@pytest.mark.parametrize("how", WHAT_FAILS)
def test_a_map_that_fails_costs_another_one_nothing(script: Script, how: str) -> None:
    out, err = script.run(TWO_THREADS.replace("args=sys.argv[1:]", "args=[sys.argv[1]]"), how)
    assert WHAT_FAILS[how] in out
    assert err == ""
    script.assert_nothing_left()


BY_TURNS = """
import sys
import joblib
from pyhrf_parallel import remote_map

def boom(i):
    if i == 2:
        raise ValueError("bad")
    return -i

calls = [(i,) for i in range(4)]
options = eval(sys.argv[1])
with joblib.parallel_config("loky", **options):
    for turn in range(8):
        assert remote_map(abs, calls, mode="local") == [0, 1, 2, 3]
        assert joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]
        if turn % 3 == 0:
            results = remote_map(boom, calls, mode="local", on_error="return")
            assert [r for r in results if isinstance(r, int)] == [0, -1, -3]
            try:
                remote_map(boom, calls, mode="local")
            except ValueError:
                pass
print("done")
"""


@pytest.mark.parametrize(
    "options", [{"n_jobs": 2}, {"n_jobs": 2, "inner_max_num_threads": 1}, {"n_jobs": -1}], ids=str
)
def test_joblib_itself_by_turns(script: Script, options: dict[str, int]) -> None:
    assert script.run(BY_TURNS, repr(options)) == ("done\n", "")
    script.assert_nothing_left()


DURING = """
import os, threading, time
import joblib
from pyhrf_parallel import remote_map

def slow(i):
    time.sleep(0.5)
    return i

def die(i):
    time.sleep(0.1)
    os._exit(1)

def mine():
    results.append(joblib.Parallel(2)(joblib.delayed(slow)(i) for i in range(6)))

if __name__ == "__main__":
    results = []
    thread = threading.Thread(target=mine)
    thread.start()
    for _ in range(3):
        lost = remote_map(die, [(0,), (1,)], mode="local", n_jobs=2, on_error="return")
        assert all("status 1" in str(failure) for failure in lost), lost
    thread.join()
    print(results)
"""


def test_joblib_itself_while_processes_of_a_map_die(script: Script) -> None:
    assert script.run(DURING) == ("[[0, 1, 2, 3, 4, 5]]\n", "")
    script.assert_nothing_left()


IN_A_FORK = """
import multiprocessing, warnings
from pyhrf_parallel import ConfigurationError, remote_map

def inner(i):
    return remote_map(abs, [(-i,), (i,)], mode="local", n_jobs=2)

def limited(i):
    try:
        remote_map(abs, [(1,)], mode="local", timeout=1)
    except ConfigurationError as error:
        return str(error)

if __name__ == "__main__":
    print(inner(1))  # leaves processes that are not the fork's
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.map(inner, [1, 2]))
        print(pool.apply(limited, (1,)))
    print(inner(3))
"""


def test_in_a_process_of_multiprocessing(script: Script) -> None:
    out, err = script.run(IN_A_FORK)
    lines = out.splitlines()
    assert lines[:2] == ["[1, 1]", "[[1, 1], [2, 2]]"]
    assert "timeout= and retries= cannot be honoured" in lines[2]
    assert lines[3] == "[3, 3]"
    assert err == ""
    script.assert_nothing_left()


GONE = """
import os, shutil, sys, tempfile
from pyhrf_parallel import remote_map

home = os.getcwd()
place = tempfile.mkdtemp()
os.chdir(place)
assert remote_map(abs, [(-1,), (-2,)], mode=sys.argv[1], n_jobs=2) == [1, 2]
shutil.rmtree(place)
assert remote_map(abs, [(-1,), (-2,)], mode=sys.argv[1], n_jobs=2) == [1, 2]
os.chdir(home)
assert remote_map(abs, [(-1,), (-2,)], mode=sys.argv[1], n_jobs=2) == [1, 2]
assert set(remote_map(os.getcwd, [()] * 4, mode=sys.argv[1], n_jobs=2)) == {home}
"""


@pytest.mark.parametrize("mode", ["local", "local_with_dumps", "remote_cluster"])
def test_a_working_directory_that_has_been_removed(script: Script, mode: str) -> None:
    script.run(GONE, mode)
    script.assert_nothing_left()


FEW = """
import psutil
from pyhrf_parallel import remote_map

def processes():
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "loky_process" not in child.name()
            and any("popen_loky" in word for word in child.cmdline())}

def pause(i):
    import os, time
    time.sleep(0.3)
    return os.getpid()

remote_map(pause, [(0,), (1,)], mode="local", n_jobs=24)
first = processes()
assert len(first) == 2, first
remote_map(pause, [(i,) for i in range(4)], mode="local", n_jobs=24)
assert first < processes() and len(processes()) == 4, processes()
"""


def test_no_more_processes_than_tasks(script: Script) -> None:
    script.run(FEW)


ALL_AT_ONCE = """
import sys, time
from pathlib import Path
from pyhrf_parallel import remote_map

def meet(i):
    Path(f"began-{i}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("began-*"))) < 6:
        assert time.monotonic() < deadline, "the others do not begin"
        time.sleep(0.05)

remote_map(abs, [(1,)], mode="local", n_jobs=6)
remote_map(meet, [(i,) for i in range(6)], mode="local", n_jobs=6)
"""


def test_a_large_map_after_a_small_one_has_all_its_processes(script: Script) -> None:
    script.run(ALL_AT_ONCE)


ARRAYS_FOR_PROCESSES = """
import joblib
import numpy as np
from pyhrf_parallel import remote_map

def begin(values):
    assert len(values) == 3

with joblib.parallel_config("loky", initializer=begin, initargs=(np.arange(3),)):
    for _ in range(2):
        assert remote_map(abs, [(-1,)], mode="local", n_jobs=2) == [1]
"""


@pytest.mark.skipif(
    not hasattr(joblib.parallel.BACKENDS["loky"](), "backend_kwargs"),
    reason="before 1.5, joblib takes no initializer",
)
def test_arrays_for_the_initializer_of_joblib(script: Script) -> None:
    script.run(ARRAYS_FOR_PROCESSES)
