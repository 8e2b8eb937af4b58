"""The progress bar of a map."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

ProgressOption = bool | Callable[[int, int], object] | None

_DELAY = 1.5  # seconds a map has lasted when its bar appears unasked
_REFRESH = 0.25  # seconds
#: Bytes of a file from which on it is told how it arrives.
LARGE = 50_000_000


class Report(Protocol):
    """Receives the progress of a map."""

    def __call__(self, ended: int, failed: int, jobs: str = "") -> None:
        """Receive how many tasks have ended since the last call, how many of these failed, and a line about the jobs."""


@contextmanager
def reporting(progress: ProgressOption, total: int, name: str) -> Iterator[Report | None]:
    """Show progress, if wanted.

    Parameters
    ----------
    progress : bool, callable or None
        None for a bar on a terminal or in a notebook after a while; a callable gets ``(done, total)``.
    total : int
        The number of tasks.
    name : str
        The label of the bar.

    Yields
    ------
    Report or None
        None if no progress is shown.
    """
    if callable(progress):
        yield _counting(progress, total)
    elif progress or (progress is None and _is_watched()):
        with _Bar(total, name, 0 if progress else _DELAY).shown() as report:
            yield report
    else:
        yield None


@contextmanager
def counting_bytes(
    progress: ProgressOption, total: int, name: str
) -> Iterator[Callable[[int], object]]:
    """Show the transfer of a large file, if progress is shown; yield a function that takes the size of each piece."""
    if (
        total < LARGE
        or callable(progress)
        or not (progress or (progress is None and _is_watched()))
    ):
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=name, unit="B", unit_scale=True) as bar:
        yield bar.update


def _counting(listener: Callable[[int, int], object], total: int) -> Report:
    done = 0
    lock = threading.Lock()

    def report(ended: int, failed: int, jobs: str = "") -> None:  # noqa: ARG001
        nonlocal done
        if not ended:
            return
        with lock:
            done += ended
            listener(done, total)

    return report


def _is_watched() -> bool:
    in_notebook = "ipykernel" in sys.modules
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())


class _Bar:
    """A tqdm bar drawn from its own thread, so that it moves while a long task runs."""

    def __init__(self, total: int, name: str, delay: float) -> None:
        self._total = total
        self._name = name
        self._delay = delay
        self._done = self._failed = 0
        self._jobs = ""
        self._over = threading.Event()

    @contextmanager
    def shown(self) -> Iterator[Report]:
        thread = threading.Thread(target=self._draw, daemon=True, name="pyhrf_parallel progress")
        thread.start()
        try:
            yield self._report
        finally:
            self._over.set()
            thread.join()

    def _report(self, ended: int, failed: int, jobs: str = "") -> None:
        self._done += ended
        self._failed += failed
        self._jobs = jobs or self._jobs

    def _draw(self) -> None:
        if self._over.wait(self._delay) and self._delay:
            return  # it was over before anybody wondered
        from tqdm.auto import tqdm

        with tqdm(total=self._total, desc=self._name, unit="task") as bar:
            while not self._over.wait(_REFRESH):
                self._update(bar)
            self._update(bar)

    def _update(self, bar: Any) -> None:
        failed = f"{self._failed} failed" if self._failed else ""
        bar.set_postfix_str(", ".join(filter(None, [failed, self._jobs])), refresh=False)
        bar.update(self._done - bar.n)
        bar.refresh()
