"""Analyses of one subject, region by region.

A treatment has data, a parcellation of them into regions of interest, and an analyser that works on one
region at a time: what can be spread over processes and machines. See `ROITreatment` for one that works,
and `Treatment` for what a treatment of your own needs.
"""

from __future__ import annotations

from pyhrf_parallel.lazy import attributes

TYPE_CHECKING = bool()  # noqa: UP018  (False, and editors do not look at what that leaves out)
if TYPE_CHECKING:
    from pyhrf_parallel.treatment_jobs.treatment import JobTreatment, Treatment
    from pyhrf_parallel.treatments.analysers import FIRAnalyser, GLMAnalyser
    from pyhrf_parallel.treatments.fmri_data import FmriData
    from pyhrf_parallel.treatments.region_data import Estimates, ROIData
    from pyhrf_parallel.treatments.roi_treatment import ROITreatment

__all__ = [
    "Estimates",
    "FIRAnalyser",
    "FmriData",
    "GLMAnalyser",
    "JobTreatment",
    "ROIData",
    "ROITreatment",
    "Treatment",
]

if not TYPE_CHECKING:  # to type checkers, any other name is an error
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "Estimates": "treatments.region_data",
            "FIRAnalyser": "treatments.analysers",
            "FmriData": "treatments.fmri_data",
            "GLMAnalyser": "treatments.analysers",
            "JobTreatment": "treatment_jobs.treatment",
            "ROIData": "treatments.region_data",
            "ROITreatment": "treatments.roi_treatment",
            "Treatment": "treatment_jobs.treatment",
        },
    )
