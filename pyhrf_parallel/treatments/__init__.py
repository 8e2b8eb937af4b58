"""Analyses of one subject, region by region.

A treatment has data, a parcellation of them into regions of interest, and an analyser that works on one
region at a time: what can be spread over processes and machines. See `ROITreatment` for one that works,
and `Treatment` for what a treatment of your own needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # names are imported when they are used: commands start without nilearn
if TYPE_CHECKING:
    from typing import Any

    from pyhrf_parallel.treatment_jobs.interface import Treatment
    from pyhrf_parallel.treatments.analysers import Estimates, FIRAnalyser, GLMAnalyser
    from pyhrf_parallel.treatments.fmri_data import FmriData, ROIData
    from pyhrf_parallel.treatments.roi_treatment import ROITreatment, load_results

__all__ = [
    "Estimates",
    "FIRAnalyser",
    "FmriData",
    "GLMAnalyser",
    "ROIData",
    "ROITreatment",
    "Treatment",
    "load_results",
]

_HOMES = {
    "Estimates": "treatments.analysers",
    "FIRAnalyser": "treatments.analysers",
    "FmriData": "treatments.fmri_data",
    "GLMAnalyser": "treatments.analysers",
    "ROIData": "treatments.fmri_data",
    "ROITreatment": "treatments.roi_treatment",
    "Treatment": "treatment_jobs.interface",
    "load_results": "treatments.roi_treatment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"pyhrf_parallel.{_HOMES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
