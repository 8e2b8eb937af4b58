"""A treatment as jobs: split into regions, one job for each, merge, bring the result back, clean up."""

from __future__ import annotations

from pyhrf_parallel.lazy import attributes

TYPE_CHECKING = bool()  # noqa: UP018  (False, and editors do not look at what that leaves out)
if TYPE_CHECKING:
    from pyhrf_parallel.treatment_jobs.pyhrf_api import (
        prepare_treatment_jobs,
        run_soma_workflow,
        save_treatment,
    )
    from pyhrf_parallel.treatment_jobs.read_results import load_results
    from pyhrf_parallel.treatment_jobs.submit import submit_treatments
    from pyhrf_parallel.treatment_jobs.treatment import JobTreatment, Treatment
    from pyhrf_parallel.treatment_jobs.treatment_run import TreatmentRun

__all__ = [
    "JobTreatment",
    "Treatment",
    "TreatmentRun",
    "load_results",
    "prepare_treatment_jobs",
    "run_soma_workflow",
    "save_treatment",
    "submit_treatments",
]

if not TYPE_CHECKING:  # to type checkers, any other name is an error
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "JobTreatment": "treatment_jobs.treatment",
            "Treatment": "treatment_jobs.treatment",
            "TreatmentRun": "treatment_jobs.treatment_run",
            "load_results": "treatment_jobs.read_results",
            "prepare_treatment_jobs": "treatment_jobs.pyhrf_api",
            "run_soma_workflow": "treatment_jobs.pyhrf_api",
            "save_treatment": "treatment_jobs.pyhrf_api",
            "submit_treatments": "treatment_jobs.submit",
        },
    )
