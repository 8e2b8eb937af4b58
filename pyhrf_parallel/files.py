"""Files that are complete or absent, in directories that nobody else can enter."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.places import check_place

_OTHER_TEMPORARY = "/var/tmp"  # noqa: S108  (a directory of its own is made in it)
_PATIENCE = 10  # seconds after Ctrl-C in which another one does not disturb the clean-up
_TRIES = 100  # with a pause in between: more time than a process needs to die
_PAUSE = 0.01  # seconds


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old file or the new one, never a part."""
    # A name that nobody can guess, and no link: others may write to the directory.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def checksum(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    import hashlib  # not where a worker starts

    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def working_directory() -> str:
    """Return the path of the working directory, ``''`` if it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109  (a text)
    except FileNotFoundError:
        return ""


@contextmanager
def private_directory(parent: str | None = None) -> Iterator[Path]:
    """Make a temporary directory of mode 0700, and remove it afterwards in any case.

    Raises
    ------
    ConfigurationError
        If other users could replace it.
    """
    with _one_interrupt() as interrupt:
        directory = _make_temporary(parent)
        try:
            try:
                interrupt.let_through()
                check_place(directory, "set TMPDIR to a directory of your own")
                yield directory
            finally:
                interrupt.put_off()
        finally:  # an interrupt just before that is the only one
            interrupt.put_off()
            remove_directory(directory)


def _make_temporary(parent: str | None) -> Path:
    """Make an empty directory; not in the default place if that is unsafe and nobody chose it."""
    chosen = parent or any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    if not chosen:
        try:
            check_place(Path(tempfile.gettempdir()))
        except ConfigurationError:  # as in some containers
            parent = _OTHER_TEMPORARY
    return Path(tempfile.mkdtemp(prefix="pyhrf_parallel_", dir=parent)).absolute()


def remove_directory(directory: Path) -> None:
    """Remove a directory and its content, even while a dying process still writes there."""
    for _ in range(_TRIES):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            break
        time.sleep(_PAUSE)


class _Interrupt:
    """A handler of SIGINT that raises once, so that a second Ctrl-C does not stop the clean-up."""

    def __init__(self) -> None:
        self._putting_off = True
        self._first: float | None = None
        self._waiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is not None and now - self._first < _PATIENCE:
            return  # it is being cleaned up already
        if self._putting_off and self._first is None:
            self._waiting = True
            return
        self._first = now
        signal.default_int_handler(number, frame)

    def put_off(self) -> None:
        """Defer interrupts."""
        self._putting_off = True

    def let_through(self) -> None:
        """Let the next interrupt raise, at once if one was deferred."""
        self._putting_off = False
        if self._waiting:
            self._waiting = False
            self(signal.SIGINT, None)


@contextmanager
def _one_interrupt() -> Iterator[_Interrupt]:
    """Defer Ctrl-C at first, and restore it afterwards. Other handlers of SIGINT are left alone."""
    interrupt = _Interrupt()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt.let_through()
