"""Analyses of one subject, region by region.

A treatment has data, a parcellation of them into regions of interest, and an analyser that works on one
region at a time: what can be spread over processes and machines. See `ROITreatment` for one that works,
and `Treatment` for what a treatment of your own needs.
"""

from __future__ import annotations

from pyhrf_parallel.treatments.analysers import Estimates, FIRAnalyser, GLMAnalyser
from pyhrf_parallel.treatments.fmri_data import FmriData, ROIData
from pyhrf_parallel.treatments.interface import Treatment
from pyhrf_parallel.treatments.roi_treatment import ROITreatment

__all__ = [
    "Estimates",
    "FIRAnalyser",
    "FmriData",
    "GLMAnalyser",
    "ROIData",
    "ROITreatment",
    "Treatment",
]
