"""What travels to a worker: one file with the function, the arguments, and large arrays once.

A payload file is ``MAGIC``, then segments, then a pickled table of contents and its place. Segments are
pickles (the function, the arguments of one or many tasks) with a checksum each, or the raw memory of an
array, which workers map instead of reading it. Only numpy arrays above `LARGE` bytes get a segment of
their own, each once however many tasks it is given to.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zlib
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a worker has to start fast
    import io
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyhrf_parallel.tasks import Args, Kwargs, Work

MAGIC = b"PYHRFPP1"
#: Arrays of at least so many bytes are written as they are in memory (joblib's own threshold).
LARGE = 1 << 20
_TAIL = struct.Struct("<QQI")  # offset, length and checksum of the table of contents
_BLOCK = 512
_ALIGNMENT = 64
# Arguments of these types can be pickled many at a time, unseen: nothing in them can go wrong.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})

# The payload whose pickles are being loaded: where array placeholders find their memory.
_current: list[Payload] = []


class PayloadError(Exception):
    """A payload file is damaged or was written by another version."""


def write_payload(path: Path, work: Work, *, large: int | None = LARGE) -> None:
    """Write the function and the arguments of all tasks to one file.

    Parameters
    ----------
    path : Path
        The file, in a private directory.
    work : Work
        The function, its arguments and options.
    large : int or None
        Size in bytes from which on an array is mapped by the workers; None for never.

    Raises
    ------
    NotShippableError
        For what cannot be pickled, saying which argument of which task.
    """
    from pyhrf_parallel.shipping import Shipper  # cloudpickle: only where something is sent

    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(MAGIC)
        shipper = Shipper(file, large)
        contents = {
            "python": sys.version_info[:2],
            "tasks": len(work),
            "function": _segment(file, shipper.function(work.func)),
            "blocks": [
                (first, *_segment(file, block)) for first, block in _blocks(work, shipper)
            ],
            "sys_path": [os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100  ('' is the cwd)
            "timeout": work.options.timeout,
            "retries": work.options.retries,
        }
        place = _segment(file, pickle.dumps(contents, 5))
        file.write(_TAIL.pack(*place))


def _segment(file: io.BufferedWriter, content: bytes) -> tuple[int, int, int]:
    offset = file.tell()
    file.write(content)
    return offset, len(content), zlib.crc32(content)


def _blocks(work: Work, shipper: Any) -> Iterator[tuple[int, bytes]]:
    plain = all(set(map(type, args)) <= _PLAIN for args in work.largs) and all(
        set(map(type, kwargs.values())) <= _PLAIN for kwargs in work.lkwargs
    )
    if not plain:
        for index in range(len(work)):
            yield index, shipper.call(work, index)
        return
    for first in range(0, len(work), _BLOCK):
        part = slice(first, first + _BLOCK)
        calls = [(tuple(a), dict(k)) for a, k in zip(work.largs[part], work.lkwargs[part], strict=True)]
        yield first, pickle.dumps(calls, 5)


class Payload:
    """A payload file, read in a worker."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115, PTH123  (closed by close)
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            raise PayloadError(f"{path} is not a payload of this version (it begins with {magic!r})")
        self._file.seek(-_TAIL.size, os.SEEK_END)
        contents = pickle.loads(self._read(*_TAIL.unpack(self._file.read(_TAIL.size))))
        self.tasks: int = contents["tasks"]
        self.timeout: float | None = contents["timeout"]
        self.retries: int = contents["retries"]
        self.sys_path: list[str] = contents["sys_path"]
        self._function = contents["function"]
        self._places = contents["blocks"]
        self._firsts = [place[0] for place in self._places]
        self._block: tuple[int, list[tuple[Args, Kwargs]]] = (-1, [])

    def close(self) -> None:
        """Close the file; arrays that were mapped stay valid."""
        self._file.close()

    def function(self) -> Callable[..., Any]:
        """Load the function; whatever its import raises goes through."""
        func: Callable[..., Any] = self._loads(self._function)
        return func

    def calls(self, start: int, stop: int) -> Iterator[tuple[int, list[tuple[Args, Kwargs]]]]:
        """Yield the arguments of tasks as ``(index of the first, list of calls)``."""
        while start < stop:
            number = bisect_right(self._firsts, start) - 1
            first = self._firsts[number]
            if self._block[0] != number:
                self._block = (number, self._loads(self._places[number][1:]))
            calls = self._block[1][start - first : stop - first]
            if len(self._block[1]) == 1:  # do not keep a task's data for the time of the next one
                self._block = (-1, [])
            yield start, calls
            start += len(calls)

    def _loads(self, place: tuple[int, int, int]) -> Any:
        _current.append(self)
        try:
            return pickle.loads(self._read(*place))
        finally:
            _current.pop()

    def _read(self, offset: int, length: int, checksum: int) -> bytes:
        self._file.seek(offset)
        content = self._file.read(length)
        if zlib.crc32(content) != checksum:
            raise PayloadError(f"{self.path} is damaged: wrong checksum at byte {offset}")
        return content


def map_array(offset: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Give the task an array that lies in the payload file.

    It is mapped copy-on-write: workers share its memory, and a function may still change it in place.
    """
    import numpy as np

    mapped = np.memmap(_current[-1].path, dtype, "c", offset, shape, order)
    return mapped.view(np.ndarray)


def place_array(file: io.BufferedWriter, array: Any) -> tuple[Any, ...]:
    """Write the memory of an array; return the arguments with which `map_array` gives it back."""
    import numpy as np

    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = np.ascontiguousarray(array.T if order == "F" else array).reshape(-1).view(np.uint8)
    file.write(bytes(-file.tell() % _ALIGNMENT))
    offset = file.tell()
    file.write(memoryview(flat))
    return offset, array.dtype, array.shape, order
