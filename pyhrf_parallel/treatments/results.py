"""The results of a treatment: one for each region, as pyhrf has them. What workers import, and no more."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pyhrf_parallel.compressing import packed, unpacked
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.treatment_jobs.failures import OK
from pyhrf_parallel.treatment_jobs.region_files import PROTOCOL, result_path
from pyhrf_parallel.treatments.fmri_data import FmriData, ROIData
from pyhrf_parallel.treatments.ledger import write

Analyser = Callable[[ROIData], Any]
#: The region, what its analysis returned, and `OK` or why it returned nothing.
Result = tuple[ROIData, Any, str]


@runtime_checkable
class ChecksData(Protocol):
    """An analyser that can tell, before anything is analysed, that it could analyse no region."""

    def check(self, data: FmriData) -> None:
        """Raise what is wrong with the data or with the analyser itself."""


@runtime_checkable
class NamesMaps(Protocol):
    """An analyser that knows which maps it will make."""

    def map_names(self, roi: ROIData) -> list[str]:
        """Return their names, which no voxel is needed for."""


def analyse_region(analyser: Analyser, roi: ROIData) -> Result:
    """Analyse one region: the task that travels to workers.

    As in pyhrf, an analysis that fails is a result: the others of the same treatment are worth keeping.

    Returns
    -------
    tuple
        The region without its signals, what the analyser returned or None, and ``'ok'`` or a traceback.
    """
    return _attempt(analyser, roi)[0]


def _attempt(analyser: Analyser, roi: ROIData) -> tuple[Result, Exception | None]:
    """Return the result of a region, and what its analysis has raised."""
    try:
        return (roi.without_signals(), analyser(roi), OK), None
    except Exception as error:
        return (roi.without_signals(), None, traceback.format_exc()), error


def load_region(path: str | os.PathLike[str]) -> ROIData:
    """Read the data of a region. They are a pickle: trust who wrote it."""
    roi: ROIData = pickle.loads(Path(path).read_bytes())
    return roi


def leave_result(analyser: Analyser, roi: ROIData, output: Path) -> None:
    """Analyse one region and write the result; if the analysis fails, that is written, and raised."""
    result, failure = _attempt(analyser, roi)
    write_then_rename(output, _dumps(result))
    if failure is not None:
        raise failure


class EstimateFile:
    """Analyses the region of a file, and leaves the result beside it: what jobs are given.

    Parameters
    ----------
    analyser : callable
        Of a `ROIData`.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser

    def __call__(self, region_file: str | os.PathLike[str]) -> None:
        """Analyse it; see `leave_result`."""
        leave_result(self._analyser, load_region(region_file), result_path(region_file))


def _dumps(result: Result) -> bytes:
    try:
        return pickle.dumps(result, PROTOCOL)
    except Exception:  # of a class that only a script knows
        import cloudpickle

        dumped: bytes = cloudpickle.dumps(result, PROTOCOL)
        return dumped


def dump_results(results: Iterable[Result], path: Path) -> None:
    """Write the list of results.

    Raises
    ------
    TreatmentError
        If it cannot be written, naming the file.
    """
    content = packed(path, pickle.dumps(list(results), 5))
    write(path, lambda part: part.write_bytes(content), len(content))


def load_results(path: str | os.PathLike[str]) -> list[Result]:
    """Read the list of results that a treatment has written. It is a pickle: trust who wrote it."""
    results: list[Result] = pickle.loads(unpacked(Path(path).read_bytes()))
    return results


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the results of the regions whose analysis has failed."""
    return [result for result in results if result[2] != OK]
