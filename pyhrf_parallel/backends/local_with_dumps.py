"""Mode ``'local_with_dumps'``: each task in a fresh process of this interpreter, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.records import RecordStream, absorb, lost, timed_out
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Outcomes, Work
from pyhrf_parallel.worker import PAYLOAD, command, describe_death, read_log_tail


class LocalWithDumpsBackend:
    """Takes every task through files and a process of its own, as a cluster would."""

    raises_original = False

    def run(self, work: Work, outcomes: Outcomes, configuration: Configuration) -> None:  # noqa: ARG002
        """Run the tasks; see `Backend`."""
        with private_directory() as directory:
            write_payload(directory / PAYLOAD, work)
            while not outcomes.complete:
                (index, _), *_ = outcomes.pending()
                for attempt in range(work.options.retries + 1):
                    reason = _run_task(directory, index, f"task-{index}-{attempt}", outcomes)
                    if outcomes.is_settled(index):
                        break
                else:
                    log_tail = read_log_tail(directory / f"task-{index}-{attempt}.log")
                    absorb([lost(index, reason, log_tail)], outcomes)


def _run_task(directory: Path, index: int, name: str, outcomes: Outcomes) -> str:
    """Run one task in a process; return how the process ended."""
    timeout = outcomes.work.options.timeout
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(directory, name, index, index + 1),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for this process, which then stops the task
        )
    try:
        status = process.wait(timeout)
        # What the task has left behind; joblib's resource tracker outlives this signal to clean up.
        _signal(process, signal.SIGTERM)
    except subprocess.TimeoutExpired:
        assert timeout is not None  # noqa: S101
        _signal(process, signal.SIGKILL)
        absorb([timed_out(index, timeout, read_log_tail(log))], outcomes)
        return ""
    except BaseException:
        _signal(process, signal.SIGKILL)
        raise
    for path in directory.glob(f"{name}.records*"):
        with path.open("rb") as file:
            for records in RecordStream().read(file):
                absorb(records, outcomes)
    for path in directory.glob(f"{name}.*") if outcomes.is_settled(index) else ():
        path.unlink()  # a map of many tasks needs the room of one
    return describe_death(status)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the task's process and to all that it started; wait for it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    process.wait()


BACKEND = LocalWithDumpsBackend()
