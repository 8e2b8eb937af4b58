"""The first process of a job: it knows what its child has died of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Options, Work
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.launch import worker_command
from pyhrf_parallel.worker.record_files import RecordStream
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import Cursor
from tests.conftest import ROOT


def kinds_of_records(place: Path, signals: list[signal.Signals]) -> list[str]:
    """Let a job be ended as a scheduler does it, or its task alone; return what it says of that."""
    work = Work(time.sleep, [(60,)], [{}], Options())
    write_payload(Path(RunPaths(place).payload), work)
    Claims.create(str(place / "claims"), [(0, 1)], 1)
    job = subprocess.Popen(
        worker_command(place, "job", "supervise", "claims"), cwd=place, start_new_session=True
    )
    cursor = Cursor(str(place / "job.cursor"))
    while cursor.seconds == 0:  # until the task is called
        time.sleep(0.01)
    (child,) = psutil.Process(job.pid).children()
    for number, pid in zip(signals, (child.pid, job.pid), strict=False):
        os.kill(pid, number)
        time.sleep(0.2)
    job.wait(30)
    cursor.close()
    found: list[str] = []
    for path in place.glob("job.records*"):
        with path.open("rb") as file:
            for records in RecordStream().read(file):
                found += [record[0] for record in records]
    return found


def test_a_job_that_is_ended_has_lost_no_task_by_itself(tmp_path: Path) -> None:
    assert kinds_of_records(tmp_path, [signal.SIGTERM, signal.SIGTERM]) == []


def test_a_task_that_is_ended_is_lost(tmp_path: Path) -> None:
    assert kinds_of_records(tmp_path, [signal.SIGTERM]) == ["lost"]


def test_a_package_that_is_not_installed_is_found(tmp_path: Path) -> None:
    """As when its folder lies beside a script."""
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info[1]}")
    code = (
        "import subprocess, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pyhrf_parallel.worker.launch import python_command\n"
        "subprocess.run(python_command('pyhrf_parallel.engine.agent', 'describe', 'local_basic'))\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, ROOT], cwd=tmp_path, stdout=subprocess.PIPE, check=True
    )
    assert json.loads(done.stdout)["package"] == __version__
