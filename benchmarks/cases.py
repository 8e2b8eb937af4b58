"""What is measured: one function per row, or per group of rows that share their measurements."""

from __future__ import annotations

import io
import multiprocessing
import operator
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stderr
from functools import partial
from typing import Any

import on_cluster
import treatments
import watching
from measuring import Row, against, duration, in_turns, process, timed
from peers import installed_pools, joblib_map, stock_soma
from shared_array import BYTES, TASKS
from work import add, nap

from pyhrf_parallel import remote_map

_WORKERS = 2
_MANY = 10_000
_MEGABYTE = 1e6
_IMPORTED = ("joblib", "soma_workflow", "paramiko", "numpy")

# Initializer of the standard library's pools: they hang when Ctrl-C, which is for this process, ends a worker.
_LEAVE_CTRL_C = (signal.signal, (signal.SIGINT, signal.SIG_IGN))

# A bar would be drawn or not depending on where this runs; `serial_on_terminal` is about that.
_map = partial(remote_map, n_jobs=_WORKERS, progress=False)


def _many_tasks() -> tuple[list[tuple[int]], list[dict[str, int]]]:
    return [(a,) for a in range(_MANY)], [{"b": a + 1} for a in range(_MANY)]


def serial() -> Iterator[Row]:
    """Compare with the loop that one would write by hand: serial mode has to be as good as that."""
    yield _serial("serial", "", _map)


def serial_on_terminal() -> Iterator[Row]:
    """Compare as above where a person watches: a bar is wanted, but the map ends before it shows."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def watched_map(*arguments: Any) -> None:
        with redirect_stderr(Terminal()):
            remote_map(*arguments)

    yield _serial("serial-terminal", ", on a terminal", watched_map)


def _serial(name: str, where: str, mapper: Callable[..., object]) -> Row:
    largs, lkwargs = _many_tasks()
    taken = in_turns(
        {
            "ours": timed(mapper, add, largs, lkwargs),
            "bare": timed(lambda: [add(*a, **k) for a, k in zip(largs, lkwargs, strict=True)]),
        },
        repetitions=21,
    )
    work = f"serial{where}, {_MANY:,} tasks `add(a, b=2)`"
    return against(name, work, taken["ours"], ("bare list comprehension", taken["bare"]), 2)


def local_warm() -> Iterator[Row]:
    """Compare the cost per task, with processes that run already, with other pools on the same tasks.

    joblib is what the mode is built on; the executor with the right chunk size is the best that one
    gets by hand from the standard library.
    """
    largs, lkwargs = _many_tasks()
    numbers = [k["b"] for k in lkwargs]
    pairs = [(a, b) for (a,), b in zip(largs, numbers, strict=True)]
    size = _MANY // (4 * _WORKERS)
    # Started by `spawn`, as a fork of this process with its threads is not safe; that is not measured.
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        executor = stack.enter_context(ProcessPoolExecutor(_WORKERS, spawn, *_LEAVE_CTRL_C))
        pool = stack.enter_context(spawn.Pool(_WORKERS, *_LEAVE_CTRL_C))
        contenders = {
            "ours": timed(_map, add, largs, lkwargs, mode="local"),
            "joblib.Parallel": timed(joblib_map, add, largs, lkwargs),
            "ProcessPoolExecutor.map, chunksize": timed(
                lambda: list(executor.map(add, range(_MANY), numbers, chunksize=size))
            ),
            "multiprocessing.Pool.starmap": timed(pool.starmap, add, pairs),
        }
        contenders |= installed_pools(stack, _WORKERS, pairs)
        taken = in_turns(contenders, repetitions=15)
    work = f"local, {_MANY:,} tasks `add(a, b=2)`, warm"
    targets = {"joblib.Parallel": 1 / 3, "ProcessPoolExecutor.map, chunksize": 2}
    ours = taken.pop("ours")
    for other in taken.items():
        yield against("local-warm", work, ours, other, targets.get(other[0]))


def local_first() -> Iterator[Row]:
    """Compare the first map of a process with joblib's: it must not cost more than what is below it."""
    taken = in_turns(
        {
            "ours": process(
                "from work import add; from pyhrf_parallel import remote_map; "
                f"remote_map(add, [(1,), (2,)], mode='local', n_jobs={_WORKERS}, progress=False)"
            ),
            "joblib": process(
                "from work import add; from joblib import Parallel, delayed; "
                f"Parallel({_WORKERS})(delayed(add)(a) for a in (1, 2))"
            ),
        },
        repetitions=7,
    )
    work = "local, first map of a process, 2 tasks"
    yield against(
        "local-first", work, taken["ours"], ("the same with joblib", taken["joblib"]), 1.1
    )


def local_uneven() -> Iterator[Row]:
    """Compare tasks of very different lengths with a perfect balance, in both extreme orders.

    The longest last is the worst case of a pool that hands out batches.
    """
    ascending = [(0.001 + index * 0.049 / 199,) for index in range(200)]
    _map(nap, ascending[:2], mode="local")
    taken = in_turns(
        {
            "longest last": timed(_map, nap, ascending, mode="local"),
            "longest first": timed(_map, nap, ascending[::-1], mode="local"),
        },
        repetitions=3,
    )
    perfect = sum(seconds for (seconds,) in ascending) / _WORKERS
    order, worst = max(taken.items(), key=operator.itemgetter(1))
    work = f"local, 200 tasks of 1 to 50 ms, {order} (the worse order)"
    yield against("local-uneven", work, worst, ("perfect balance", perfect), 1.1)


def dumps() -> Iterator[Row]:
    """Compare the process of a task with a process that does nothing.

    For information: a function that travels by value, as all of `__main__` do, makes the worker import
    cloudpickle.
    """
    tasks = [(a, 2) for a in range(20)]
    nothing = [sys.executable, "-c", "pass"]
    taken = in_turns(
        {
            "importable": timed(_map, operator.add, tasks, mode="local_with_dumps"),
            "by value": timed(_map, lambda a, b: a + b, tasks, mode="local_with_dumps"),
            "bare": timed(lambda: [subprocess.run(nothing, check=True) for _ in tasks]),
        },
        repetitions=5,
    )
    per_task = {name: seconds / len(tasks) for name, seconds in taken.items()}
    bare = ("`python -c pass`", per_task["bare"])
    work = "local_with_dumps, per trivial task"
    yield against("dumps", f"{work}, importable function", per_task["importable"], bare, 1.5)
    yield against("dumps", f"{work}, function by value", per_task["by value"], bare)


def cluster_100() -> Iterator[Row]:
    """Compare 100 tasks with one soma-workflow job per task, which is how pyhrf did it."""
    yield _cluster("cluster-100", 100, repetitions=5)


def cluster_1000() -> Iterator[Row]:
    """Compare 1,000 tasks likewise: what is paid per task, and not per map."""
    yield _cluster("cluster-1000", 1000, repetitions=3)


def _cluster(name: str, tasks: int, repetitions: int) -> Row:
    taken = in_turns(
        {
            "ours": timed(_map, add, [(a,) for a in range(tasks)], mode="remote_cluster"),
            "stock": stock_soma(tasks),
        },
        repetitions,
    )
    work = f"remote_cluster on this machine, {tasks:,} trivial tasks"
    return against(
        name, work, taken["ours"], ("soma-workflow, a job per task", taken["stock"]), 1 / 4
    )


def memory_local() -> Iterator[Row]:
    """Compare with the size of the array that all tasks share: there has to be one copy, not one each.

    For information: joblib alone, whose workers map the same file as well.
    """
    local, peer = _watch_in_turns("local", "joblib")
    yield from _memory_rows("memory-local", "local", local)
    yield _size_row("memory-local", "joblib alone, the same: extra memory", peer.memory)


def memory_cluster() -> Iterator[Row]:
    """Compare likewise, where the array travels through a file to another process's jobs."""
    (cluster,) = _watch_in_turns("remote_cluster")
    yield from _memory_rows("memory-cluster", "remote_cluster", cluster)


def _watch_in_turns(*how: str) -> list[watching.Observation]:
    rounds = [[watching.watch("shared_array.py", each) for each in how] for _ in range(3)]
    return [watching.median(list(each)) for each in zip(*rounds, strict=True)]


def _memory_rows(name: str, mode: str, seen: watching.Observation) -> Iterator[Row]:
    work = f"{mode}, {TASKS} tasks `x.mean()` of one array"
    yield _size_row(name, f"{work}: extra memory of all processes", seen.memory, 1.5)
    yield _size_row(name, f"{work}: disk", seen.disk, 1.1)


def _size_row(name: str, work: str, size: float, target: float | None = None) -> Row:
    measured, compared = (f"{value / _MEGABYTE:.0f} MB" for value in (size, BYTES))
    return Row(name, work, measured, f"the array: {compared}", size / BYTES, target)


def import_time() -> Iterator[Row]:
    """Compare the import with a bare interpreter, and look at what it brings along."""
    statements = ("import pyhrf_parallel", "from pyhrf_parallel import remote_map")
    taken = in_turns({code: process(code) for code in ("pass", *statements)}, repetitions=15)
    bare = taken["pass"]
    for code, target in zip(statements, (60, 60), strict=True):
        extra = (taken[code] - bare) * 1e3
        compared = f"`python -c pass`: {duration(bare)}"
        yield Row("import", f"`{code}`", duration(taken[code]), compared, extra, target, " ms more")
        heavy = _brought_along(code)
        measured = ", ".join(heavy) or "none"
        wanted = "none of " + ", ".join(_IMPORTED)
        yield Row("import", f"`{code}`: imports", measured, wanted, len(heavy), 0, "")


def _brought_along(statement: str) -> list[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [name for name in _IMPORTED if name in done.stdout.split()]


CASES: dict[str, Callable[[], Iterable[Row]]] = {
    "serial": serial,
    "serial-terminal": serial_on_terminal,
    "local-warm": local_warm,
    "local-first": local_first,
    "local-uneven": local_uneven,
    "dumps": dumps,
    "cluster-100": cluster_100,
    "cluster-1000": cluster_1000,
    "memory-local": memory_local,
    "memory-cluster": memory_cluster,
    "import": import_time,
    **treatments.CASES,
    "slurm": on_cluster.on_cluster,
}
