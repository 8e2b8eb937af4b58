"""Files of results: compressed if their name ends with ``.gz``, as in pyhrf."""

from __future__ import annotations

import gzip
import os

_SUFFIX, _MAGIC = ".gz", b"\x1f\x8b"


def is_to_be_compressed(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is to be compressed."""
    return os.fspath(path).endswith(_SUFFIX)


def packed(path: str | os.PathLike[str], content: bytes) -> bytes:
    """Return what is to be written to a file: compressed if its name says so."""
    if not is_to_be_compressed(path):
        return content
    return gzip.compress(content, compresslevel=6, mtime=0)  # equal results, equal bytes


def unpacked(content: bytes) -> bytes:
    """Return the content of a file, which may be compressed, whatever its name says."""
    return gzip.decompress(content) if content.startswith(_MAGIC) else content
