"""Mode ``'local'``: all CPUs of this machine, through joblib."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pyhrf_parallel.backends.local.dispatcher import Dispatcher
from pyhrf_parallel.backends.local.pools import PoolSettings, give_back, start_pool
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ClusterError, ConfigurationError
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.shipping import LARGE, write_payload
from pyhrf_parallel.tasks import Args, Kwargs, Work, available_cpus, count_workers
from pyhrf_parallel.worker.records import absorb, lost, raised
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.serving import serve

_BATCHES_PER_WORKER = 16
_HOPELESS = 3  # consecutive rounds in which no process ran a task

RAISES_ORIGINAL = True


def run(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
    """Run tasks in joblib's processes, or on the backend that the user has set for joblib."""
    joblib = require("joblib", "local", "local")
    backend, n_jobs = joblib.parallel.get_active_backend()
    # In order of precedence: the call, joblib.parallel_config, the configuration file.
    n_jobs = work.options.n_jobs or n_jobs or configuration.nb_procs
    if isinstance(backend, joblib.parallel.BACKENDS["loky"]):
        n_jobs = count_workers(n_jobs)
        if multiprocessing.current_process().daemon:  # which may not have child processes
            with joblib.parallel_config("sequential"):
                _run_in_batches(joblib, 1, outcomes, "SequentialBackend")
        else:
            _Processes(joblib, backend, n_jobs, configuration.niceness).run(outcomes)
    else:
        _run_in_batches(joblib, n_jobs or available_cpus(), outcomes, type(backend).__name__)


def _settings(joblib: ModuleType) -> dict[str, Any]:
    """Return the settings of `joblib.parallel_config`, for which joblib has no public function."""
    parallel = joblib.Parallel(n_jobs=2)
    found: dict[str, Any] = getattr(
        parallel,
        "_backend_kwargs",
        getattr(parallel, "_backend_args", {}),  # before joblib 1.5
    )
    return found


class _Processes:
    """Run rounds of serving processes until all tasks have an outcome."""

    def __init__(self, joblib: ModuleType, backend: Any, n_jobs: int, niceness: int) -> None:
        self._joblib = joblib
        self._n_jobs = n_jobs
        self._niceness = niceness
        self._settings = PoolSettings.of(backend, n_jobs, niceness)
        self._nested = backend.get_nested_backend()

    def run(self, outcomes: Outcomes) -> None:
        settings = _settings(self._joblib)
        parent = settings.get("temp_folder") or os.environ.get("JOBLIB_TEMP_FOLDER")
        large = settings.get("max_nbytes", LARGE)
        deaths: Counter[int] = Counter()
        suspects: list[int] = []
        idle_rounds = 0
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)  # as joblib does
        with private_directory(parent) as directory:
            while not outcomes.complete:
                before = outcomes.settled
                ranges = [(i, i + 1) for i in suspects] or outcomes.pending()
                # One suspect at a time, so that the next death has one possible cause.
                workers = 1 if suspects else min(self._n_jobs, len(outcomes.work))
                dispatcher = Dispatcher(directory, outcomes, ranges, workers)
                verdict = self._round(dispatcher, large)
                suspects = sorted({i for i in dispatcher.suspects if i >= 0})
                idle_rounds = 0 if suspects or outcomes.settled > before else idle_rounds + 1
                if idle_rounds == _HOPELESS:
                    raise ClusterError(f"No worker process stays alive: {verdict}")
                if len(suspects) == 1:
                    _account(suspects.pop(), deaths, verdict, outcomes)

    def _round(self, dispatcher: Dispatcher, large: int | None) -> str:
        """Run one round; return how a process died, ``''`` if none did."""
        address = dispatcher.open()
        arguments = str(dispatcher.directory), address, self._niceness
        job = partial(_serve, self._nested, *arguments)
        try:
            pool = start_pool(
                self._joblib, self._settings, dispatcher.workers, job, dispatcher.wake
            )
        except BaseException:
            dispatcher.close()
            raise
        whole = False
        try:
            payload = Path(RunPaths(dispatcher.directory).payload)
            if not payload.exists():  # while the processes start
                write_payload(payload, dispatcher.outcomes.work, large=large)
            dispatcher.serve()
            whole = dispatcher.outcomes.complete and not dispatcher.killed
        finally:
            if whole:
                dispatcher.close()
                give_back(pool)
            else:
                dispatcher.abort()
                dispatcher.close()
                pool.end()
        return "" if whole else pool.verdict()


def _serve(nested: tuple[Any, int | None], *arguments: Any) -> None:
    """Serve a dispatcher, with nested calls of joblib configured as in joblib's own processes."""
    import joblib

    backend, n_jobs = nested
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        serve(*arguments)


def _account(index: int, deaths: Counter[int], verdict: str, outcomes: Outcomes) -> None:
    deaths[index] += 1
    if deaths[index] > outcomes.work.options.retries:
        absorb([lost(index, verdict or "its process died")], outcomes)


def _run_in_batches(joblib: ModuleType, n_jobs: int, outcomes: Outcomes, backend: str) -> None:
    """Run on another backend that the user chose, whose workers may be threads or on other machines."""
    work = outcomes.work
    if work.options.timeout is not None or work.options.retries:
        raise ConfigurationError(
            f"timeout= and retries= cannot be honoured on joblib's {backend}, which can neither stop a "
            "task nor tell which one a process died of; they can on joblib's default backend, loky"
        )
    size = max(1, len(work) // (_BATCHES_PER_WORKER * abs(n_jobs)))
    parts = [slice(start, start + size) for start in range(0, len(work), size)]
    batches = (
        joblib.delayed(_run_batch)(work.func, part.start, work.largs[part], work.lkwargs[part])
        for part in parts
    )
    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that returns its results only at the end
        parallel = joblib.Parallel(n_jobs=n_jobs)
    with warnings.catch_warnings():  # joblib warns of batches that are no longer needed
        warnings.simplefilter("ignore")
        results = parallel(batches)
        for start, values, failures in results:
            _settle(start, values, failures, outcomes)
            if outcomes.complete:
                break
        del results


def _run_batch(
    func: Any, start: int, largs: list[Args], lkwargs: list[Kwargs]
) -> tuple[int, list[Any], dict[int, Any]]:
    values, failures = [], {}
    for index, (args, kwargs) in enumerate(zip(largs, lkwargs, strict=True), start):
        try:
            values.append(func(*args, **kwargs))
        except Exception as error:
            values.append(None)
            failures[index] = raised(index, error)
    return start, values, failures


def _settle(start: int, values: list[Any], failures: dict[int, Any], outcomes: Outcomes) -> None:
    for index, value in enumerate(values, start):
        if index in failures:
            absorb([failures[index]], outcomes)
        else:
            outcomes.succeed(index, [value])
