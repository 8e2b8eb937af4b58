"""Whole scripts, as users run them: `__main__`, Ctrl-C, a killed client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pyhrf_parallel.backends import MODES, Mode
from tests.scripts import Script

EVERYTHING_IN_MAIN = """
import sys
from dataclasses import dataclass
from pyhrf_parallel import RemoteException, remote_map

offset = 10

@dataclass
class Estimate:
    value: int

class EstimateError(Exception):
    def __init__(self, region, reason):
        super().__init__(f"{region}: {reason}")
        self.region = region

def estimate(x):
    if x == 3:
        raise EstimateError(x, "no voxel")
    return Estimate(x + offset)

if __name__ == "__main__":
    mode = sys.argv[1]
    results = remote_map(estimate, [(i,) for i in range(4)], mode=mode, on_error="return")
    assert results[:3] == [Estimate(10), Estimate(11), Estimate(12)], results
    assert all(type(r) is Estimate for r in results[:3])
    cause = results[3].__cause__
    assert type(cause) is EstimateError and cause.region == 3, results[3]
    print("done", flush=True)
"""


@pytest.mark.parametrize("mode", MODES)
def test_functions_and_classes_of_main(script: Script, mode: Mode) -> None:
    assert script.run(EVERYTHING_IN_MAIN, mode) == ("done\n", "")
    script.assert_nothing_left()


SIBLING = """
import sys
import helper
from pyhrf_parallel import remote_map
if __name__ == "__main__":
    print(remote_map(helper.double, [(1,), (2,)], mode=sys.argv[1]))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_module_beside_the_script(script: Script, mode: Mode) -> None:
    (script.directory / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    assert script.run(SIBLING, mode) == ("[2, 4]\n", "")


BUSY = """
import sys, time
from pathlib import Path
from pyhrf_parallel import remote_map

def work(i):
    Path(f"started-{i}").touch()
    time.sleep(60)

if __name__ == "__main__":
    remote_map(work, [(i,) for i in range(4)], mode=sys.argv[1], n_jobs=2)
"""


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c(script: Script, mode: Mode) -> None:
    process = script.start(BUSY, mode)
    script.wait_for("started-0")
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the script
    _, err = process.communicate(timeout=45)
    assert "KeyboardInterrupt" in err
    assert "Exception in thread" not in err
    assert process.returncode != 0
    script.assert_nothing_left()


def test_the_embedded_engine_dies_with_a_killed_client(script: Script) -> None:
    process = script.start(BUSY, "remote_cluster")
    script.wait_for("started-1")
    process.kill()
    process.communicate(timeout=45)
    script.assert_nothing_left()


FAILS = """
import sys
from pyhrf_parallel import remote_map

def invert(x):
    print("inverting", x, file=sys.stderr)
    return 1 / x

remote_map(invert, [(1,), (0,)], mode=sys.argv[1]) if __name__ == "__main__" else None
"""


@pytest.mark.parametrize("mode", MODES)
def test_what_a_terminal_shows_of_a_failure(script: Script, mode: Mode) -> None:
    process = script.start(FAILS, mode)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    for part in ("ZeroDivisionError", "return 1 / x", "invert(0)", "ask 1", "inverting 0"):
        assert part in err, err
    assert err.count("return 1 / x") == 1, err
    script.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_a_script_from_stdin(script: Script, mode: Mode) -> None:
    text = (
        "from pyhrf_parallel import remote_map\n"
        "def f(x): return x + 1\n"
        f"print(remote_map(f, [(1,), (2,)], mode={mode!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-"],
        input=text,
        capture_output=True,
        text=True,
        env=script.environment,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[2, 3]\n", "")


def test_the_import_is_light(script: Script) -> None:
    text = """
import sys
import pyhrf_parallel
heavy = {"joblib", "soma_workflow", "paramiko", "numpy", "cloudpickle", "tqdm"} & set(sys.modules)
assert not heavy, heavy
assert not {"remote_map", "run"} & set(vars(pyhrf_parallel))
from pyhrf_parallel import RemoteException, dump_func, remote_map
assert not heavy, heavy
assert "remote_map" in dir(pyhrf_parallel)
remote_map(len, [("ab",)])
heavy = {"joblib", "soma_workflow", "paramiko", "numpy", "cloudpickle", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""
    script.run(text)


MISSING = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
from pyhrf_parallel import BackendUnavailableError, remote_map
try:
    remote_map(len, [("ab",)], mode=sys.argv[1])
except BackendUnavailableError as error:
    assert isinstance(error, ImportError)
    print(error)
"""


@pytest.mark.parametrize(
    ("mode", "module", "extra"),
    [
        ("local", "joblib", "local"),
        ("remote_cluster", "soma_workflow", "cluster"),
    ],
)
def test_a_missing_extra_gives_the_pip_line(
    script: Script, mode: Mode, module: str, extra: str
) -> None:
    out, _ = script.run(MISSING, mode, module)
    assert f"mode={mode!r} needs {module}" in out
    assert f"pip install 'pyhrf_parallel[{extra}]'" in out


IDLE = """
import time
from pathlib import Path
from pyhrf_parallel import remote_map

if __name__ == "__main__":
    remote_map(time.sleep, [(0.1,)] * 4, mode="local", n_jobs=2)
    Path("idle").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_idle_processes_end_with_a_killed_client(script: Script, number: signal.Signals) -> None:
    process = script.start(IDLE)
    script.wait_for("idle")
    process.send_signal(number)
    process.communicate(timeout=45)  # when nobody can write to its output any more
    script.assert_nothing_left()


STARTING = """
import time
from functools import partial
from pathlib import Path

import joblib

from pyhrf_parallel.backends.local.pools import Pool, PoolSettings

if __name__ == "__main__":
    pool = Pool(joblib, PoolSettings.of(joblib.parallel.get_active_backend()[0], 1, 0))
    pool.submit(1, partial(time.sleep, 0), Path("done").touch)
    while not Path("done").exists():
        time.sleep(0.01)
    pool._executor._processes_management_lock.acquire()  # as while it starts another process
    Path("idle").touch()
    time.sleep(60)
"""


def test_a_client_that_is_killed_while_it_starts_processes(script: Script) -> None:
    """A process that has not served yet ends, too; it waited for a lock that nobody gave back."""
    process = script.start(STARTING)
    script.wait_for("idle")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=45)
    script.assert_nothing_left()


LEAVING = """
import sys
from pyhrf_parallel.files import private_directory

with private_directory() as directory:
    for number in range(15000):
        (directory / str(number)).touch()
    print("leaving", flush=True)
print("left", flush=True)
"""


@pytest.mark.parametrize("delay", [0, 0.01, 0.02])
def test_ctrl_c_while_a_directory_is_removed(script: Script, delay: float) -> None:
    process = script.start(LEAVING)
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"
    time.sleep(delay)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    out, err = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert out == ""
    script.assert_nothing_left()


def test_ctrl_c_of_ones_own_is_left_alone(script: Script) -> None:
    out, _ = script.run("""
import os, signal
from pyhrf_parallel.files import private_directory

signal.signal(signal.SIGINT, lambda number, frame: print("mine"))
with private_directory():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
""")
    assert out == "mine\nmine\n"
