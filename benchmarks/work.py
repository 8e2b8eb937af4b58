"""The functions that are mapped, in a module of their own: workers import it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def add(a: int, b: int = 2) -> int:
    """Do next to nothing: what a map of it takes is the tool's own cost."""
    return a + b


def nap(seconds: float) -> None:
    """Take a known time without needing a CPU."""
    time.sleep(seconds)


def mean(array: NDArray[Any], offset: int) -> float:
    """Read a whole array."""
    return float(array.mean()) + offset
