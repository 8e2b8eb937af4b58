"""The tools that this library is compared with."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import joblib
from measuring import HERE, Contender, timed
from work import add


def joblib_map(
    func: Callable[..., object], largs: list[tuple[int]], lkwargs: list[dict[str, int]]
) -> None:
    """Map with joblib alone."""
    joblib.Parallel(2)(joblib.delayed(func)(*a, **k) for a, k in zip(largs, lkwargs, strict=True))


def stock_soma(tasks: int) -> Contender:
    """Return a contender that is soma-workflow as it comes: a process that times itself."""
    command = [sys.executable, HERE / "stock_soma.py", str(tasks)]

    def measure() -> float:
        done = subprocess.run(command, check=True, capture_output=True, timeout=300)
        return float(done.stdout)

    return measure


def installed_pools(
    stack: ExitStack, workers: int, pairs: Sequence[tuple[int, int]]
) -> dict[str, Contender]:
    """Return pools that happen to be installed, calling `add` with all pairs; the stack closes them."""
    contenders: dict[str, Contender] = {}
    if find_spec("pathos"):
        # Its pools are kept by number of workers until they are told to go.
        pool: Any = importlib.import_module("pathos.pools").ProcessPool(workers)
        stack.callback(pool.clear)
        contenders["pathos ProcessPool.map"] = timed(pool.map, add, *zip(*pairs, strict=True))
    if find_spec("mpire"):
        pool = importlib.import_module("mpire").WorkerPool(
            workers, start_method="spawn", keep_alive=True
        )
        stack.enter_context(pool)
        contenders["mpire WorkerPool.map"] = timed(pool.map, add, pairs)
    return contenders
