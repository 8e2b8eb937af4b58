"""Mode ``'local_with_dumps'``: each task in a new process of this interpreter, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.relaying import Relay
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker.launch import describe_death, read_log_tail, worker_command
from pyhrf_parallel.worker.record_files import RecordStream
from pyhrf_parallel.worker.records import absorb, lost, with_log
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import Cursor

if TYPE_CHECKING:
    from pyhrf_parallel.worker.records import Record

_LOOK = 0.05  # seconds between two checks of the time limit

RAISES_ORIGINAL = False


def run(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:  # noqa: ARG001
    """Run every task through files and in a process of its own, as on a cluster."""
    with private_directory() as directory:
        write_payload(Path(RunPaths(directory).payload), work)
        while not outcomes.complete:
            (index, _), *_ = outcomes.pending()
            for attempt in range(work.options.retries + 1):
                reason = _run_task(directory, index, f"task-{index}-{attempt}", outcomes)
                if outcomes.is_settled(index):
                    break
            else:
                log_tail = read_log_tail(RunPaths(directory).log(f"task-{index}-{attempt}"))
                absorb([lost(index, reason, log_tail)], outcomes)


def _run_task(directory: Path, index: int, name: str, outcomes: Outcomes) -> str:
    """Run one task in a process; return how the process ended."""
    paths = RunPaths(directory)
    log = Path(paths.log(name))
    cursor = Cursor(paths.cursor(name))
    cursor.numbers[1] = -time.monotonic_ns()  # loading starts now
    with log.open("wb") as output:
        process = subprocess.Popen(
            worker_command(directory, name, "run", index, index + 1),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C goes to this process only, which then stops the task
        )
    try:
        late = _wait(process, outcomes.work.options.timeout, cursor, index)
        # For processes that the task left behind; joblib's resource tracker survives SIGTERM to clean up.
        _signal(process, signal.SIGKILL if late else signal.SIGTERM)
    except BaseException:
        _signal(process, signal.SIGKILL)
        raise
    finally:
        cursor.close()
        Relay().show(log, is_complete=True)
    if late:
        absorb([with_log(late, read_log_tail(log))], outcomes)
    for _, records_file in paths.all_records(name):
        with Path(records_file).open("rb") as file:
            for records in RecordStream().read(file):
                absorb(records, outcomes)
    for path in directory.glob(f"{name}.*") if outcomes.is_settled(index) else ():
        path.unlink()  # so that a map of many tasks needs the disk space of one
    return describe_death(process.returncode)


def _wait(
    process: subprocess.Popen[bytes], timeout: float | None, cursor: Cursor, index: int
) -> Record | None:
    """Wait for the end of a task's process; return the record of a task that exceeds its time limit."""
    pause = None if timeout is None else min(_LOOK, timeout / 10)
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)
            return None
        if timeout is not None and (late := cursor.exceeded(timeout, index)):
            return late


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the task's process and all that it started, and wait for the process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    process.wait()
