"""Ending processes with all that they have started, daemons included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pyhrf_parallel import processes
from tests.conftest import ROOT

#: Starts a child, and a daemon that nothing ties to it; both say who they are.
FAMILY = """
import os, subprocess, sys, time
place = sys.argv[1]
code = "import os, sys, time; open(sys.argv[1], 'x').write(str(os.getpid())); time.sleep(300)"
subprocess.Popen([sys.executable, '-c', code, place + '/child'])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, '-c', code, place + '/daemon'])
    os._exit(0)
os.wait()
while not all(os.path.exists(place + '/' + name) and open(place + '/' + name).read() for name in ('child', 'daemon')):
    time.sleep(0.01)
"""


@pytest.fixture(params=["/proc", "/nonexistent"], ids=["proc", "ps"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", request.param)


def start(place: Path, code: str) -> subprocess.Popen[bytes]:
    """Start a process, and wait for its line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, place],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.usefixtures("source")
def test_a_tree_is_killed_with_its_daemons(tmp_path: Path) -> None:
    adopt = "from pyhrf_parallel.processes import adopt_orphans; adopt_orphans()"
    process = start(tmp_path, f"{adopt}\n{FAMILY}\nprint('ready', flush=True); time.sleep(300)")
    members = [int((tmp_path / name).read_text()) for name in ("child", "daemon")]
    assert set(members) == set(processes.find_descendants(process.pid))
    processes.kill_tree(process.pid)
    process.wait()
    assert not any(map(is_alive, members))


@pytest.mark.usefixtures("source")
def test_how_a_process_is_told_from_a_later_one_of_its_number(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; print('ready', flush=True); time.sleep(300)")
    began = processes.find_start(process.pid)
    assert began
    assert not began.split()[1:]  # one word
    assert began == processes.find_start(process.pid)
    assert str(tmp_path) not in processes.find_start(os.getpid())
    (found,) = processes.find_own(lambda words, _: str(tmp_path) in words)
    assert found == process.pid
    process.kill()
    process.wait()
    assert processes.find_start(process.pid) == ""


def test_a_guard_is_ready_before_anything_can_get_away(tmp_path: Path) -> None:
    slow = (
        "import os, time; from pyhrf_parallel import processes; from pyhrf_parallel.worker.process import guard\n"
        "ready = processes.take_charge\n"
        "processes.take_charge = lambda: (time.sleep(1), ready())\n"
    )
    code = f"{slow}guard()\n{FAMILY}\nprint('ready', flush=True); os._exit(7)"
    assert start(tmp_path, code).wait() == 7
    assert not any(is_alive(int((tmp_path / name).read_text())) for name in ("child", "daemon"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, 0])
def test_what_a_guarded_process_leaves_ends_with_it(tmp_path: Path, number: int) -> None:
    """The child ends by itself, or is killed; or the guard is asked to end both."""
    ending = "time.sleep(300)" if number == signal.SIGTERM else f"os.kill(os.getpid(), {number})"
    code = f"from pyhrf_parallel.worker.process import guard; guard()\n{FAMILY}\nprint('ready', flush=True); {ending}"
    process = start(tmp_path, f"{code}; os._exit(7)")
    if number == signal.SIGTERM:
        process.terminate()
    assert process.wait() == (-number if number else 7)
    assert not any(is_alive(int((tmp_path / name).read_text())) for name in ("child", "daemon"))
