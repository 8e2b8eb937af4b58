"""Start a map that outlives this process: `submit_map`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Unpack, overload

from pyhrf_parallel.mapping import show_options
from pyhrf_parallel.runs.map_run import MapRun
from pyhrf_parallel.runs.preview import Preview, preview_run
from pyhrf_parallel.runs.starting import start_run
from pyhrf_parallel.tasks import Args, Kwargs, MapOptions, OnError, prepare


@overload
def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    on_error: OnError = "raise",
    dry_run: Literal[False] = False,
    **options: Unpack[MapOptions],
) -> MapRun: ...


@overload
def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    on_error: OnError = "raise",
    dry_run: Literal[True],
    **options: Unpack[MapOptions],
) -> Preview: ...


def submit_map(
    func: Callable[..., Any],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    *,
    on_error: OnError = "raise",
    dry_run: bool = False,
    **options: Unpack[MapOptions],
) -> MapRun | Preview:
    """Start a map as jobs of the configured cluster, or without one of this machine; return at once.

    The run goes on when this process ends: `MapRun.load` or ``pyhrf-parallel collect`` gets the results
    later.

    Parameters
    ----------
    func, largs, lkwargs, on_error
        As in `remote_map`.
    dry_run : bool
        Start nothing and connect nowhere: return what would be sent and started.
    **options
        As in `remote_map`: `n_jobs` (how many jobs share the tasks), `timeout` (seconds per call), `retries`
        (of a task whose process died), `resources` (``{'mem': '4G', 'time': '01:00:00', 'cpus': 2,
        'queue': 'long'}``), `config` (a file, or a mapping) and `ship` (your own modules).

    Returns
    -------
    MapRun
        Or, with `dry_run`, a `pyhrf_parallel.runs.preview.Preview`, which can be printed.

    Raises
    ------
    ClusterError, TransferError
        If the run cannot be started.
    Exception
        Everything that `remote_map` raises before a task runs.
    """
    work, configuration = prepare(func, largs, lkwargs, on_error, options)
    return preview_run(work, configuration) if dry_run else start_run(work, configuration)


show_options(submit_map)
