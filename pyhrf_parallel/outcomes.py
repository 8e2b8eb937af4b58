"""Keep account of the tasks of a map: which have returned, which have failed, which are still to be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.errors import RemoteException, TaskLostError

if TYPE_CHECKING:
    from pyhrf_parallel.progress import Report
    from pyhrf_parallel.tasks import Work

_PENDING, _DONE, _FAILED = 0, 1, 2


class Ledger:
    """Keep account of which tasks have returned or failed, and which are still to be run.

    Parameters
    ----------
    tasks : int
        The number of tasks.
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
        """The index from which on no task needs to be started, because the map has failed before."""
        first = self._state.find(_FAILED) if self._stop_at_failure else -1
        return first if first >= 0 else len(self._state)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for: all tasks have ended, or the first failure is certain."""
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
    """Collect the values and failures of the tasks of a map.

    Parameters
    ----------
    work : Work
        The tasks.
    on_progress : Report, optional
        Called whenever tasks have returned or failed.
    """

    def __init__(self, work: Work, on_progress: Report | None = None) -> None:
        super().__init__(len(work), stop_at_failure=work.options.on_error == "raise")
        self.work = work
        self.on_progress = on_progress
        self.values: list[Any] = [None] * len(work)
        self.failures: dict[int, RemoteException] = {}

    def succeed(self, start: int, values: Sequence[Any]) -> None:
        """Enter the values of consecutive tasks."""
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
        """Enter the failure of one task."""
        index = failure.index
        assert index is not None  # noqa: S101  (every failure of a map has its task)
        failure.call = failure.call or self.work.describe(index)
        self.failures[index] = failure
        self.note_failed(index)
        if self.on_progress:
            self.on_progress(1, 1)

    def show(self, report: Report | None) -> None:
        """Report all progress, past and future, to `report`; None reports nothing any more."""
        self.on_progress = report
        if report and self.settled:
            report(self.settled, self.failed)

    def note_jobs(self, text: str) -> None:
        """Show the state of the jobs beside the progress."""
        if self.on_progress:
            self.on_progress(0, 0, text)

    def first_failure(self) -> RemoteException | None:
        """Return the failure with the lowest index; its `failures` are all of them."""
        if not self.failures:
            return None
        ordered = tuple(self.failures[index] for index in sorted(self.failures))
        ordered[0].failures = ordered
        return ordered[0]

    def results(self, *, raise_original: bool = False) -> list[Any]:
        """Return the values in the order of the tasks, failures of ``on_error='return'`` in their places.

        Parameters
        ----------
        raise_original : bool
            Whether to raise the function's own exception, with a note that names the task.

        Raises
        ------
        Exception
            The first failure, if one fails the map.
        concurrent.futures.CancelledError
            If the run was cancelled before all tasks had ended.
        """
        failure = self.first_failure()
        if not self.complete:
            from concurrent.futures import CancelledError

            message = (
                f"The run was cancelled when {self.settled} of {len(self.work)} tasks had ended"
            )
            raise CancelledError(message) from failure
        if failure is not None and self.work.options.on_error == "raise":
            original = _original_of(failure, len(self.work)) if raise_original else None
            raise original or failure
        for index, failed in self.failures.items():
            self.values[index] = failed
        return self.values


def _original_of(failure: RemoteException, total: int) -> Exception | None:
    """Return the exception that the function raised, with a note that names the task; None if there is none."""
    cause = failure.__cause__
    if isinstance(failure, TaskLostError) or not isinstance(cause, Exception):
        return None
    note = f"Task {failure.index} of {total} of remote_map failed: {failure.call}"
    if failure.remote_traceback and cause.__traceback__ is None:
        note += f"\n--- traceback in the worker, on {failure.host} ---\n{failure.remote_traceback}"
    others = [str(other.index) for other in failure.failures if other is not failure]
    if others:
        note += f"\nAlso failed: tasks {', '.join(others[:10])}{', ...' if others[10:] else ''}"
    cause.add_note(note)
    return cause
