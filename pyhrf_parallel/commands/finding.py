"""Finding a run by its id, or the beginning of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyhrf_parallel.errors import RunNotFoundError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.manifests import Manifest
    from pyhrf_parallel.runs.map_run import MapRun
    from pyhrf_parallel.treatment_jobs import TreatmentRun

_LAST = "last"


def known_runs() -> list[Manifest]:
    """Return all runs of this account, oldest first."""
    from pyhrf_parallel.runs.manifests import list_runs

    return list_runs()


def find(text: str) -> MapRun | TreatmentRun:
    """Return the run that a user means.

    Parameters
    ----------
    text : str
        Its id, the beginning of it, or ``'last'``.

    Raises
    ------
    RunNotFoundError
        If there is none, or more than one.
    """
    run_ids = [manifest.run_id for manifest in known_runs()]
    fitting = run_ids[-1:] if text == _LAST else [i for i in run_ids if i.startswith(text)]
    fitting = [text] if text in fitting else fitting
    if len(fitting) == 1:
        return _load(fitting[0])
    if not run_ids:
        raise RunNotFoundError(
            "There are no runs: none was submitted from here, or all were cleaned"
        )
    if not fitting:
        raise RunNotFoundError(f"No run begins with {text!r}; known: {', '.join(run_ids)}")
    raise RunNotFoundError(
        f"{len(fitting)} runs begin with {text!r}: {', '.join(fitting)}; give more letters"
    )


def _load(run_id: str) -> MapRun | TreatmentRun:
    from pyhrf_parallel.runs.manifests import load_manifest

    if load_manifest(run_id).treatments:
        from pyhrf_parallel.treatment_jobs import TreatmentRun

        return TreatmentRun.load(run_id)
    from pyhrf_parallel.runs.map_run import MapRun

    return MapRun.load(run_id)


def cluster_of(manifest: Manifest) -> str:
    """Return the name of the cluster that a run is on."""
    if manifest.here:
        return "(this machine)"
    settings = manifest.settings
    return str(settings.get("server") or settings.get("server_id"))
