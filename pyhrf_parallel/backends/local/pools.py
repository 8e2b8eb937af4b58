"""Processes for mode ``'local'``, which joblib's loky starts and which belong to one map at a time.

joblib itself shares its processes among all calls of this process. But a map kills a process whose task takes
too long, and loky kills the other processes of a pool when one dies, so that nobody else may use them. When a
map has succeeded, its processes wait for the next one.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.worker.launch import describe_death
from pyhrf_parallel.worker.serving import begin

_MOST = 1024  # processes of a map


@dataclass(frozen=True)
class PoolSettings:
    """The settings that processes are started with; processes of an earlier map are reused if theirs are equal.

    Attributes
    ----------
    environment : tuple of (str, str)
        Variables that limit the threads of libraries.
    niceness : int
        The scheduling priority of the processes, which they cannot raise again.
    idle : float
        Seconds after which an idle process ends.
    initializer, initargs : callable, tuple
        The function that each process calls first, and its arguments; None for none.
    """

    environment: tuple[tuple[str, str], ...]
    niceness: int
    idle: float
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]

    @classmethod
    def of(cls, backend: Any, n_jobs: int, niceness: int) -> Self:
        """Return the settings of `joblib.parallel_config`, or joblib's defaults, for this number of processes."""
        options = getattr(backend, "backend_kwargs", {})  # since joblib 1.5
        return cls(
            tuple(sorted(backend._prepare_worker_env(n_jobs).items())),  # noqa: SLF001  (no public way)
            niceness,
            options.get("idle_worker_timeout") or 300,
            options.get("initializer"),
            tuple(options.get("initargs", ())),
        )


class Pool:
    """Processes that each run one job.

    Parameters
    ----------
    joblib : module
        The package.
    settings : PoolSettings
        The settings that the processes are started with.
    """

    def __init__(self, joblib: ModuleType, settings: PoolSettings) -> None:
        executors = joblib.externals.loky.process_executor
        self.settings = settings
        self._ended: type[Exception] = executors.ShutdownExecutorError
        # The most that any map may want: the queue, made once, has to hold a job for each process.
        self._executor = executors.ProcessPoolExecutor(
            _MOST,
            timeout=settings.idle,
            initializer=begin,
            initargs=(os.getpid(), settings.initializer, settings.initargs),
            env=dict(settings.environment),
        )
        self._futures: list[Future[None]] = []

    def submit(self, jobs: int, job: Callable[[], None], over: Callable[[], None]) -> None:
        """Run a job in each of so many processes; `over` is called from a thread when all have ended."""
        left = [jobs]
        lock = threading.Lock()

        def count(_: object) -> None:
            with lock:
                left[0] -= 1
                if left[0]:
                    return
            over()

        # Before loky determines how many processes are missing.
        self._executor._max_workers = jobs  # noqa: SLF001
        self._futures = [self._executor.submit(job) for _ in range(jobs)]
        for future in self._futures:
            future.add_done_callback(count)

    def retire(self) -> None:
        """Let the processes end when they are idle."""
        self._executor.shutdown(wait=False)

    def end(self) -> None:
        """Kill the processes, and wait for their end."""
        # Jobs that loky's thread has not handed out yet: it would look for them after it has dropped them.
        with suppress(queue.Empty):
            while True:
                self._executor._work_ids.get_nowait()  # noqa: SLF001
        self._executor.shutdown(wait=True, kill_workers=True)

    def verdict(self) -> str:
        """Return how a process died, ``''`` if none did.

        Raises
        ------
        Exception
            If a job raised it.
        """
        wait(self._futures)
        for future in self._futures:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                return _how_it_died(str(error))
            if error is not None and not isinstance(error, self._ended):
                raise error
        return ""


class _Waiting:
    """Keep at most one pool for the next map, of this process and not of its forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._parents: list[Pool] = []

    def exchange(self, pool: Pool | None) -> Pool | None:
        """Keep another pool; return the one that was kept."""
        with self._lock:
            earlier, self._pool = self._pool, pool
        return earlier

    def forget(self) -> None:
        """Leave the parent's processes alone in a fork; they do not even end with the pool object."""
        self._lock = threading.Lock()
        if self._pool is not None:
            self._parents.append(self._pool)
        self._pool = None


_waiting = _Waiting()
os.register_at_fork(after_in_child=_waiting.forget)


def start_pool(
    joblib: ModuleType,
    settings: PoolSettings,
    jobs: int,
    job: Callable[[], None],
    over: Callable[[], None],
) -> Pool:
    """Run a job in each process, of an earlier map if possible; see `Pool.submit`."""
    earlier = _waiting.exchange(None)
    if earlier is not None and _are_equal(earlier.settings, settings):
        try:
            earlier.submit(jobs, job, over)
        except (BrokenProcessPool, RuntimeError):  # they died while they waited
            earlier.end()
        else:
            return earlier
    elif earlier is not None:
        earlier.retire()
    pool = Pool(joblib, settings)
    try:
        pool.submit(jobs, job, over)
    except OSError as error:
        pool.end()
        raise ClusterError(
            f"{jobs} processes cannot be started: {error.strerror or error}; use a smaller n_jobs, or raise "
            "the limits that ulimit -a shows"
        ) from error
    except BaseException:
        pool.end()
        raise
    return pool


def _are_equal(one: PoolSettings, other: PoolSettings) -> bool:
    try:
        return one == other
    except Exception:  # initargs of joblib.parallel_config may be arrays
        return False


def give_back(pool: Pool) -> None:
    """Keep processes for the next map: their jobs have ended, or are about to."""
    earlier = _waiting.exchange(pool)
    if earlier is not None:  # of a map that ran at the same time
        earlier.retire()


def _how_it_died(message: str) -> str:
    """Return how processes died, from the exit statuses in loky's message: ``{SIGKILL(-9)}``."""
    # There is more than one if several died at once.
    codes = {int(code) for code in re.findall(r"\w+\((-?\d+)\)[,}]", message)}
    return " or ".join(map(describe_death, sorted(codes))) or "its process died"
