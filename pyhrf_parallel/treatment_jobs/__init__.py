"""A treatment as jobs: split into regions, one job for each, merge, bring the result back, clean up."""

from __future__ import annotations

TYPE_CHECKING = (
    False  # names are imported when they are used: commands start without the cluster's side
)
if TYPE_CHECKING:
    from typing import Any

    from pyhrf_parallel.treatment_jobs.dispatching import run_soma_workflow, submit_treatments
    from pyhrf_parallel.treatment_jobs.interface import Treatment
    from pyhrf_parallel.treatment_jobs.runs import TreatmentRun
    from pyhrf_parallel.treatment_jobs.saving import save_treatment
    from pyhrf_parallel.treatment_jobs.soma_jobs import prepare_treatment_jobs

__all__ = [
    "Treatment",
    "TreatmentRun",
    "prepare_treatment_jobs",
    "run_soma_workflow",
    "save_treatment",
    "submit_treatments",
]

_HOMES = {
    "Treatment": "interface",
    "TreatmentRun": "runs",
    "prepare_treatment_jobs": "soma_jobs",
    "run_soma_workflow": "dispatching",
    "save_treatment": "saving",
    "submit_treatments": "dispatching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
