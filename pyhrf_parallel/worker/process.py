"""A worker process: reads a payload, calls the function, writes records.

Started with `worker_command`, as ``DIRECTORY NAME HOW ...``:

- ``run START STOP`` runs a range of tasks;
- ``claim FILE`` takes tasks from a file of `Claims` until none is left; whoever started it has to find out what
  it died of;
- ``supervise FILE`` does so in a child process, and in another one after each death, so that only the task is
  lost that dies or takes too long.

Only the standard library is imported here: a worker has to start fast.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C part alone: signal itself brings enum
import os
import sys
import time

from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.launch import describe_death, read_log_tail
from pyhrf_parallel.worker.payload import Payload
from pyhrf_parallel.worker.record_files import RecordFile
from pyhrf_parallel.worker.records import lost, never_began, with_log
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import START_LIMIT, Cursor, Runner

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NoReturn

    from pyhrf_parallel.worker.records import Record

_SLICE = 0.05  # seconds of work that a worker claims at once
_SIGKILL = 9
_PATIENCE = 10  # seconds for what tasks have left behind to end
_FOR_ONE_SELF = 1.0  # seconds in which SIGTERM reaches all processes of a job
_HOPELESS = 3  # deaths in a row without a single task begun


class _Ready:
    """Holds a child back until its parent watches over the processes that it may start."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def wait(self) -> None:
        """Wait in the child."""
        os.close(self._writer)
        os.read(self._reader, 1)  # ends when nobody can write any more
        os.close(self._reader)

    def say(self) -> None:
        """Let the child go on."""
        os.close(self._reader)
        os.close(self._writer)


class _Supervisor:
    """Runs tasks in a child process, and another one after each death."""

    def __init__(self, directory: str, name: str, claims: str) -> None:
        self._paths = RunPaths(directory)
        self._log = self._paths.log(name)
        self._records = RecordFile(self._paths.records(name))
        self._cursor = Cursor(self._paths.cursor(name))
        self._claims = Claims(claims)
        payload = Payload(self._paths.payload)
        self._timeout, self._retries = payload.timeout, payload.retries
        payload.close()
        self._leftovers: list[tuple[int, int]] = []
        self._attempts: dict[int, int] = {}

    def run(self) -> int:
        """Return the exit status: 0 when nothing is left to claim."""
        hopeless = 0
        while True:
            self._cursor.numbers[0], self._cursor.numbers[1] = 0, -time.monotonic_ns()
            self._cursor.numbers[2] = self._cursor.numbers[3] = 0
            ready = _Ready()
            pid = os.fork()
            if pid == 0:
                self._child(ready)
            from pyhrf_parallel import processes  # while the child is at work already

            processes.take_charge()
            ready.say()
            status, late = self._watch(pid)
            if status == -_signal.SIGTERM:
                # Whoever ends the job ends this process, too, a moment later: then no task was lost by itself.
                time.sleep(_FOR_ONE_SELF)
            processes.end_orphans()
            if status == 0:
                self._records.finish()
                return 0
            hopeless = 0 if self._cursor.unsent != (0, 0) else hopeless + 1
            if hopeless == _HOPELESS:
                return 1
            self._account(status, late)

    def _child(self, parent: _Ready) -> None:
        status = 1
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # the parent's, after its first child
        try:
            payload = Payload(self._paths.payload)
            payload.enter()
            parent.wait()
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
        _flush()
        return read_log_tail(self._log)

    def _watch(self, pid: int) -> tuple[int, Record | None]:
        """Wait for the child; return its exit status, and the record of a task that took too long."""
        late: Record | None = None
        timeout = self._timeout
        if timeout is None:
            from pyhrf_parallel.processes import wait_for_child

            return wait_for_child(pid), late
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)  # orphans too
            if ended == pid:
                return os.waitstatus_to_exitcode(status), late
            if late is None and (late := self._cursor.exceeded(timeout)):
                os.kill(pid, _SIGKILL)
            time.sleep(min(0.05, timeout / 10))

    def _account(self, status: int, late: Record | None) -> None:
        """Record which task the child died of, and give back the others that it had claimed."""
        index, (start, stop) = self._cursor.running, self._cursor.unsent
        if stop == 0:  # it died before it took a task in hand
            if late is not None and (claim := self._claims.take(1)):  # one has to say so
                self._records.write([never_began(claim[0], START_LIMIT)])
            return
        # Ranges are run in ascending order: the earlier ones are done.
        self._leftovers = [(a, b) for a, b in self._leftovers if a > start]
        between_tasks = not start <= index < stop or (late is not None and late[1] != index)
        if between_tasks or not self._is_settled(index, status, late):
            again = [(start, stop)]
        else:
            again = [(start, index), (index + 1, stop)]
        self._leftovers[:0] = [(a, b) for a, b in again if a < b]

    def _is_settled(self, index: int, status: int, late: Record | None) -> bool:
        """Write the record of the task that the child died of, unless it may be tried again."""
        tail = read_log_tail(self._log)
        if late is not None:
            self._records.write([with_log(late, tail)])
            return True
        self._attempts[index] = self._attempts.get(index, 0) + 1
        if self._attempts[index] <= self._retries:
            return False
        self._records.write([lost(index, describe_death(status), tail)])
        return True


def guard() -> None:
    """Continue in a child process; end as it ends, and end whatever it has left running."""
    ready = _Ready()
    child = os.fork()
    if not child:
        ready.wait()
    else:
        from pyhrf_parallel import processes

        processes.take_charge()
        ready.say()
        status = processes.wait_for_child(child)
        processes.end_orphans()
        processes.end_like(status)


def _claimed(claims: Claims) -> Iterator[tuple[int, int]]:
    """Claim ranges of as many tasks as take a fraction of a second."""
    size = 1
    while (claim := claims.take(size)) is not None:
        began = time.monotonic()
        yield claim
        per_task = (time.monotonic() - began) / (claim[1] - claim[0])
        size = max(1, int(_SLICE / max(per_task, 1e-9)))


def _run_here(directory: str, name: str, ranges: Iterable[tuple[int, int]]) -> None:
    paths = RunPaths(directory)
    payload = Payload(paths.payload)
    payload.enter()
    records = RecordFile(paths.records(name))
    cursor = Cursor(paths.cursor(name))
    log = paths.log(name)

    def tail() -> str:
        _flush()
        return read_log_tail(log)

    runner = Runner(payload, cursor, records.write, tail)
    for start, stop in ranges:
        runner.run(start, stop)
    records.finish()
    _leave(0)


def _flush() -> None:
    """Flush what tasks have printed, unless they have closed the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # a task has closed or replaced it
            continue


def _leave(status: int) -> NoReturn:
    """Exit, if possible without the interpreter's clean-up, which takes longer than a small task."""
    _flush()
    if "multiprocessing" not in sys.modules:
        os._exit(status)
    # Its pools, and joblib's, leave files behind otherwise. But nothing may keep this process for ever,
    # and taking all modules apart afterwards would last longer than a small region.
    import atexit
    import threading

    watchdog = threading.Timer(_PATIENCE, os._exit, (status,))
    watchdog.daemon = True
    watchdog.start()
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  (ends executors)
    atexit._run_exitfuncs()  # noqa: SLF001
    _flush()
    os._exit(status)


def main() -> None:
    """Run the worker that the command line asks for."""
    directory, name, how, *tasks = sys.argv[1:]
    directory = os.path.abspath(directory)
    # What a task has printed is known when it takes its process down with it.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if how == "run":
        _run_here(directory, name, [(int(tasks[0]), int(tasks[1]))])
    log = os.open(RunPaths(directory).log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    claims = os.path.join(directory, tasks[0])
    if how == "claim":
        guard()
        _run_here(directory, name, _claimed(Claims(claims)))
    sys.exit(_Supervisor(directory, name, claims).run())
