"""Map a function over tasks in one of the four modes: `remote_map` and `remote_map_marshal`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, Unpack, overload

from pyhrf_parallel.backends import Mode, load_backend
from pyhrf_parallel.configuration import ConfigSource
from pyhrf_parallel.errors import RemoteException
from pyhrf_parallel.functions import MarshalledFunction
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import ProgressOption, reporting
from pyhrf_parallel.tasks import Args, Kwargs, MapOptions, OnError, Resources, Ship, prepare

R = TypeVar("R")


# fmt: off
@overload
def remote_map(
    func: Callable[..., R], largs: Iterable[Args] | None = None, lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "serial", *, n_jobs: int | None = None, progress: ProgressOption = None,
    on_error: Literal["raise"] = "raise", timeout: float | None = None, retries: int = 0,
    resources: Resources | None = None, config: ConfigSource = None, ship: Ship = "auto",
) -> list[R]: ...
@overload
def remote_map(
    func: Callable[..., R], largs: Iterable[Args] | None = None, lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "serial", *, n_jobs: int | None = None, progress: ProgressOption = None,
    on_error: OnError, timeout: float | None = None, retries: int = 0,
    resources: Resources | None = None, config: ConfigSource = None, ship: Ship = "auto",
) -> list[R | RemoteException]: ...
# fmt: on
def remote_map(
    func: Callable[..., R],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "serial",
    *,
    n_jobs: int | None = None,
    progress: ProgressOption = None,
    on_error: OnError = "raise",
    timeout: float | None = None,
    retries: int = 0,
    resources: Resources | None = None,
    config: ConfigSource = None,
    ship: Ship = "auto",
) -> list[R] | list[R | RemoteException]:
    """Call a function once for each item of a list of arguments, in parallel.

    Parameters
    ----------
    func : callable
        The function to call. It travels to workers by name where they can import it, and
        by value otherwise: lambdas, closures, functions of a script or notebook, bound methods and
        partials work in every mode.
    largs : list of tuple, optional
        Each item is a tuple with all positional arguments of one call. Empty tuples by default.
    lkwargs : list of dict, optional
        Each item is a dict with all named arguments of one call. Empty dicts by default. With neither
        `largs` nor `lkwargs` the function is called once, without arguments.
    mode : {'serial', 'local', 'local_with_dumps', 'remote_cluster'}
        How execution is distributed:

        - ``'serial'``: single-thread loop in this process;
        - ``'local'``: joblib, on all CPUs of this machine;
        - ``'local_with_dumps'``: each task in a fresh process, one after the other, through files
          as on a cluster: for testing;
        - ``'remote_cluster'``: jobs of soma-workflow, on the cluster that the configuration names, or
          on this machine if it names none.
    n_jobs : int, optional
        Simultaneous tasks; negative as in joblib. By default `nb_procs` of the configuration's
        ``[parallel-local]``, else all CPUs that this process may use. On a cluster, how many jobs
        share the tasks; by default `max_jobs` of ``[parallel-cluster]``.
    progress : bool or callable, optional
        None shows a bar on a terminal or in a notebook once the map has lasted a while, True always,
        False never. A callable is called as ``progress(done, total)``, possibly from a thread.
    on_error : {'raise', 'return'}
        ``'raise'`` fails the map with the first failed task, by index, and does not wait for later ones;
        ``'return'`` puts a `RemoteException` in the place of each result that failed.
    timeout : float, optional
        Seconds that one call may take before it is stopped and counts as failed. Starting the worker,
        imports of the function and loading its arguments do not count; with a `timeout` they may take
        600 s. Not supported in mode ``'serial'``.
    retries : int
        How often a task whose process died is run again.
    resources : dict, optional
        What each job of a cluster asks for: ``mem`` (``'4G'``), ``time`` (``'01:00:00'``), ``cpus``
        (2), ``queue`` (``'long'``). Ignored where there is no scheduler.
    config : path or mapping, optional
        Configuration to use instead of ``~/.pyhrf/config.cfg``.
    ship : {'auto', False} or list of modules, names and paths
        Which of your own modules are sent to a cluster. ``'auto'`` finds those that the function and its
        arguments need, a list adds to these, False sends none and compares no packages. Ignored on
        this machine.

    Returns
    -------
    list
        The results, in the order of the arguments.

    Raises
    ------
    RemoteException
        If a task failed in mode ``'local_with_dumps'`` or ``'remote_cluster'``. The function's own
        exception is its ``__cause__``. In modes ``'serial'`` and ``'local'`` the function's own exception
        is raised instead, with a note that names the task.
    TaskLostError
        If the process of a task died; a RemoteException, in every mode but ``'serial'``.
    ArgumentError, ConfigurationError
        If an argument or option is invalid, or not supported in this mode, before any task runs.
    NotShippableError
        If the function or an argument cannot travel to a worker, before any task runs.
    BackendUnavailableError
        If the mode needs a package that is not installed.
    ClusterError, TransferError
        If the cluster cannot be reached, takes no files, or does not run jobs.
    concurrent.futures.CancelledError
        If the run on the cluster was cancelled from elsewhere.

    Notes
    -----
    Tasks must be safe to run twice: when a process dies, tasks that ran beside it, or that ended in it
    a moment before, may be run again.

    Large numpy arrays among the arguments are written once, however many tasks get them, and
    memory-mapped by the workers (copy-on-write).

    Examples
    --------
    >>> from pyhrf_parallel import remote_map
    >>> def foo(a, b=2): return a + b
    >>> remote_map(foo, [(2,),(3,)], [{'b':5}, {'b':7}])
    [7, 10]
    >>> remote_map(foo, [(2,), ('x',)], on_error='return')[0]
    4
    """
    backend = load_backend(mode)
    work, configuration = prepare(
        func, largs, lkwargs, on_error,
        {"n_jobs": n_jobs, "timeout": timeout, "retries": retries, "resources": resources, "config": config, "ship": ship},
    )  # fmt: skip
    with reporting(progress, len(work), getattr(func, "__name__", mode)) as report:
        outcomes = Outcomes(work, report)
        if len(work):
            backend.run(work, outcomes, configuration)
    return outcomes.results(raise_original=backend.RAISES_ORIGINAL)


def show_options(function: Callable[..., Any]) -> None:
    """Show in the signature of a function, for `help` and editors, the options that it takes as `remote_map` does."""
    own = inspect.signature(function)
    named = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    known = inspect.signature(remote_map).parameters
    options = [known[name] for name in known if name in MapOptions.__annotations__]
    shown = own.replace(parameters=[*named, *options])
    function.__signature__ = shown  # type: ignore[attr-defined]


# fmt: off
@overload
def remote_map_marshal(
    func: Callable[..., R], largs: Iterable[Args] | None = None, lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "local", *, progress: ProgressOption = None,
    on_error: Literal["raise"] = "raise", **options: Unpack[MapOptions],
) -> list[R]: ...
@overload
def remote_map_marshal(
    func: Callable[..., R], largs: Iterable[Args] | None = None, lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "local", *, progress: ProgressOption = None,
    on_error: OnError, **options: Unpack[MapOptions],
) -> list[R | RemoteException]: ...
# fmt: on
def remote_map_marshal(
    func: Callable[..., R],
    largs: Iterable[Args] | None = None,
    lkwargs: Iterable[Kwargs] | None = None,
    mode: Mode = "local",
    *,
    progress: ProgressOption = None,
    on_error: OnError = "raise",
    **options: Unpack[MapOptions],
) -> list[R] | list[R | RemoteException]:
    """Map a function that travels as its bare code object over tasks; otherwise as `remote_map`.

    The other side needs no module that defines the function. The function sees no global names of its
    module, so that it must import in its own body what it uses; in modes ``'serial'`` and ``'local'`` it
    does see them, as in pyhrf. Both sides need the same minor version of Python.

    Parameters
    ----------
    func : function
        A plain Python function; closures are refused.
    largs, lkwargs, mode, progress, on_error
        As in `remote_map`; but without `largs` and `lkwargs` nothing is called, as in pyhrf.
    **options
        `n_jobs`, `timeout`, `retries`, `resources`, `config` and `ship`, each as in `remote_map`.

    Returns
    -------
    list
        The results, in the order of the arguments.

    Raises
    ------
    NotShippableError
        If it is a closure or not a plain function, before any task runs.
    Exception
        Everything that `remote_map` raises.

    Examples
    --------
    >>> remote_map_marshal(lambda x: x + 1, [(1,), (2,)], mode='serial')
    [2, 3]
    """
    if largs is None and lkwargs is None:
        largs = []
    marshalled = MarshalledFunction(func)
    return remote_map(
        func if mode in ("serial", "local") else marshalled, largs, lkwargs, mode, progress=progress,
        on_error=on_error, **options,
    )  # fmt: skip


show_options(remote_map_marshal)
