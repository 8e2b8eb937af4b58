"""The results of a treatment: one for each region, as pyhrf has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyhrf_parallel.treatments.fmri_data import ROIData

#: The region, what its analysis returned, and `OK` or why it returned nothing.
Result = tuple[ROIData, Any, str]

OK = "ok"
RESULT_FILE = "result.pck"


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the results of the regions whose analysis has failed."""
    return [result for result in results if result[2] != OK]
