"""Regions of a treatment analysed by a map, in any mode but that of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyhrf_parallel.errors import RemoteException
from pyhrf_parallel.mapping import remote_map
from pyhrf_parallel.treatment_jobs.outcome import TaskFailure
from pyhrf_parallel.treatment_jobs.region_files import crash_report
from pyhrf_parallel.treatments.region_data import ROIData
from pyhrf_parallel.treatments.results import Analyser, Result, analyse_region


def map_regions(
    analyser: Analyser, rois: Sequence[ROIData], **options: Any
) -> tuple[dict[int, Result], list[TaskFailure]]:
    """Analyse regions; return the results by regions, and the failures, each of which is a result, too.

    Parameters
    ----------
    analyser : callable
        Of an `ROIData`.
    rois : sequence of ROIData
        The regions.
    options
        Of `remote_map`: the mode, and how the regions are run there.
    """
    outcomes = remote_map(
        analyse_region, [(analyser, roi) for roi in rois], on_error="return", **options
    )
    found: dict[int, Result] = {}
    failed = []
    for roi, outcome in zip(rois, outcomes, strict=True):
        if isinstance(outcome, RemoteException):  # its worker died
            failed.append(TaskFailure.of_task(roi.roi_id, roi.n_voxels, outcome))
            found[roi.roi_id] = failed[-1].as_result(roi.without_signals())
            continue
        found[roi.roi_id] = outcome
        if report := crash_report(outcome):
            failed.append(TaskFailure.of_report(roi.roi_id, roi.n_voxels, report))
    return found, failed
