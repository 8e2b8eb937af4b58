"""Files of records, which others read while a worker appends.

A file is a sequence of frames, each a pickled list of records with the memory of large arrays behind it.
"""

from __future__ import annotations

import _pickle as pickle  # the C part alone: pickle itself doubles the start of a worker
import os
import struct
import zlib

from pyhrf_parallel.worker.run_paths import PART

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO

    from pyhrf_parallel.worker.records import Record

#: Bytes that are read at once.
PIECE = 1 << 20
# Length of the pickle, number of buffers behind it, checksum of all that follows: the lengths of these
# buffers, the pickle, the buffers.
_FRAME = struct.Struct("<QII")
_LENGTH = struct.Struct("<Q")


class RecordFile:
    """A file to which a worker appends records. It gets its final name when the worker is done."""

    def __init__(self, path: str) -> None:
        self._final = path
        self._part = path + PART
        self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, records: Sequence[Record]) -> None:
        """Append records; when this returns, they survive the death of this process."""
        before = os.fstat(self._descriptor).st_size
        try:
            for part in _frame(records):
                write_all(self._descriptor, part)
        except OSError:  # the disk is full: what comes next must not follow half a frame
            os.ftruncate(self._descriptor, before)
            raise

    def finish(self) -> None:
        """Give the file its final name."""
        os.close(self._descriptor)
        os.replace(self._part, self._final)


def dump_aside(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value without the buffers that `_dumps` has put aside in it; return both."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return content, [buffer.raw() for buffer in buffers]


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all bytes, of which the system may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _frame(records: Sequence[Record]) -> list[bytes | memoryview]:
    """Return the parts of a frame, without a copy of large buffers."""
    content, buffers = dump_aside(records)
    content = b"".join(_LENGTH.pack(buffer.nbytes) for buffer in buffers) + content
    checksum = zlib.crc32(content)
    for buffer in buffers:
        checksum = zlib.crc32(buffer, checksum)
    length = len(content) - len(buffers) * _LENGTH.size
    return [_FRAME.pack(length, len(buffers), checksum) + content, *buffers]


class RecordStream:
    """Parses the bytes of a record file as they arrive.

    Parameters
    ----------
    skim : bool
        Whether large buffers are checked only and not kept, for readers that load no results.
    """

    def __init__(self, *, skim: bool = False) -> None:
        self._skim = skim
        self._rest = bytearray()  # what belongs to no frame yet
        self._frame: _Frame | None = None  # whose buffers are arriving
        self.position: int = 0  # of the next byte that is wanted

    def read(self, file: BinaryIO) -> Iterator[list[Record]]:
        """Yield the records that the rest of an open file completes, piece by piece."""
        file.seek(self.position)
        while piece := file.read(PIECE):
            yield self.feed(piece)

    def feed(self, content: bytes | memoryview) -> list[Record]:
        """Return the records that these bytes complete."""
        records: list[Record] = []
        self.position += len(content)
        self._rest += content
        start = 0
        with memoryview(self._rest) as view:
            while True:
                if self._frame is None:
                    start = self._open_frame(view, start)
                    if self._frame is None:
                        break  # not complete yet, or cut by the death of the worker
                start += self._frame.take(view[start:])
                if not self._frame.complete:
                    break
                records += self._frame.records(self.position - len(view) + start)
                self._frame = None
        del self._rest[:start]
        return records

    def _open_frame(self, view: memoryview, start: int) -> int:
        """Open the frame that starts there, if its header has arrived; return where its buffers begin."""
        if len(view) - start < _FRAME.size:
            return start
        length, count, checksum = _FRAME.unpack_from(view, start)
        begin = start + _FRAME.size
        middle = begin + count * _LENGTH.size
        end: int = middle + length
        if end > len(view):
            return start
        sizes = [size for (size,) in _LENGTH.iter_unpack(view[begin:middle])]
        found = zlib.crc32(view[begin:end])
        self._frame = _Frame(bytes(view[middle:end]), sizes, found, checksum, skim=self._skim)
        return end


class _Frame:
    """A frame whose buffers are arriving."""

    def __init__(
        self, content: bytes, sizes: list[int], found: int, checksum: int, *, skim: bool
    ) -> None:
        self._content = content
        self._sizes = sizes
        self._found, self._checksum = found, checksum
        self._skim = skim
        self._number = self._filled = 0  # of the buffer that is arriving, and its bytes so far
        try:
            self._buffers = [bytearray(0 if skim else size) for size in sizes]
        except (MemoryError, OverflowError):
            raise _damaged(f"buffers of {sum(sizes)} bytes, for which there is no memory") from None

    @property
    def complete(self) -> bool:
        """Whether all buffers have arrived."""
        return self._number == len(self._sizes)

    def take(self, view: memoryview) -> int:
        """Take the bytes that belong to the buffers; return their number."""
        used = 0
        while not self.complete:
            size = self._sizes[self._number]
            part = view[used : used + size - self._filled]
            self._found = zlib.crc32(part, self._found)
            if not self._skim:
                buffer = memoryview(self._buffers[self._number])
                buffer[self._filled : self._filled + len(part)] = part
            used += len(part)
            self._filled += len(part)
            if self._filled < size:
                break
            self._number, self._filled = self._number + 1, 0
        return used

    def records(self, end: int) -> list[Record]:
        """Return the records of the frame, which is complete."""
        if self._found != self._checksum:
            raise _damaged(f"wrong checksum of the frame that ends at byte {end}")
        records: list[Record] = pickle.loads(self._content, buffers=self._buffers)
        return records


def _damaged(what: str) -> Exception:
    from pyhrf_parallel.errors import TransferError  # not in a worker that starts

    return TransferError(f"Damaged records: {what}")
