"""How things are timed: in turns, in one run, medians; and a row of the table."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_PAUSE = 0.05  # seconds, in which what the last measurement left running comes to an end

#: Measures once; returns seconds.
Contender = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    name : str
        The case it belongs to.
    work, measured, compared : str
        What was done, what it took, and what with the thing it is compared with.
    value : float
        The quotient of the two, or whatever else `unit` says.
    target : float or None
        The highest value that is good enough; None for what is there for information.
    unit : str
        Written after both.
    """

    name: str
    work: str
    measured: str
    compared: str
    value: float
    target: float | None = None
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the value is good enough."""
        return self.target is None or self.value <= self.target


def timed(func: Callable[..., object], *args: Any, **kwargs: Any) -> Contender:
    """Return a contender that is the call of a function."""

    def measure() -> float:
        began = time.perf_counter()
        func(*args, **kwargs)
        return time.perf_counter() - began

    return measure


def process(code: str) -> Contender:
    """Return a contender that is a fresh Python process, from its start to its end."""
    command = [sys.executable, "-c", code]
    return timed(subprocess.run, command, cwd=HERE, check=True, stdin=subprocess.DEVNULL)


def in_turns(contenders: Mapping[str, Contender], repetitions: int) -> dict[str, float]:
    """Measure all contenders by turns, so that a busy machine slows them all; return the medians.

    A first round does not count: it starts pools, fills caches and compiles modules.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions + 1):
        for name, contender in contenders.items():
            time.sleep(_PAUSE)
            seconds[name].append(contender())
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def against(
    name: str, work: str, ours: float, other: tuple[str, float], target: float | None = None
) -> Row:
    """Return the row of a quotient: our seconds and the name and the seconds of something else."""
    label, theirs = other
    return Row(name, work, duration(ours), f"{label}: {duration(theirs)}", ours / theirs, target)


def duration(seconds: float) -> str:
    """Write a time with three digits."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


@contextmanager
def neutral_environment() -> Iterator[None]:
    """Keep out the settings of whoever runs this, and keep together what is left behind.

    HOME (with the configuration files of pyhrf and of soma-workflow) and the temporary directory are
    empty ones, removed at the end.
    """
    # Without .pyc files every fresh process compiles its modules again: a worker of a user who has not
    # set this starts in half the time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.pop("PYHRF_PARALLEL_CONFIG", None)
    with tempfile.TemporaryDirectory(prefix="bench_", ignore_cleanup_errors=True) as place:
        for variable in ("HOME", "TMPDIR"):
            directory = Path(place, variable.lower())
            directory.mkdir()
            os.environ[variable] = str(directory)
        tempfile.tempdir = None  # TMPDIR is to be looked at again
        try:
            yield
        finally:
            tempfile.tempdir = None
