"""The tasks of one map: their arguments, their options and what has become of them."""

from __future__ import annotations

import math
import numbers
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pyhrf_parallel.amounts import READERS, read_amount
from pyhrf_parallel.errors import (
    ArgumentError,
    ConfigurationError,
    RemoteException,
)

if TYPE_CHECKING:
    from pyhrf_parallel.progress import Report

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
OnError = Literal["raise", "return"]

_PENDING, _DONE, _FAILED = 0, 1, 2
_LONGEST_TIMEOUT = 1e8  # seconds, three years: what a timer of the system takes


@dataclass(frozen=True)
class Options:
    """How a map is to be run; see `pyhrf_parallel.remote_map` for the meaning of each."""

    n_jobs: int | None = None
    on_error: OnError = "raise"
    timeout: float | None = None
    retries: int = 0
    resources: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Work:
    """One function and the arguments of each of its calls."""

    func: Callable[..., Any]
    largs: Sequence[Args]
    lkwargs: Sequence[Kwargs]
    options: Options

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.largs)

    def describe(self, index: int) -> str:
        """Return a short repr of one call, ``'foo(2, b=5)'``."""
        args = [_short(value) for value in self.largs[index]]
        args += [f"{key}={_short(value)}" for key, value in self.lkwargs[index].items()]
        name = getattr(self.func, "__name__", None) or _short(self.func)
        return _ellipsis(f"{name}({', '.join(args)})", 200)


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:  # an array: its values say less than its size
        return f"<{type(value).__name__} {getattr(value, 'dtype', '')} shape={shape}>"
    try:
        return _ellipsis(reprlib.repr(value), 60)
    except Exception:  # the repr of a user's class may fail; the error report must not
        return f"<{type(value).__name__}>"


def _ellipsis(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 4]} ...{text[-1]}"


def pair_arguments(
    func: object, largs: Iterable[Args] | None, lkwargs: Iterable[Kwargs] | None
) -> tuple[list[Args], list[Kwargs]]:
    """Check the argument lists and fill in the one that was not given.

    Raises
    ------
    ArgumentError
        For a function that cannot be called, an item of `largs` that is not a tuple, an item of
        `lkwargs` that is no dict.
    ArgumentError
        For lists of different lengths.
    """
    if not callable(func):
        raise ArgumentError(f"func must be callable, got {_short(func)} ({type(func).__name__})")
    positional = _items("largs", largs)
    named = _items("lkwargs", lkwargs)
    if positional is None:
        positional = [()] * (1 if named is None else len(named))
    if named is None:
        named = [{}] * len(positional)
    _check_items(positional, (tuple, list), "largs", "tuple", "[(x,) for x in items]")
    _check_items(named, (dict, Mapping), "lkwargs", "dict", "[{'name': x} for x in items]")
    if len(positional) != len(named):
        raise ArgumentError(
            f"largs has {len(positional)} items but lkwargs has {len(named)}: "
            "each task takes one of both"
        )
    return positional, named


def _items(name: str, values: Iterable[Any] | None) -> list[Any] | None:
    if values is None:
        return None
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ArgumentError(
            f"{name} must be a list with one item per task, got {_short(values)} "
            f"({type(values).__name__})"
        )
    return list(values)


def _check_items(
    items: list[Any], accepted: tuple[type, ...], name: str, wanted: str, hint: str
) -> None:
    # The set of types first: lists of many thousand tasks are common, and nearly all are right.
    if all(issubclass(kind, accepted) for kind in set(map(type, items))):
        return
    index, item = next((i, v) for i, v in enumerate(items) if not isinstance(v, accepted))
    raise ArgumentError(
        f"{name}[{index}] must be a {wanted} with the arguments of one call, got {_short(item)} "
        f"({type(item).__name__}); did you mean {hint}?"
    )


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_workers(n_jobs: int | None) -> int:
    """Return the number of simultaneous tasks: a negative `n_jobs` counts from all CPUs, as in joblib."""
    if n_jobs is None:
        return available_cpus()
    return n_jobs if n_jobs > 0 else max(1, available_cpus() + 1 + n_jobs)


def check_options(
    n_jobs: int | None, on_error: str, timeout: float | None, retries: int
) -> Options:
    """Return the options of a map.

    Raises
    ------
    ConfigurationError
        For one that no mode takes.
    """
    if on_error not in ("raise", "return"):
        raise ConfigurationError(f"on_error must be 'raise' or 'return', got {on_error!r}")
    if n_jobs is not None and (not _is_integer(n_jobs) or n_jobs == 0):
        raise ConfigurationError(
            f"n_jobs must be a positive or negative integer, or None, got {n_jobs!r}"
        )
    if not _is_integer(retries) or retries < 0:
        raise ConfigurationError(f"retries must be an integer from 0 on, got {retries!r}")
    if timeout is not None and not _is_duration(timeout):
        raise ConfigurationError(
            f"timeout must be a positive number of seconds, or None, got {timeout!r}"
        )
    return Options(
        None if n_jobs is None else operator.index(n_jobs),  # plain numbers: they go into files
        "return" if on_error == "return" else "raise",
        None if timeout is None else min(float(timeout), _LONGEST_TIMEOUT),
        operator.index(retries),
    )


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return 0 < float(value) < math.inf


def check_resources(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return resources as they are asked for, be there somebody to ask or not.

    Raises
    ------
    ConfigurationError
        For an unknown one, or a value that no scheduler would take, with what is accepted.
    """
    if not isinstance(resources, Mapping | None):
        raise ConfigurationError(
            f"resources must be a dict like {{'mem': '4G'}}, or None, got {resources!r}"
        )
    wanted = dict(resources or {})
    unknown = [key for key in wanted if key not in READERS]
    if unknown:
        raise ConfigurationError(
            f"Unknown resource {unknown[0]!r}; accepted: {', '.join(READERS)} (others go to "
            "native_specification of [parallel-cluster])"
        )
    try:
        return {key: read_amount(key, wanted[key]) for key in wanted if wanted[key] is not None}
    except ValueError as error:
        raise ConfigurationError(f"resources, {error}") from None


class Ledger:
    """Which tasks have returned or failed, and which still have to be run.

    Parameters
    ----------
    tasks : int
        Their number.
    stop_at_failure : bool
        Whether nothing after the first failing task is needed.
    """

    def __init__(self, tasks: int, *, stop_at_failure: bool) -> None:
        self._state = bytearray(tasks)
        self._stop_at_failure = stop_at_failure

    def note_returned(self, start: int, count: int = 1) -> None:
        """Note that consecutive tasks have returned."""
        self._state[start : start + count] = bytes([_DONE]) * count

    def note_failed(self, index: int) -> None:
        """Note that a task has failed."""
        self._state[index] = _FAILED

    def has_returned(self, index: int) -> bool:
        """Return whether a task has returned."""
        return self._state[index] == _DONE

    def is_settled(self, index: int) -> bool:
        """Return whether a task has returned or failed."""
        return self._state[index] != _PENDING

    @property
    def settled(self) -> int:
        """The number of tasks that have returned or failed."""
        return len(self._state) - self._state.count(_PENDING)

    @property
    def failed(self) -> int:
        """The number of tasks that have failed."""
        return self._state.count(_FAILED)

    @property
    def limit(self) -> int:
        """Tasks from this index on need not be started: the map has failed before them."""
        first = self._state.find(_FAILED) if self._stop_at_failure else -1
        return first if first >= 0 else len(self._state)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for: all has ended, or the first failure is certain."""
        return self._state.find(_PENDING, 0, self.limit) < 0

    def pending(self) -> list[tuple[int, int]]:
        """Return the tasks that still have to be run, as half-open index ranges."""
        ranges = []
        stop, limit = 0, self.limit
        while (start := self._state.find(_PENDING, stop, limit)) >= 0:
            ends = (self._state.find(code, start, limit) for code in (_DONE, _FAILED))
            stop = min((end for end in ends if end >= 0), default=limit)
            ranges.append((start, stop))
        return ranges


class Outcomes(Ledger):
    """What has become of the tasks so far.

    Parameters
    ----------
    work : Work
        The tasks.
    on_progress : Report, optional
        Told what is new.
    """

    def __init__(self, work: Work, on_progress: Report | None = None) -> None:
        super().__init__(len(work), stop_at_failure=work.options.on_error == "raise")
        self.work = work
        self.on_progress = on_progress
        self.values: list[Any] = [None] * len(work)
        self.failures: dict[int, RemoteException] = {}

    def succeed(self, start: int, values: Sequence[Any]) -> None:
        """Take the values of consecutive tasks."""
        if not values:
            return
        self.values[start : start + len(values)] = values
        new = len(values)
        if self.failures:  # some may have failed in an earlier attempt
            for index in range(start, start + len(values)):
                new -= self.failures.pop(index, None) is not None
        self.note_returned(start, len(values))
        if self.on_progress and new:
            self.on_progress(new, 0)

    def fail(self, failure: RemoteException) -> None:
        """Take the failure of one task."""
        index = failure.index
        assert index is not None  # noqa: S101  (a failure without a task is no failure of a task)
        failure.call = failure.call or self.work.describe(index)
        self.failures[index] = failure
        self.note_failed(index)
        if self.on_progress:
            self.on_progress(1, 1)

    def show(self, report: Report | None) -> None:
        """Report from now on what is new, after what is known already; None for nobody."""
        self.on_progress = report
        if report and self.settled:
            report(self.settled, self.failed)

    def note_jobs(self, text: str) -> None:
        """Let the user see how the jobs are that run the tasks."""
        if self.on_progress:
            self.on_progress(0, 0, text)

    def first_failure(self) -> RemoteException | None:
        """Return the failure with the lowest index, knowing of all the others."""
        if not self.failures:
            return None
        ordered = tuple(self.failures[index] for index in sorted(self.failures))
        ordered[0].failures = ordered
        return ordered[0]
