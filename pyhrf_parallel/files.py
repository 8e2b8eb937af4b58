"""Files that are whole or absent, in directories that nobody else can enter."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyhrf_parallel.places import check_place

_TRIES = 100  # with a pause in between: more time than a process needs to die
_PAUSE = 0.01  # seconds


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one, or the new one, and never a part of it."""
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
    """Make a temporary directory of mode 0700 that is gone afterwards, whatever happens inside.

    Raises
    ------
    UnsafePlaceError
        If others could put one of theirs in its place.
    """
    directory = Path(tempfile.mkdtemp(prefix="pyhrf_parallel_", dir=parent)).absolute()
    try:
        check_place(directory, "set TMPDIR to a directory of your own")
        yield directory
    finally:
        remove_directory(directory)


def remove_directory(directory: Path) -> None:
    """Remove a directory with all that is in it, also while a dying process still writes there."""
    for _ in range(_TRIES):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            break
        time.sleep(_PAUSE)
