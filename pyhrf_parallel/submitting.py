"""`submit_map`: start a map, on a cluster or here, and leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, overload

from pyhrf_parallel.configuration import ConfigSource
from pyhrf_parallel.runs.preview import Preview, preview_run
from pyhrf_parallel.runs.run import MapRun
from pyhrf_parallel.runs.starting import start_run
from pyhrf_parallel.tasks import Args, Kwargs, OnError, prepare


@overload
def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    n_jobs: int | None = None,
    on_error: OnError = "raise",
    timeout: float | None = None,
    retries: int = 0,
    resources: Mapping[str, Any] | None = None,
    config: ConfigSource = None,
    dry_run: Literal[False] = False,
) -> MapRun: ...


@overload
def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    n_jobs: int | None = None,
    on_error: OnError = "raise",
    timeout: float | None = None,
    retries: int = 0,
    resources: Mapping[str, Any] | None = None,
    config: ConfigSource = None,
    dry_run: Literal[True],
) -> Preview: ...


def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    n_jobs: int | None = None,
    on_error: OnError = "raise",
    timeout: float | None = None,
    retries: int = 0,
    resources: Mapping[str, Any] | None = None,
    config: ConfigSource = None,
    dry_run: bool = False,
) -> MapRun | Preview:
    """Start a map as jobs of the configured cluster, or without one of this machine; return at once.

    The run goes on when this process ends: `MapRun.load` or ``pyhrf-parallel collect`` gets the results
    later.

    Parameters
    ----------
    func, largs, lkwargs, n_jobs, on_error, timeout, retries, resources, config
        As in `remote_map`. `n_jobs` is how many jobs share the tasks.
    dry_run : bool
        Start nothing and connect nowhere: return what would be sent and started.

    Returns
    -------
    MapRun
        Or, with `dry_run`, a `pyhrf_parallel.runs.preview.Preview`, which can be printed.

    Raises
    ------
    ClusterError, TransferError
        If the run cannot be started.
    Exception
        All that `remote_map` raises before a task runs.
    """
    work, configuration = prepare(
        func, largs, lkwargs, n_jobs=n_jobs, on_error=on_error, timeout=timeout, retries=retries, resources=resources,
        config=config,
    )  # fmt: skip
    return preview_run(work, configuration) if dry_run else start_run(work, configuration)
