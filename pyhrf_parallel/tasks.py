"""The tasks of a map and its options, checked before anything runs."""

from __future__ import annotations

import math
import numbers
import operator
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypedDict

from pyhrf_parallel.amounts import READERS, read_amount
from pyhrf_parallel.configuration import ConfigSource, Configuration, load_configuration
from pyhrf_parallel.errors import ArgumentError, ConfigurationError

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
OnError = Literal["raise", "return"]
Ship = Literal["auto", False] | Sequence[ModuleType | str | os.PathLike[str]]


class Resources(TypedDict, total=False):
    """The resources that a job requests from the scheduler of a cluster."""

    mem: str
    time: str | int
    cpus: int
    queue: str


class JobOptions(TypedDict, total=False):
    """The options of whatever starts jobs; `pyhrf_parallel.remote_map` explains them."""

    n_jobs: int | None
    retries: int
    resources: Resources | None
    config: ConfigSource
    ship: Ship


class MapOptions(JobOptions, total=False):
    """The options of whatever starts a map; `pyhrf_parallel.remote_map` explains them."""

    timeout: float | None


_LONGEST_TIMEOUT = 1e8  # seconds, three years: timers of the system accept no more


@dataclass(frozen=True)
class Options:
    """The checked options of a map; `pyhrf_parallel.remote_map` explains them."""

    n_jobs: int | None = None
    on_error: OnError = "raise"
    timeout: float | None = None
    retries: int = 0
    resources: Mapping[str, Any] | None = None
    ship: Ship = "auto"


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
    if isinstance(shape, tuple) and shape:  # an array: its shape says more than its values
        return f"<{type(value).__name__} {getattr(value, 'dtype', '')} shape={shape}>"
    try:
        return _ellipsis(reprlib.repr(value), 60)
    except Exception:  # a user's __repr__ may fail; the error report must not
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
        `lkwargs` that is not a dict.
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
    # The set of types first, which is fast: there may be many thousand tasks, and nearly all lists are right.
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
    """Return the number of simultaneous tasks; a negative `n_jobs` counts down from all CPUs, as in joblib."""
    if n_jobs is None:
        return available_cpus()
    return n_jobs if n_jobs > 0 else max(1, available_cpus() + 1 + n_jobs)


def prepare(
    func: Callable[..., Any],
    largs: Iterable[Args] | None,
    lkwargs: Iterable[Kwargs] | None,
    on_error: str,
    options: MapOptions,
) -> tuple[Work, Configuration]:
    """Check everything that a map was given; return its tasks and the settings."""
    unknown = options.keys() - MapOptions.__annotations__.keys()
    if unknown:
        raise ArgumentError(
            f"unexpected keyword argument {min(unknown)!r}; accepted: "
            f"on_error, {', '.join(MapOptions.__annotations__)}"
        )
    checked = check_options(
        options.get("n_jobs"), on_error, options.get("timeout"), options.get("retries", 0),
        options.get("resources"), ship=options.get("ship", "auto"),
    )  # fmt: skip
    work = Work(func, *pair_arguments(func, largs, lkwargs), checked)
    return work, load_configuration(options.get("config"))


def check_options(
    n_jobs: int | None,
    on_error: str,
    timeout: float | None,
    retries: int,
    resources: Mapping[str, Any] | None,
    *,
    ship: Ship = "auto",
) -> Options:
    """Return the options of a map.

    Raises
    ------
    ConfigurationError
        For a value that no mode accepts, or an unknown resource.
    """
    wanted = check_on_error(on_error)
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
        None
        if n_jobs is None
        else operator.index(n_jobs),  # plain numbers, since they are written to files
        wanted,
        None if timeout is None else min(float(timeout), _LONGEST_TIMEOUT),
        operator.index(retries),
        _check_resources(resources),
        _check_ship(ship),
    )


def check_on_error(on_error: str) -> OnError:
    """Return what to do about failures.

    Raises
    ------
    ConfigurationError
        For another text than the two.
    """
    if on_error not in ("raise", "return"):
        raise ConfigurationError(f"on_error must be 'raise' or 'return', got {on_error!r}")
    return "return" if on_error == "return" else "raise"


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return 0 < float(value) < math.inf


def _check_ship(ship: object) -> Ship:
    """Return the modules to send, as a list if they are named."""
    if ship is False or ship == "auto":
        return False if ship is False else "auto"
    items = [] if isinstance(ship, str) or not isinstance(ship, Iterable) else list(ship)
    if not items or not all(isinstance(item, (ModuleType, str, os.PathLike)) for item in items):
        raise ConfigurationError(
            f"ship must be 'auto', False, or a list of modules, their names, or paths, got {_short(ship)}"
        )
    return items


def _check_resources(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return resources in the form that a scheduler accepts, whether or not the mode has one."""
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
