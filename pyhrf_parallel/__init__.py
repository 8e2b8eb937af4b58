"""Map a function over tasks: on one core, on all cores, in subprocesses, or as jobs of a cluster.

A drop-in reimplementation of ``pyhrf.parallel`` for Python 3. Public names are imported on first use, so that
importing this package is fast and needs none of the optional dependencies.
"""

from __future__ import annotations

from pyhrf_parallel.lazy import attributes
from pyhrf_parallel.version import __version__

# Instead of typing's, whose import would be a third of a worker's start. Editors skip the branch of a literal
# False, and cannot tell that bool() is one.
TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from pyhrf_parallel.backends import Mode
    from pyhrf_parallel.errors import (
        ArgumentError,
        BackendUnavailableError,
        ClusterError,
        ConfigurationError,
        NotShippableError,
        ParallelError,
        RemoteException,
        RunNotFoundError,
        TaskLostError,
        TransferError,
        TreatmentDataError,
        TreatmentError,
    )
    from pyhrf_parallel.functions import dump_func, merge_default_kwargs
    from pyhrf_parallel.mapping import remote_map, remote_map_marshal
    from pyhrf_parallel.runs.map_run import MapRun
    from pyhrf_parallel.submitting import submit_map
    from pyhrf_parallel.tasks import MapOptions, OnError, Resources
    from pyhrf_parallel.treatment_jobs import (
        TreatmentRun,
        load_results,
        prepare_treatment_jobs,
        run_soma_workflow,
        save_treatment,
        submit_treatments,
    )

__all__ = [
    "ArgumentError",
    "BackendUnavailableError",
    "ClusterError",
    "ConfigurationError",
    "MapOptions",
    "MapRun",
    "Mode",
    "NotShippableError",
    "OnError",
    "ParallelError",
    "RemoteException",
    "Resources",
    "RunNotFoundError",
    "TaskLostError",
    "TransferError",
    "TreatmentDataError",
    "TreatmentError",
    "TreatmentRun",
    "__version__",
    "dump_func",
    "load_results",
    "merge_default_kwargs",
    "prepare_treatment_jobs",
    "remote_map",
    "remote_map_marshal",
    "run_soma_workflow",
    "save_treatment",
    "submit_map",
    "submit_treatments",
]

_HOMES = {
    "dump_func": "functions",
    "merge_default_kwargs": "functions",
    "remote_map": "mapping",
    "remote_map_marshal": "mapping",
    "MapOptions": "tasks",
    "MapRun": "runs.map_run",
    "Mode": "backends",
    "OnError": "tasks",
    "Resources": "tasks",
    "TreatmentRun": "treatment_jobs",
    "load_results": "treatment_jobs",
    "prepare_treatment_jobs": "treatment_jobs",
    "run_soma_workflow": "treatment_jobs",
    "save_treatment": "treatment_jobs",
    "submit_map": "submitting",
    "submit_treatments": "treatment_jobs",
}

if not TYPE_CHECKING:  # to type checkers, any other name is an error
    __getattr__, __dir__ = attributes(__name__, dict.fromkeys(__all__, "errors") | _HOMES)
