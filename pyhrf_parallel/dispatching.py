"""Handing tasks to worker processes on this machine through a socket, and noticing how they end.

The parent's side is a `Dispatcher`, a thread; the worker's side is `serve`, a function that any pool of
processes can be asked to run. A pool only has to start processes: which task was running where, which
one a process died of and what to run next is known here, and not to the pool.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path

from pyhrf_parallel.files import private_directory
from pyhrf_parallel.payloads import Payload
from pyhrf_parallel.records import absorb, timed_out
from pyhrf_parallel.tasks import Outcomes
from pyhrf_parallel.worker import PAYLOAD, Cursor, Runner

_SLICE = 0.05  # seconds of work to hand out at once
_LONGEST = 4 * _SLICE  # after which a worker returns what it has not begun
_GRACE = 1.0  # seconds between interrupting a task and killing its process
_SOCKET_PATH_LIMIT = 100  # bytes, of the kernel's 108


def serve(directory: str, address: str, niceness: int) -> None:
    """Run what the dispatcher at `address` hands out, until it says that there is no more."""
    if niceness:
        with suppress(OSError):  # a pool's process may have got a higher value before
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
    # Ctrl-C reaches every process of a terminal; it is the parent that decides what to do then.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Client(address, "AF_UNIX") as connection:
            _serve(Path(directory), connection)
    except (EOFError, ConnectionError):
        pass  # the parent is gone, or has stopped waiting
    finally:
        signal.signal(signal.SIGINT, previous)


def _serve(directory: Path, connection: Connection) -> None:
    cursor = Cursor(directory / f"{os.getpid()}.cursor")
    connection.send_bytes(pickle.dumps(os.getpid()))
    payload: Payload | None = None
    runner: Runner | None = None
    path_before = list(sys.path)
    try:
        while (message := connection.recv_bytes()) and (order := pickle.loads(message)):
            if payload is None or runner is None:
                payload = Payload(directory / PAYLOAD)
                sys.path += [entry for entry in payload.sys_path if entry not in sys.path]
                runner = Runner(
                    payload,
                    cursor,
                    lambda records: connection.send_bytes(pickle.dumps(records, 5)),
                    alarm=payload.timeout,
                )
            began = time.monotonic()
            reached = runner.run(*order, _LONGEST)
            connection.send_bytes(pickle.dumps((reached, time.monotonic() - began)))
    finally:
        sys.path[:] = path_before
        if payload is not None:
            payload.close()
        cursor.close()


@dataclass
class _Worker:
    """A process that has connected."""

    pid: int
    cursor: Cursor
    order: tuple[int, int] | None = None
    size: int = 1  # tasks to hand out next
    over_time: int | None = None  # the task it was killed for


@dataclass
class Dispatcher:
    """Serves the workers of one round: until all is done or one of them has died.

    Parameters
    ----------
    directory : Path
        With the payload; private.
    outcomes : Outcomes
        Filled in.
    ranges : list of (int, int)
        The tasks to hand out.
    workers : int
        How many processes will share them.
    """

    directory: Path
    outcomes: Outcomes
    ranges: list[tuple[int, int]]
    workers: int
    #: After the round: the tasks that the first dead processes were running, -1 for none. More than
    #: one when several were found dead at once: the pool kills the others when one dies.
    suspects: list[int] = field(default_factory=list)
    _workers: dict[Connection, _Worker] = field(default_factory=dict)
    _death_known: bool = False  # the first death has been seen, or was ours

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve from a thread; give the address that workers connect to."""
        # The path of a socket has a length limit that temporary directories may exceed.
        short = len(os.fsencode(self.directory)) < _SOCKET_PATH_LIMIT - 10
        with private_directory(str(self.directory) if short else "/tmp") as place:  # noqa: S108
            self._listener = Listener(str(place / "s"), "AF_UNIX", backlog=128)
            self._wake_reader, self._wake = os.pipe()
            thread = threading.Thread(target=self._loop, daemon=True, name="pyhrf_parallel dispatcher")
            thread.start()
            try:
                yield str(place / "s")
            finally:
                os.close(self._wake)
                thread.join()
                self._close()

    def _close(self) -> None:
        # A worker's own children may hold its end of the socket open: its death was not heard.
        self._bury([c for c, worker in self._workers.items() if worker.order])
        for connection in list(self._workers):
            self._forget(connection)
        self._listener.close()
        os.close(self._wake_reader)

    def _loop(self) -> None:
        # The listener's own socket: there is no public way to wait for a connection among others.
        door = self._listener._listener._socket  # type: ignore[attr-defined]  # noqa: SLF001
        timeout = self.outcomes.work.options.timeout
        pause = None if timeout is None else min(0.05, timeout / 10)
        ready: list[object] = []
        while self._wake_reader not in ready:
            ready = list(wait([door, self._wake_reader, *self._workers], pause))
            if door in ready:
                self._welcome()
            self._bury([c for c in ready if isinstance(c, Connection) and not self._hear(c)])
            if timeout is not None:
                self._stop_late(timeout + _GRACE)
            if self.outcomes.complete:
                self._dismiss()

    def _welcome(self) -> None:
        with suppress(OSError, EOFError):
            connection = self._listener.accept()
            assert isinstance(connection, Connection)  # noqa: S101  (it is one on POSIX)
            pid = pickle.loads(connection.recv_bytes())
            worker = _Worker(pid, Cursor(self.directory / f"{pid}.cursor"))
            self._workers[connection] = worker
            self._give(connection, worker)

    def _hear(self, connection: Connection) -> bool:
        """Take one message; return False if the worker is dead."""
        worker = self._workers[connection]
        try:
            message = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError, pickle.UnpicklingError):
            return False
        if isinstance(message, list):
            absorb(message, self.outcomes)
        else:
            self._finished(worker, *message)
            for other, idle in self._workers.items():
                if idle.order is None:
                    self._give(other, idle)
        return True

    def _finished(self, worker: _Worker, reached: int, seconds: float) -> None:
        """Note that a worker has run its order up to a task; take back the rest, and learn."""
        assert worker.order is not None  # noqa: S101
        start, stop = worker.order
        worker.order = None
        worker.size = max(1, int(_SLICE * (reached - start) / max(seconds, 1e-7)))
        if reached < stop:
            self.ranges.insert(0, (reached, stop))

    def _give(self, connection: Connection, worker: _Worker) -> None:
        worker.order = self._next(worker.size)
        if worker.order is not None:  # else it waits: another may return a part of its order
            self._send(connection, worker.order)

    def _next(self, size: int) -> tuple[int, int] | None:
        limit = self.outcomes.limit
        self.ranges = [(a, min(b, limit)) for a, b in self.ranges if a < limit]
        if not self.ranges:
            return None
        start, stop = self.ranges.pop(0)
        left = stop - start + sum(b - a for a, b in self.ranges)
        middle = min(stop, start + min(size, max(1, left // (2 * self.workers))))
        if middle < stop:
            self.ranges.insert(0, (middle, stop))
        return start, middle

    @staticmethod
    def _send(connection: Connection, order: tuple[int, int] | None) -> None:
        with suppress(OSError):  # its death will be heard
            connection.send_bytes(pickle.dumps(order))

    def _bury(self, dead: list[Connection]) -> None:
        # Only the first deaths tell something: the pool kills its other processes then.
        telling = not self._death_known and not self.outcomes.complete
        for connection in dead:
            worker = self._workers[connection]
            running = worker.cursor.running
            if worker.over_time is not None:
                timeout = self.outcomes.work.options.timeout
                assert timeout is not None  # noqa: S101
                absorb([timed_out(worker.over_time, timeout)], self.outcomes)
            elif telling:
                self.suspects.append(running if worker.order else -1)
            self._death_known = True
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._workers.pop(connection).cursor.close()
        connection.close()

    def _stop_late(self, limit: float) -> None:
        for worker in self._workers.values():
            running = worker.cursor.running
            if worker.order and running >= 0 and worker.cursor.seconds > limit:
                worker.over_time = running
                self._death_known = True
                self._kill(worker)

    @staticmethod
    def _kill(worker: _Worker) -> None:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _dismiss(self) -> None:
        """Send idle workers home; nobody waits for one that is busy with what is not needed."""
        for connection, worker in list(self._workers.items()):
            running = worker.cursor.running
            if worker.order is None:
                self._send(connection, None)
                self._forget(connection)
            elif running >= 0 and not self.outcomes.is_settled(running):
                self._kill(worker)
                self._forget(connection)
