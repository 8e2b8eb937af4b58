"""Files that come from a run: complete and unchanged, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyhrf_parallel.errors import TransferError
from pyhrf_parallel.files import checksum


@contextmanager
def arriving(target: Path, sha256: str, source: str) -> Iterator[Path]:
    """Yield a temporary path to write a file to, which becomes `target` if its checksum is right.

    Raises
    ------
    TransferError
        If it is wrong, or the file cannot be written.
    """
    part = target.with_name(
        f".{target.name}.{os.urandom(8).hex()}.part"
    )  # nobody can guess the name
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
