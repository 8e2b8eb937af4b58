"""The loop that calls the function for one task after another, in any process.

Only a little of the standard library is imported here, so that workers start fast.
"""

from __future__ import annotations

import mmap
import os
import time
from itertools import islice

from pyhrf_parallel.worker.records import never_began, raised, returned, timed_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyhrf_parallel.worker.payload import Payload
    from pyhrf_parallel.worker.records import Record

_FLUSH = 0.005  # seconds that a finished task may wait for its record to be sent
_STRIDE = 0.0005  # seconds of work between two looks at the clock
#: Seconds within which a task with a time limit has to begin: to start a process, import what the function
#: needs and load the arguments. Far more than these take, so that only what hangs is stopped.
START_LIMIT = 600


class Cursor:
    """The position of a worker, in memory that outlives it: four numbers in a mapped file."""

    _SIZE = 32

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Real room on the disk: where there is none, to write to the memory would kill this process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, self._SIZE)
            else:
                os.ftruncate(descriptor, self._SIZE)
            self._mapped = mmap.mmap(descriptor, self._SIZE)
        except OSError as error:
            reason = f"{error.strerror} (make room, or set TMPDIR to a directory that has more)"
            raise OSError(error.errno, reason, path) from None
        finally:
            os.close(descriptor)
        #: [running task + 1, the start of its call, next task to send, end of range]; the start is in ns of
        #: the monotonic clock, negative for when loading began, as long as it is not called yet.
        self.numbers: memoryview[int] = memoryview(self._mapped).cast("q")

    @property
    def running(self) -> int:
        """The index of the task that is running or being loaded, or -1."""
        return self.numbers[0] - 1

    @property
    def seconds(self) -> float:
        """Seconds for which its call has been running."""
        start = self.numbers[1]
        return (time.monotonic_ns() - start) / 1e9 if start > 0 else 0.0

    @property
    def seconds_of_loading(self) -> float:
        """Seconds for which the function or the arguments have been loading."""
        start = -self.numbers[1]
        return (time.monotonic_ns() - start) / 1e9 if start > 0 else 0.0

    def exceeded(self, timeout: float, first: int = 0) -> Record | None:
        """Return the record of the task that takes too long, None if none does.

        While the function is still loading, that is the task `first`.
        """
        if self.running >= 0 and self.seconds > timeout:
            return timed_out(self.running, timeout)
        if self.seconds_of_loading > START_LIMIT:
            return never_began(self.running if self.running >= 0 else first, START_LIMIT)
        return None

    @property
    def unsent(self) -> tuple[int, int]:
        """The range of tasks in hand whose records have not been sent."""
        return self.numbers[2], self.numbers[3]

    def close(self) -> None:
        """Unmap the file."""
        self.numbers.release()
        self._mapped.close()


class Runner:
    """Runs ranges of a payload's tasks.

    Parameters
    ----------
    payload : Payload
        The function and the arguments.
    cursor : Cursor
        Where to write which task is running.
    send : callable
        Takes a list of records.
    log_tail : callable
        Returns the end of the output of this process.
    alarm : float, optional
        Seconds after which a task is interrupted from within this process.
    """

    def __init__(
        self,
        payload: Payload,
        cursor: Cursor,
        send: Callable[[list[Record]], None],
        log_tail: Callable[[], str] = str,
        alarm: float | None = None,
    ) -> None:
        self._payload = payload
        self._cursor = cursor
        self._send = send
        self._log_tail = log_tail
        cursor.numbers[1] = -time.monotonic_ns()
        self._func = self._load_function()
        if alarm is not None:
            self._func = with_alarm(self._func, alarm)
        self._alarm = alarm

    def _load_function(self) -> Callable[..., Any]:
        try:
            return self._payload.function()
        except BaseException as error:
            failure = error

            def fail(*_args: Any, **_kwargs: Any) -> None:
                raise failure

            return fail

    def run(self, start: int, stop: int, budget: float = float("inf")) -> int:
        """Run tasks from `start` on, for `budget` seconds; return the index of the first not run."""
        numbers = self._cursor.numbers
        numbers[2], numbers[3] = start, stop
        index = start
        deadline = time.monotonic() + budget
        while index < stop and time.monotonic() < deadline:
            numbers[0], numbers[1] = index + 1, -time.monotonic_ns()
            try:
                calls = self._payload.calls(index, stop)
            except BaseException as error:  # these arguments cannot be loaded here
                self._deliver(index, [], error)
                index += 1
                continue
            index = self._run_calls(index, calls, deadline)
        numbers[0] = numbers[1] = 0
        return index

    def _run_calls(self, index: int, calls: list[tuple[Any, Any]], deadline: float) -> int:
        """Call the function for consecutive tasks, in a loop that costs next to nothing."""
        func, numbers, clock = self._func, self._cursor.numbers, time.monotonic
        waiting = iter(calls)
        stop, stride = index + len(calls), 1
        first, values, error = index, [], None
        now = clock()
        numbers[1] = int(now * 1e9)
        flush_at = now + _FLUSH
        while index < stop:
            began = now
            try:
                # The clock is asked once in a stride: for tiny tasks it would cost as much as they do.
                for args, kwargs in islice(waiting, stride):
                    index += 1
                    numbers[0] = index
                    values.append(func(*args, **kwargs))
            except BaseException as failure:
                error = failure
            now = clock()
            if error is not None or now >= flush_at:
                numbers[1] = 0  # its call is over, whatever the delivery takes
                self._deliver(first, values, error)
                first, values, error = index, [], None
                if now >= deadline:
                    break
                stride = self._next_stride(stride, now - began)
                now = clock()
                flush_at = now + _FLUSH
            else:
                stride = self._next_stride(stride, now - began)
            numbers[1] = int(now * 1e9)
        numbers[1] = 0
        self._deliver(first, values, None)
        return index

    def _next_stride(self, stride: int, seconds: float) -> int:
        if self._payload.timeout is not None:  # the start of every task has to be known
            return 1
        return 2 * stride if seconds < _STRIDE else max(1, stride // 4)

    def _deliver(self, first: int, values: list[Any], error: BaseException | None) -> None:
        records = returned(first, values) if values else []
        stop = first + len(values)
        if error is not None:
            stop += 1
            if isinstance(error, _Alarm) and self._alarm is not None:
                records.append(timed_out(stop - 1, self._alarm, self._log_tail()))
            else:
                records.append(raised(stop - 1, error, self._log_tail()))
        if records:
            self._send(records)
            self._cursor.numbers[2] = stop


class _Alarm(BaseException):
    """Interrupts a task, also through `except Exception` in a user's function."""


def with_alarm(func: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Return `func` interrupted by a signal after so many seconds."""
    import signal

    def ring(_number: int, _frame: object) -> None:
        raise _Alarm

    def limited(*args: Any, **kwargs: Any) -> Any:
        previous = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return func(*args, **kwargs)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    return limited
