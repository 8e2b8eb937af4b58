"""The plan of a run: how many jobs, and what each asks for."""

from __future__ import annotations

import shlex
from typing import Any

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine import slurm
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.tasks import Work, count_workers

_REFRESH = {"slurm": 0.5}  # seconds between two looks of the engine at its jobs
_HOPELESS_AFTER = 60.0  # seconds; a reason why a job can never start may still go away


def make_plan(settings: Configuration, work: Work) -> Plan:
    """Return the plan of a map on a cluster."""
    wanted = {key: getattr(settings, key) for key in ("mem", "time", "cpus", "queue")} | dict(
        work.options.resources or {}
    )
    wanted = {key: value for key, value in wanted.items() if value is not None}
    native = _native(settings.scheduler, wanted)
    native += shlex.split(settings.native_specification or "")
    n_jobs = work.options.n_jobs or 0  # a negative one counts CPUs, which are not known here
    return Plan(
        len(work),
        min(len(work), n_jobs if n_jobs > 0 else settings.max_jobs),
        work.options.on_error == "raise",
        work.options.retries,
        settings.scheduler,
        wanted.get("queue"),
        native,
        _REFRESH.get(settings.scheduler, 0.1),
        setup=settings.setup or "",
        hopeless_after=_HOPELESS_AFTER,
    )


def make_plan_here(settings: Configuration, work: Work) -> Plan:
    """Return the plan of a map on this machine."""
    workers = count_workers(work.options.n_jobs or settings.nb_procs)
    return Plan(
        len(work),
        min(len(work), workers),
        work.options.on_error == "raise",
        work.options.retries,
    )


def _native(scheduler: str, wanted: dict[str, Any]) -> list[str]:
    """Translate resources to options of the scheduler."""
    if scheduler == "slurm":
        return slurm.options(wanted)
    sizes = [key for key in wanted if key != "queue"]
    if sizes and scheduler != "local_basic":  # which has nobody to ask
        raise ConfigurationError(
            f"{', '.join(sizes)} cannot be translated for scheduler {scheduler!r}; use its own options in "
            "native_specification of [parallel-cluster]"
        )
    return []
