"""The task that travels to a worker: the analysis of a region."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from pyhrf_parallel.engine.step import find_program
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.region_files import (
    CONFIG,
    crash_report,
    last_line,
    read_outline,
    result_path,
)

#: A level of Python's logging, as in pyhrf: its 1 is a hundred lines for each voxel.
VERBOSITY = ("-v", "30")

Span = tuple[float, float, str]
#: Analyses the region of a file in the working directory, leaves the result beside it, and raises if it fails.
Estimator = Callable[[str], object]


class EstimateRegions:
    """Analyse the regions of several treatments.

    Parameters
    ----------
    estimators : sequence of callable
        What analyses the regions of each treatment.
    directories : sequence of str
        Where the files of each treatment are.
    """

    def __init__(self, estimators: Sequence[Estimator], directories: Sequence[str]) -> None:
        self._estimators = list(estimators)
        self._directories = list(directories)
        self.__name__ = self.__qualname__ = "estimate_region"  # what errors and lists call it

    def __call__(self, treatment: int, region_file: str) -> Span:
        """Analyse a region; return when that began and ended, in seconds since the epoch, and on which machine."""
        os.chdir(self._directories[treatment])
        began = time.time()
        self._estimators[treatment](region_file)
        _check_result(region_file)
        return began, time.time(), os.uname().nodename


def _check_result(region_file: str) -> None:
    """Raise if an analysis has not succeeded: pyhrf's command hides that in its result."""
    path = result_path(region_file)
    if not path.exists():
        raise TreatmentError(f"the analysis of {region_file} has left no {path.name}")
    try:
        report = crash_report(read_outline(path))
    except TreatmentError:
        path.unlink()  # it cannot be merged
        raise
    if report:
        sys.stderr.write(f"{report.rstrip()}\n")
        raise TreatmentError(f"the analysis of {region_file} has failed: {last_line(report)}")


def region_command(estimate: Sequence[str], name: str) -> list[str]:
    """Return the words of the command that analyses the region of a file."""
    return [*estimate, "-c", CONFIG, "-r", name, *VERBOSITY]


class EstimateByCommand:
    """Analyse a region by a command like pyhrf's.

    Parameters
    ----------
    command : sequence of str
        The program, and options that go first.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def __call__(self, region_file: str) -> None:
        """Run the command; what it prints goes to the log of the job."""
        program, *words = region_command(self._command, region_file)
        found = require_program(program)
        result_path(region_file).unlink(missing_ok=True)  # of an attempt that was killed
        status = subprocess.run([found, *words], check=False).returncode
        if status != 0:  # it may be half written
            result_path(region_file).unlink(missing_ok=True)
        check_status(program, status)


def require_program(name: str) -> str:
    """Return the path of a program.

    Raises
    ------
    FileNotFoundError
        If it is not on this machine.
    """
    found = find_program(name)
    if found is None:
        raise FileNotFoundError(f"There is no program {name!r} on {os.uname().nodename}")
    return found


def check_status(program: str, status: int) -> None:
    """Check the exit status of a program, negative for a signal.

    If it was killed, as one that needs too much memory is, this process is killed, too: the engine sees that,
    and may run the region again with more memory.

    Raises
    ------
    TreatmentError
        If it has failed.
    """
    if status == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise TreatmentError(f"{program} ended with {how}")
