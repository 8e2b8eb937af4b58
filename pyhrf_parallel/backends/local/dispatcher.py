"""Hand tasks to worker processes on this machine through a socket, and notice how they end.

The parent's side is a `Dispatcher`; the worker's side is `serving.serve`, a function that any pool of
processes can run. The pool only has to start processes: the dispatcher knows which task runs where, which
task a process died of, and what to run next.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.worker.records import absorb
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import Cursor
from pyhrf_parallel.worker.serving import Ahead

if TYPE_CHECKING:
    from pyhrf_parallel.worker.records import Record

_SLICE = 0.05  # seconds of work to hand out at once
_SHORTEST = 0.002  # seconds of work below which an order costs more than it gains
_LOOK = 0.05  # seconds between two checks of the time limits
_GRACE = 1.0  # seconds between interrupting a task and killing its process
_SOCKET_PATH_LIMIT = 90  # bytes of the directory; the kernel allows 108 for the socket in it


def _receive(connection: Connection) -> Any:
    """Return the next message of a worker."""
    message = pickle.loads(connection.recv_bytes())
    if isinstance(message, Ahead):
        buffers = [bytearray(size) for size in message]
        for buffer in buffers:
            _fill(connection, buffer)
        message = pickle.loads(connection.recv_bytes(), buffers=buffers)
    return message


def _fill(connection: Connection, buffer: bytearray) -> None:
    rest = memoryview(buffer)
    while rest:
        taken = os.readv(connection.fileno(), [rest])
        if not taken:
            raise EOFError
        rest = rest[taken:]


@dataclass
class _Worker:
    """A process that has connected."""

    pid: int
    cursor: Cursor
    order: tuple[int, int] | None = None
    sizes: tuple[int, int] = (1, 1)  # tasks to hand out next: near the end, and at most
    late: Record | None = None  # of the task because of which it was killed


@dataclass
class Dispatcher:
    """Serve the workers of one round, until all tasks are done or a worker has died.

    Parameters
    ----------
    directory : Path
        The private directory with the payload.
    outcomes : Outcomes
        Values and failures are entered here.
    ranges : list of (int, int)
        The tasks to hand out.
    workers : int
        The number of processes that share them.
    """

    directory: Path
    outcomes: Outcomes
    ranges: list[tuple[int, int]]
    workers: int
    #: After the round: the tasks that the first dead processes were running, -1 for none. There are
    #: several if several processes were found dead at once, as the pool kills the others when one dies.
    suspects: list[int] = field(default_factory=list)
    #: Whether a busy worker had to be killed, which breaks its pool.
    killed: bool = False
    _workers: dict[Connection, _Worker] = field(default_factory=dict)
    _wake_lock: threading.Lock = field(default_factory=threading.Lock)
    _death_known: bool = False  # the first death has been noticed, or was caused here

    def open(self) -> str:
        """Let workers connect; return the address. They are served by `serve`."""
        # Temporary directories may exceed the length limit for the path of a socket.
        short = len(os.fsencode(self.directory)) < _SOCKET_PATH_LIMIT
        self._socket_directory = tempfile.mkdtemp(dir=self.directory if short else "/tmp")  # noqa: S108
        self._listener = Listener(f"{self._socket_directory}/s", "AF_UNIX", backlog=128)
        self._wake_reader, self._wake_writer = os.pipe()
        return f"{self._socket_directory}/s"

    def wake(self) -> None:
        """End `serve`, since the pool has ended; called from another thread."""
        with self._wake_lock, suppress(OSError):  # it has ended already
            os.write(self._wake_writer, b"x")

    def serve(self) -> None:
        """Hand out tasks until all have an outcome or the pool has ended."""
        # The listener's own socket, as there is no public way to wait for a connection among other events.
        door = self._listener._listener._socket  # type: ignore[attr-defined]  # noqa: SLF001
        timeout = self.outcomes.work.options.timeout
        pause = None if timeout is None else min(_LOOK, timeout / 10)
        ready: list[object] = []
        while self._wake_reader not in ready:
            ready = list(wait([door, self._wake_reader, *self._workers], pause))
            if door in ready:
                self._welcome()
            self._bury([c for c in ready if isinstance(c, Connection) and not self._hear(c)])
            if timeout is not None:
                self._stop_late(timeout)
            if self.outcomes.complete:
                self._dismiss()
                if not self._workers:
                    return
                pause = _LOOK  # for a worker that only now starts a task that is not needed

    def close(self) -> None:
        """Close all connections."""
        # The children of a dead worker may hold its end of the socket open, so that its death went unnoticed.
        self._bury([c for c, worker in self._workers.items() if worker.order])
        for connection in list(self._workers):
            self._forget(connection)
        self._listener.close()
        with self._wake_lock:  # from now on the number may belong to another file
            os.close(self._wake_writer)
            self._wake_writer = -1
        os.close(self._wake_reader)
        shutil.rmtree(self._socket_directory, ignore_errors=True)

    def abort(self) -> None:
        """Kill all workers (after Ctrl-C, or because one has died)."""
        for worker in list(self._workers.values()):
            self._kill(worker)

    def _welcome(self) -> None:
        with suppress(OSError, EOFError):
            connection = self._listener.accept()
            assert isinstance(connection, Connection)  # noqa: S101  (it is one on POSIX)
            pid = pickle.loads(connection.recv_bytes())
            worker = _Worker(pid, Cursor(RunPaths(self.directory).cursor(str(pid))))
            self._workers[connection] = worker
            self._give(connection, worker)

    def _hear(self, connection: Connection) -> bool:
        """Take one message; return False if the worker is dead."""
        worker = self._workers[connection]
        try:
            message = _receive(connection)
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
        """Note that a worker has run its order up to a task, and how fast; take back the rest."""
        assert worker.order is not None  # noqa: S101
        start, stop = worker.order
        worker.order = None
        rate = (reached - start) / max(seconds, 1e-7)
        worker.sizes = (max(1, int(_SHORTEST * rate)), max(1, int(_SLICE * rate)))
        if reached < stop:
            self.ranges.insert(0, (reached, stop))

    def _give(self, connection: Connection, worker: _Worker) -> None:
        worker.order = self._next(*worker.sizes)
        if (
            worker.order is not None
        ):  # otherwise it waits, as another worker may return a part of its order
            self._send(connection, worker.order)

    def _next(self, smallest: int, largest: int) -> tuple[int, int] | None:
        limit = self.outcomes.limit
        self.ranges = [(a, min(b, limit)) for a, b in self.ranges if a < limit]
        if not self.ranges:
            return None
        start, stop = self.ranges.pop(0)
        left = stop - start + sum(b - a for a, b in self.ranges)
        middle = min(stop, start + min(largest, max(smallest, left // (2 * self.workers))))
        if middle < stop:
            self.ranges.insert(0, (middle, stop))
        return start, middle

    @staticmethod
    def _send(connection: Connection, order: tuple[int, int] | None) -> None:
        with suppress(OSError):  # serve will notice its death
            connection.send_bytes(pickle.dumps(order))

    def _bury(self, dead: list[Connection]) -> None:
        # Only the first deaths are informative: the pool then kills its other processes.
        informative = not self._death_known and not self.outcomes.complete
        for connection in dead:
            worker = self._workers[connection]
            running = worker.cursor.running
            if worker.late is not None:
                absorb([worker.late], self.outcomes)
            elif informative:
                self.suspects.append(running if worker.order else -1)
            self._death_known = True
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._workers.pop(connection).cursor.close()
        connection.close()

    def _stop_late(self, timeout: float) -> None:
        for worker in self._workers.values():
            if worker.order is None or worker.late is not None:
                continue
            first = worker.order[0]
            if worker.cursor.exceeded(timeout + _GRACE, first):
                worker.late = worker.cursor.exceeded(timeout, first)
                self._death_known = True
                self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        self.killed = True
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _dismiss(self) -> None:
        """End idle workers, and kill those that are busy with tasks that are not needed."""
        for connection, worker in list(self._workers.items()):
            running = worker.cursor.running
            if worker.order is None:
                self._send(connection, None)
                self._forget(connection)
            elif running >= 0 and not self.outcomes.is_settled(running):
                self._kill(worker)
                self._forget(connection)
