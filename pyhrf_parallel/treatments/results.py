"""The results of a treatment: one for each region, as pyhrf has them. What workers import, and no more."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any

from pyhrf_parallel.treatments.fmri_data import ROIData

Analyser = Callable[[ROIData], Any]
#: The region, what its analysis returned, and `OK` or why it returned nothing.
Result = tuple[ROIData, Any, str]

OK = "ok"
RESULT_FILE = "result.pck"


def analyse_region(analyser: Analyser, roi: ROIData) -> Result:
    """Analyse one region: the task that travels to workers.

    As in pyhrf, an analysis that fails is a result: the others of the same treatment are worth keeping.

    Returns
    -------
    tuple
        The region without its signals, what the analyser returned or None, and ``'ok'`` or a traceback.
    """
    try:
        return roi.without_signals(), analyser(roi), OK
    except Exception:
        return roi.without_signals(), None, traceback.format_exc()


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the results of the regions whose analysis has failed."""
    return [result for result in results if result[2] != OK]
