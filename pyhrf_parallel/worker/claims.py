"""Tasks still to be run, shared through a file by all workers that see it."""

from __future__ import annotations

import fcntl
import os
import struct

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = struct.Struct("<qqq")  # workers, current range, next task in it
_RANGE = struct.Struct("<qq")


class Claims:
    """Ranges of task indices from which each worker takes the next ones.

    The file is locked meanwhile, so that every task is taken once.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def create(cls, path: str, ranges: Sequence[tuple[int, int]], workers: int) -> Claims:
        """Write the ranges that `workers` workers share."""
        content = _HEAD.pack(workers, 0, ranges[0][0]) + b"".join(_RANGE.pack(*r) for r in ranges)
        with open(path, "wb") as file:
            file.write(content)
        return cls(path)

    def give_back(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return the ranges of a dead worker, for others to take."""
        with open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            workers, current, _start = _HEAD.unpack_from(content)
            os.pwrite(file.fileno(), b"".join(_RANGE.pack(*r) for r in ranges), len(content))
            if current == (len(content) - _HEAD.size) // _RANGE.size:  # all had been taken
                os.pwrite(file.fileno(), _HEAD.pack(workers, current, ranges[0][0]), 0)

    def take(self, size: int) -> tuple[int, int] | None:
        """Take up to `size` consecutive tasks; fewer near the end, so that all workers finish together."""
        with open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            workers, current, start = _HEAD.unpack_from(content)
            ranges = list(_RANGE.iter_unpack(content[_HEAD.size :]))
            if current == len(ranges):
                return None
            stop = ranges[current][1]
            left = stop - start + sum(b - a for a, b in ranges[current + 1 :])
            taken = start + min(size, max(1, left // (2 * workers)), stop - start)
            following = (current, taken)
            if taken == stop:
                current += 1
                following = (current, ranges[current][0] if current < len(ranges) else 0)
            os.pwrite(file.fileno(), _HEAD.pack(workers, *following), 0)
            return start, taken
