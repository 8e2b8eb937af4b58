"""Watching the memory and the disk space that a process needs, with all its children."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from measuring import HERE

_INTERVAL = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Observation:
    """What a process needed while it worked."""

    memory: float  # bytes at the most, of all processes, beyond those at the start of the work
    disk: float  # bytes at the most, in the temporary directory


def watch(script: str, *arguments: str) -> Observation:
    """Run a script that says when it is ready, waits for a line, and works."""
    with tempfile.TemporaryDirectory() as place:
        # joblib would write to /dev/shm otherwise, which is shared with everybody else.
        environment = os.environ | {"TMPDIR": place, "JOBLIB_TEMP_FOLDER": place}
        process = subprocess.Popen(
            [sys.executable, HERE / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        with process:
            try:
                return _observe(process, Path(place))
            finally:
                _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """Stop a process that has not ended by itself, with its children, which might go on without it."""
    if process.poll() is None:
        _signal(_family(process.pid), signal.SIGKILL)


def median(observations: list[Observation]) -> Observation:
    """Return the medians of each quantity."""
    return Observation(
        statistics.median(each.memory for each in observations),
        statistics.median(each.disk for each in observations),
    )


def _observe(process: subprocess.Popen[str], place: Path) -> Observation:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    before = _memory(process.pid)
    memory, disk = 0, 0
    process.stdin.write("go\n")
    process.stdin.flush()
    while process.poll() is None:
        memory = max(memory, _memory(process.pid) - before)
        disk = max(disk, _disk(place))
        time.sleep(_INTERVAL)
    assert process.returncode == 0
    return Observation(memory, disk)


def _memory(pid: int) -> int:
    """Return the memory of a process and its children, each shared page counted once.

    They are stopped meanwhile: a page that one of them gives up and another one takes between two looks
    would count twice.
    """
    family = _family(pid)
    try:
        _signal(family, signal.SIGSTOP)
        return sum(map(_proportional_set_size, family))
    finally:
        _signal(family, signal.SIGCONT)


def _family(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def _signal(family: list[int], number: signal.Signals) -> None:
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _proportional_set_size(pid: int) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _disk(place: Path) -> int:
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):  # it has just been removed
                total += Path(directory, name).stat().st_size
    return total
