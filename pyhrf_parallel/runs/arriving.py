"""Files that come from a run: whole, and what was sent, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyhrf_parallel.errors import TransferError
from pyhrf_parallel.files import checksum


@contextmanager
def arriving(target: Path, sha256: str, source: str) -> Iterator[Path]:
    """Give a name to write a file to, which gets its own if it is what was sent.

    Raises
    ------
    TransferError
        If it is not, or cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.urandom(8).hex()}.part")  # nobody can guess it
    try:
        yield part
        if checksum(part) != sha256:
            raise TransferError(
                f"{source} has changed on its way to {target}", path=str(target), host=source
            )
        part.replace(target)
    except OSError as error:
        raise TransferError(
            f"{source} did not get to {target}: {error.strerror or error}",
            path=str(target), host=source, reason=str(error),
        ) from error  # fmt: skip
    finally:
        part.unlink(missing_ok=True)
