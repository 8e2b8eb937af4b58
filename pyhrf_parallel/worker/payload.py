"""What travels to a worker: one file with the function, the arguments, and large arrays once.

A payload file is ``MAGIC``, then segments, then a pickled table of contents and its place. Segments are
pickles (the function, the arguments of one or many tasks) with a checksum each, or the raw memory of an
array, which workers map instead of reading it. Only numpy arrays of a certain size get a segment of
their own, each once however many tasks it is given to. `pyhrf_parallel.shipping` writes them.
"""

from __future__ import annotations

import _pickle as pickle  # the C part alone: pickle itself doubles the start of a worker
import os
import struct
import sys
import zlib
from bisect import bisect_right

from pyhrf_parallel.worker.run_paths import RunPaths

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyhrf_parallel.tasks import Args, Kwargs

MAGIC = b"PYHRFPP1"
TAIL = struct.Struct("<QQI")  # offset, length and checksum of the table of contents

# The payload whose pickles are being loaded: where array placeholders find their memory.
_current: list[Payload] = []


class Payload:
    """A payload file, read in a worker."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115  (closed by close)
        try:
            contents = pickle.loads(self._read(*self._find_contents()))
        except BaseException:
            self._file.close()
            raise
        self.tasks: int = contents["tasks"]
        self.timeout: float | None = contents["timeout"]
        self.retries: int = contents["retries"]
        self._sys_path: list[str] = contents["sys_path"]
        self._cwd: str = contents["cwd"]
        self._function = contents["function"]
        self._code = contents["code"]
        self._places = contents["blocks"]
        self._firsts = [place[0] for place in self._places]
        self._block: tuple[int, list[Args], list[Kwargs]] = (-1, [], [])

    def _find_contents(self) -> tuple[int, int, int]:
        magic = self._file.read(len(MAGIC))
        size = self._file.seek(0, os.SEEK_END)
        if magic != MAGIC or size < len(MAGIC) + TAIL.size:
            raise self._damaged(f"is no payload of this version (it begins with {magic!r})")
        self._file.seek(size - TAIL.size)
        offset, length, checksum = TAIL.unpack(self._file.read(TAIL.size))
        if offset + length + TAIL.size != size:
            raise self._damaged("is damaged: it does not end as it should")
        return offset, length, checksum

    def _damaged(self, what: str) -> Exception:
        from pyhrf_parallel.errors import TransferError  # not in a worker that starts

        return TransferError(f"{self.path} {what}", path=str(self.path))

    def close(self) -> None:
        """Close the file; arrays that were mapped stay valid."""
        self._file.close()

    def unpack_code(self, directory: str) -> None:
        """Write the user's own modules that came along to a directory, if that is not done yet."""
        if self._code is None or os.path.isdir(directory):
            return
        import io
        import tarfile

        part = f"{directory}.part"
        content = zlib.decompress(self._read(*self._code))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
            archive.extractall(part)  # noqa: S202  (checksummed, and written by `needs.pack`)
        os.rename(part, directory)

    def enter(self) -> None:
        """Set the working directory and module search path of the caller's process."""
        if self._code is not None:
            add_code(RunPaths(os.path.dirname(os.path.abspath(self.path))).code)
        sys.path += [entry for entry in self._sys_path if entry not in sys.path]
        cwd = os.path.expanduser(self._cwd)
        if os.path.isdir(cwd):
            os.chdir(cwd)

    def function(self) -> Callable[..., Any]:
        """Load the function; errors of its import are not caught."""
        func: Callable[..., Any] = self._loads(self._function)
        return func

    def calls(self, index: int, stop: int) -> list[tuple[Args, Kwargs]]:
        """Return the arguments of tasks from an index on, as many as are stored together."""
        number = bisect_right(self._firsts, index) - 1
        if self._block[0] != number:
            self._block = (number, *self._loads(self._places[number][1:]))
        _, largs, lkwargs = self._block
        if len(largs) == 1:  # do not keep a task's data for the time of the next one
            self._block = (-1, [], [])
        part = slice(index - self._firsts[number], stop - self._firsts[number])
        return list(zip(largs[part], lkwargs[part], strict=True))

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
            raise self._damaged(f"is damaged: wrong checksum at byte {offset}")
        return content


def add_code(directory: str) -> None:
    """Let this process, and those that it starts, import modules from a directory before any other."""
    sys.path.insert(0, directory)
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{directory}{os.pathsep}{earlier}" if earlier else directory


def map_array(offset: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Map an array of the payload file.

    The mapping is copy-on-write: workers share its memory, and a function may still change it in place.
    """
    import numpy as np

    mapped = np.memmap(_current[-1].path, dtype, "c", offset, shape, order)
    return mapped.view(np.ndarray)
