"""The results of a treatment: one for each region, as pyhrf has them. What workers import, and no more."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pyhrf_parallel.errors import ArgumentError, TreatmentError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.treatment_jobs.region_files import OK, PROTOCOL, failed_result, result_path
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.pickling import dumps
from pyhrf_parallel.treatments.region_data import Estimates, ROIData, checked

Analyser = Callable[[ROIData], Any]
#: The module of those that change nothing; imported when it is needed: it needs nilearn.
OUR_ANALYSERS = "pyhrf_parallel.treatments.analysers"
#: Of a region that was not analysed.
NO_VOXELS = "no voxel with a usable signal: constant, not finite, or of mean <= 0 in a run"
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


def check_analyser(analyser: Any) -> None:
    """Check that an analyser can be called with the data of a region.

    Raises
    ------
    ArgumentError
        If it cannot, or is a class whose instances can.
    """
    if isinstance(analyser, type) and any("__call__" in vars(kind) for kind in analyser.__mro__):
        raise ArgumentError(
            f"the analyser is the class {analyser.__name__}: give an instance, {analyser.__name__}(...)"
        )
    if not callable(analyser):
        raise ArgumentError(
            f"the analyser is of type {type(analyser).__name__}, and has to be a function of an ROIData"
        )


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
        found = analyser(_own_copy(analyser, roi))
        if isinstance(found, Estimates):
            found = checked(found, roi.n_voxels)
    except SystemExit as error:
        failure = TreatmentError(f"the analysis has called sys.exit({error.code!r})")
        report = f"{traceback.format_exc()}{type(failure).__name__}: {failure}"
        return failed_result(roi.without_signals(), report), failure
    except Exception as error:
        return failed_result(roi.without_signals(), traceback.format_exc()), error
    return (roi.without_signals(), found, OK), None


def _own_copy(analyser: Analyser, roi: ROIData) -> ROIData:
    """Return what an analyser may change: events and confounds are those of all regions."""
    if type(analyser).__module__ == OUR_ANALYSERS:
        return roi
    confounds = None if roi.confounds is None else [table.copy() for table in roi.confounds]
    events = [table.copy() for table in roi.events]
    return replace(roi, events=events, confounds=confounds, voxels=roi.voxels.copy())


def load_region(path: str | os.PathLike[str]) -> ROIData:
    """Read the data of a region. They are a pickle: trust who wrote it."""
    roi: ROIData = pickle.loads(Path(path).read_bytes())
    return roi


def leave_result(analyser: Analyser, roi: ROIData, output: Path) -> None:
    """Analyse one region and write the result; if the analysis fails, that is written, and raised."""
    result, failure = _attempt(analyser, roi)
    write_then_rename(output, dumps(result, PROTOCOL))
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


def dump_results(results: Sequence[Result]) -> tuple[list[Result], bytes]:
    """Pickle the list of results; return it as it was pickled, and the pickle.

    What one region has found and cannot be pickled fails that region.
    """
    try:
        return list(results), dumps(list(results), 5)
    except Exception:
        fitting = [_or_failed(result) for result in results]
        return fitting, dumps(fitting, 5)


def _or_failed(result: Result) -> Result:
    try:
        dumps(result, PROTOCOL)
    except Exception as error:
        reason = f"its result cannot be pickled: {type(error).__name__}: {error}"
        return failed_result(result[0], reason.partition("\n")[0])
    return result


def that_fit(results: Iterable[Result]) -> list[Result]:
    """Return results whose maps fit together: a map of another number of values has failed."""
    widths: dict[str, tuple[int, tuple[int, ...]]] = {}
    fitting = []
    for roi, found, report in results:
        told = report
        maps = found.maps if report == OK and isinstance(found, Estimates) else {}
        for name, values in maps.items():
            first, width = widths.setdefault(name, (roi.roi_id, values.shape[1:]))
            if values.shape[1:] != width:
                told = (
                    f"map {name!r} has {_tell(values.shape[1:])} for each voxel, and {_tell(width)} in "
                    f"region {first}"
                )
        fitting.append((roi, found, told))
    return fitting


def _tell(width: tuple[int, ...]) -> str:
    return f"{width[0]} values" if width else "one value"


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the results of the regions whose analysis has failed."""
    return [result for result in results if result[2] not in {OK, NO_VOXELS}]
