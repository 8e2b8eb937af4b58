"""What a worker does with a region: the task that travels there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from pyhrf_parallel.engine.step import find_program
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.failures import crash_report, last_line
from pyhrf_parallel.treatment_jobs.graph import region_command
from pyhrf_parallel.treatment_jobs.region_files import read_outline, result_path

Span = tuple[float, float, str]
Estimator = Callable[[str], object]


class EstimateRegions:
    """Analyses regions, each with what its treatment wants it to be analysed with.

    Parameters
    ----------
    estimators : sequence of callable
        For each treatment. Takes the name of the region's file, in the current directory.
    places : sequence of str
        The directory of each treatment's files; not known before one is made.
    """

    def __init__(self, estimators: Sequence[Estimator], places: Sequence[str] = ()) -> None:
        self._estimators = list(estimators)
        self._places = list(places)
        self.__name__ = self.__qualname__ = "estimate_region"  # what errors and lists call it

    def __call__(self, treatment: int, region_file: str) -> Span:
        """Return when it began and ended, in seconds since the epoch, and where it was done."""
        os.chdir(self._places[treatment])
        began = time.time()
        self._estimators[treatment](region_file)
        _check_result(region_file)
        return began, time.time(), os.uname().nodename


def _check_result(region_file: str) -> None:
    """Check that an analysis has finished: pyhrf hides it if one has not."""
    path = result_path(region_file)
    if not path.exists():
        raise TreatmentError(f"the analysis of {region_file} has left no {path.name}")
    try:
        report = crash_report(read_outline(path))
    except TreatmentError:
        path.unlink()  # nothing can be made of it
        raise
    if report:
        sys.stderr.write(f"{report.rstrip()}\n")
        raise TreatmentError(f"the analysis of {region_file} has failed: {last_line(report)}")


class EstimateByCommand:
    """Analyses a region by a command, as pyhrf's is.

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

    If it was killed, as one that needs too much memory is, so is this process: whoever has started the job
    sees that, and may try again with more.

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
