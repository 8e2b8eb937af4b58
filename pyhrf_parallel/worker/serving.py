"""A worker of mode ``'local'``: runs tasks that a dispatcher hands out through a socket."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from typing import TYPE_CHECKING

from pyhrf_parallel.files import working_directory
from pyhrf_parallel.worker.payload import Payload
from pyhrf_parallel.worker.record_files import dump_aside, write_all
from pyhrf_parallel.worker.run_paths import RunPaths
from pyhrf_parallel.worker.runner import Cursor, Runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyhrf_parallel.worker.records import Record

_LONGEST = 0.2  # seconds of work after which a worker returns what it has not begun
_LOOK_FOR_PARENT = 1.0  # seconds between two looks whether the parent is alive


def begin(
    parent: int, initializer: Callable[..., object] | None, arguments: tuple[Any, ...]
) -> None:
    """Prepare a process of the process `parent`, before it serves for the first time."""
    _Watch(parent).start()
    if initializer is not None:
        initializer(*arguments)


def serve(directory: str, address: str, niceness: int) -> None:
    """Run tasks of the dispatcher at `address` until there are no more."""
    if niceness:
        with suppress(OSError):  # a pool's process may have got a higher value before
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
    # Ctrl-C reaches every process of a terminal; it is the parent that decides what to do then.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            connection = Client(address, "AF_UNIX")
        except OSError:
            return  # the others have done it all
        # The parent is gone, or needs no more.
        with _serving, connection, suppress(EOFError, ConnectionError):
            _serve(directory, connection)
    finally:
        signal.signal(signal.SIGINT, previous)


_serving = threading.Lock()  # held while a process of a pool does not just wait for the next map


class _Watch(threading.Thread):
    """Ends this process after its current task if its parent has ended.

    An idle process of loky's does not always notice that its parent has been killed. One that waits for its first
    job never does if the parent was just starting another one.
    """

    def __init__(self, parent: int) -> None:
        super().__init__(name="pyhrf_parallel parent", daemon=True)
        self._parent = parent

    def run(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(_LOOK_FOR_PARENT)
        with _serving:
            os._exit(1)


def _serve(directory: str, connection: Connection) -> None:
    paths = RunPaths(directory)
    cursor = Cursor(paths.cursor(str(os.getpid())))
    connection.send_bytes(pickle.dumps(os.getpid()))
    payload: Payload | None = None
    runner: Runner | None = None
    before = list(sys.path), working_directory()
    try:
        while (order := pickle.loads(connection.recv_bytes())) is not None:
            if payload is None or runner is None:
                payload = Payload(paths.payload)
                payload.enter()
                runner = Runner(
                    payload,
                    cursor,
                    lambda records: _send(connection, records),
                    alarm=payload.timeout,
                )
            began = time.monotonic()
            start, stop = order
            reached = runner.run(start, stop, _LONGEST)
            connection.send_bytes(pickle.dumps((reached, time.monotonic() - began)))
    finally:
        sys.path[:] = before[0]
        with suppress(OSError):  # it has been removed
            os.chdir(before[1])
        if payload is not None:
            payload.close()
        cursor.close()


def _send(connection: Connection, records: list[Record]) -> None:
    """Send records; the memory of large arrays goes ahead as it is, without a copy."""
    content, buffers = dump_aside(records)
    if buffers:
        connection.send_bytes(pickle.dumps(Ahead([buffer.nbytes for buffer in buffers])))
        for buffer in buffers:
            write_all(connection.fileno(), buffer)
    connection.send_bytes(content)


class Ahead(list[int]):
    """Sizes of the buffers that precede the message they belong to."""
