"""The process at the other end: reads a payload, calls the function, sends records back.

Started with `command`, as ``DIRECTORY NAME [START STOP]``: with a range it runs these tasks and ends;
without, it claims tasks from the directory's `Claims` until none is left, in a child process of its own,
so that a task that dies or takes too long costs nothing but itself. Only the standard library is
imported here: a worker has to start fast.
"""

from __future__ import annotations

import mmap
import os
import sys
import time

from pyhrf_parallel.claims import Claims
from pyhrf_parallel.payloads import Payload
from pyhrf_parallel.records import RecordFile, lost, raised, returned, timed_out

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from pyhrf_parallel.records import Record

_join = os.path.join
PAYLOAD, CLAIMS = "payload", "claims"
_LOG_TAIL = 4000  # characters
_FLUSH = 0.005  # seconds that a finished task may wait for its record to be sent
_SLICE = 0.05  # seconds of work that a worker claims at once
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SIGKILL = 9
_HOPELESS = 3  # deaths in a row without a single task begun

# The package's place is an argument: it need not be installed for the interpreter to find it.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "__import__(sys.argv.pop(1), fromlist=['main']).main()"
)


def python_command(module: str, *arguments: object) -> list[str]:
    """Return the argv that runs `main` of one of our modules in a new process of this interpreter."""
    # -P: a file of the user's in the working directory must not stand in for a module.
    boot = [sys.executable, "-P", "-c", _BOOT, _PACKAGE_PARENT]
    return [*boot, module, *map(str, arguments)]


def command(directory: str | Path, name: str, *tasks: int) -> list[str]:
    """Return the argv of a worker: for a range of tasks, or for all that it can claim."""
    return python_command(__name__, directory, name, *tasks)


class Cursor:
    """Where a worker is, in memory that outlives it: four numbers in a mapped file."""

    _SIZE = 32

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, self._SIZE)
        self._mapped = mmap.mmap(descriptor, self._SIZE)
        os.close(descriptor)
        #: [running task + 1, its start in ns of the monotonic clock, next task to send, end of range]
        self.numbers = memoryview(self._mapped).cast("q")

    @property
    def running(self) -> int:
        """The index of the task that is running, or -1."""
        return self.numbers[0] - 1

    @property
    def seconds(self) -> float:
        """How long it has been running, in seconds."""
        return (time.monotonic_ns() - self.numbers[1]) / 1e9

    @property
    def unsent(self) -> tuple[int, int]:
        """The range of tasks in hand whose records have not been sent."""
        return self.numbers[2], self.numbers[3]

    def close(self) -> None:
        """Let go of the memory."""
        self.numbers.release()
        self._mapped.close()


class Runner:
    """Runs ranges of a payload's tasks.

    Parameters
    ----------
    payload : Payload
        The function and the arguments.
    cursor : Cursor
        Where to note what is running.
    send : callable
        Takes a list of records.
    log_tail : callable
        Returns the end of what this process has written.
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
            numbers[0], numbers[1] = index + 1, time.monotonic_ns()
            try:
                calls = self._payload.calls(index, stop)
            except BaseException as error:  # these arguments cannot be loaded here
                self._deliver(index, [], error)
                index += 1
                continue
            index = self._run_calls(index, calls, deadline)
        numbers[0] = 0
        return index

    def _run_calls(self, index: int, calls: list[tuple[Any, Any]], deadline: float) -> int:
        """Call the function for consecutive tasks; the loop that has to cost next to nothing."""
        func, numbers, clock = self._func, self._cursor.numbers, time.monotonic
        first, values = index, []
        flush_at = clock() + _FLUSH
        for args, kwargs in calls:
            numbers[0] = index + 1
            try:
                values.append(func(*args, **kwargs))
                error = None
            except BaseException as failure:
                error = failure
            index += 1
            now = clock()
            if error is not None or now >= flush_at:
                self._deliver(first, values, error)
                first, values = index, []
                flush_at = now + _FLUSH
                if now >= deadline:
                    break
            numbers[1] = int(now * 1e9)
        self._deliver(first, values, None)
        return index

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
    """Interrupts a task; no `except Exception` of a user's function may keep it."""


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


def describe_death(status: int) -> str:
    """Say how a process ended, from its exit status as `subprocess` gives it (-9 for SIGKILL)."""
    import signal

    if status >= 0:
        return f"its process exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def read_log_tail(path: str | Path) -> str:
    """Return the end of a log file as text."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


class _Supervisor:
    """Runs tasks in a child process, and another one after each death."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._log = _join(directory, f"{name}.log")
        self._records = RecordFile(_join(directory, f"{name}.records"))
        self._cursor = Cursor(_join(directory, f"{name}.cursor"))
        self._claims = Claims(_join(directory, CLAIMS))
        payload = Payload(_join(directory, PAYLOAD))
        self._timeout, self._retries = payload.timeout, payload.retries
        payload.close()
        self._leftovers: list[tuple[int, int]] = []
        self._attempts: dict[int, int] = {}

    def run(self) -> int:
        """Return the exit status: 0 when nothing is left to claim."""
        hopeless = 0
        while True:
            self._cursor.numbers[0] = 0
            self._cursor.numbers[2] = self._cursor.numbers[3] = 0
            pid = os.fork()
            if pid == 0:
                self._child()
            status, stopped = self._watch(pid)
            if status == 0:
                self._records.finish()
                return 0
            hopeless = 0 if self._cursor.unsent != (0, 0) else hopeless + 1
            if hopeless == _HOPELESS:
                return 1
            self._account(status, stopped=stopped)

    def _child(self) -> None:
        status = 1
        try:
            payload = Payload(_join(self._directory, PAYLOAD))
            payload.enter()
            runner = Runner(payload, self._cursor, self._records.write, self._tail)
            for start, stop in self._leftovers:
                runner.run(start, stop)
            for start, stop in _claimed(self._claims):
                runner.run(start, stop)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _leave(status)

    def _tail(self) -> str:
        sys.stdout.flush()
        sys.stderr.flush()
        return read_log_tail(self._log)

    def _watch(self, pid: int) -> tuple[int, bool]:
        """Wait for the child; return its exit status, and whether it was stopped for its time."""
        if self._timeout is None:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), False
        pause, stopped = min(0.05, self._timeout / 10), False
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), stopped
            if not stopped and self._cursor.running >= 0 and self._cursor.seconds > self._timeout:
                os.kill(pid, _SIGKILL)
                stopped = True
            time.sleep(pause)

    def _account(self, status: int, *, stopped: bool) -> None:
        """Note which task the child died of, and what has to be run again."""
        index, (start, stop) = self._cursor.running, self._cursor.unsent
        if stop == 0:  # it died before it took a task in hand
            return
        # Ranges are run in ascending order: the earlier ones are done.
        self._leftovers = [(a, b) for a, b in self._leftovers if a > start]
        if not start <= index < stop:  # it died between two tasks
            self._leftovers[:0] = [(start, stop)] if start < stop else []
            return
        self._attempts[index] = self._attempts.get(index, 0) + 1
        again = index
        if stopped or self._attempts[index] > self._retries:
            again = index + 1
            tail = read_log_tail(self._log)
            if stopped and self._timeout is not None:
                self._records.write([timed_out(index, self._timeout, tail)])
            else:
                self._records.write([lost(index, describe_death(status), tail)])
        self._leftovers[:0] = [r for r in ((start, index), (again, stop)) if r[0] < r[1]]


def _claimed(claims: Claims) -> Iterator[tuple[int, int]]:
    """Claim ranges, as many tasks at once as take a fraction of a second."""
    size = 1
    while (claim := claims.take(size)) is not None:
        began = time.monotonic()
        yield claim
        per_task = (time.monotonic() - began) / (claim[1] - claim[0])
        size = max(1, int(_SLICE / max(per_task, 1e-9)))


def _run_range(directory: str, name: str, start: int, stop: int) -> None:
    payload = Payload(_join(directory, PAYLOAD))
    payload.enter()
    records = RecordFile(_join(directory, f"{name}.records"))
    cursor = Cursor(_join(directory, f"{name}.cursor"))
    log = _join(directory, f"{name}.log")
    Runner(payload, cursor, records.write, lambda: read_log_tail(log)).run(start, stop)
    records.finish()
    _leave(0)


def _leave(status: int) -> None:
    """End without the interpreter's own clean-up, which takes longer than the start of a small task."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Run the worker that the command line asks for."""
    directory, name, *tasks = sys.argv[1:]
    directory = os.path.abspath(directory)
    if tasks:
        _run_range(directory, name, int(tasks[0]), int(tasks[1]))
    log = os.open(_join(directory, f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(_Supervisor(directory, name).run())
