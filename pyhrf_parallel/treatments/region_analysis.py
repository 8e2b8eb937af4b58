"""Analysing one region in a worker: analysers, and how they are called."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
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
#: The module of analysers that do not change their data. It needs nilearn, and is imported when it is used.
OUR_ANALYSERS = "pyhrf_parallel.treatments.analysers"


@runtime_checkable
class ChecksData(Protocol):
    """An analyser that can check the data before any region is analysed."""

    def check(self, data: FmriData) -> None:
        """Raise an error if the data or the analyser itself are wrong."""


@runtime_checkable
class NamesMaps(Protocol):
    """An analyser that knows which maps it will make."""

    def map_names(self, roi: ROIData) -> list[str]:
        """Return the names of the maps; the region needs no voxels."""


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


def analyse(analyser: Analyser, roi: ROIData) -> Any:
    """Call an analyser on a region: the task that travels to workers.

    Returns
    -------
    object
        The result of the analyser.

    Raises
    ------
    Exception
        What the analyser raises; a TreatmentError in the place of a SystemExit.
    TreatmentDataError
        If it returns `Estimates` that cannot be written.
    """
    try:
        found = analyser(_own_copy(analyser, roi))
    except SystemExit as error:
        raise TreatmentError(f"the analysis has called sys.exit({error.code!r})") from error
    return checked(found, roi.n_voxels) if isinstance(found, Estimates) else found


def _own_copy(analyser: Analyser, roi: ROIData) -> ROIData:
    """Return data that an analyser may change: events and confounds are shared by all regions."""
    if type(analyser).__module__ == OUR_ANALYSERS:
        return roi
    confounds = None if roi.confounds is None else [table.copy() for table in roi.confounds]
    events = [table.copy() for table in roi.events]
    return replace(roi, events=events, confounds=confounds, voxels=roi.voxels.copy())


def load_region(path: str | os.PathLike[str]) -> ROIData:
    """Unpickle the data of a region, which has to be of somebody you trust."""
    roi: ROIData = pickle.loads(Path(path).read_bytes())
    return roi


def leave_result(analyser: Analyser, roi: ROIData, output: Path) -> None:
    """Analyse one region and write the result; if the analysis fails, write that, and raise."""
    region = roi.without_signals()
    try:
        content = dumps((region, analyse(analyser, roi), OK), PROTOCOL)
    except Exception:
        failed = failed_result(region, traceback.format_exc())
        write_then_rename(output, dumps(failed, PROTOCOL))
        raise
    write_then_rename(output, content)


class EstimateFile:
    """Analyses the region of a file and writes the result beside it, in jobs.

    Parameters
    ----------
    analyser : callable
        Of a `ROIData`.
    """

    def __init__(self, analyser: Analyser) -> None:
        self._analyser = analyser

    def __call__(self, region_file: str | os.PathLike[str]) -> None:
        """Analyse the region of a file; see `leave_result`."""
        leave_result(self._analyser, load_region(region_file), result_path(region_file))
