"""Compression of result files whose name ends in ``.gz``, as in pyhrf."""

from __future__ import annotations

import gzip
import os

_SUFFIX, _MAGIC = ".gz", b"\x1f\x8b"


def is_to_be_compressed(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is compressed."""
    return os.fspath(path).endswith(_SUFFIX)


def packed(path: str | os.PathLike[str], content: bytes) -> bytes:
    """Return the bytes to write to a file: compressed if its name ends in ``.gz``."""
    if not is_to_be_compressed(path):
        return content
    return gzip.compress(content, compresslevel=6, mtime=0)  # equal results, equal bytes


def unpacked(content: bytes) -> bytes:
    """Return the content of a file, decompressed if it is compressed, whatever its name."""
    return gzip.decompress(content) if content.startswith(_MAGIC) else content
