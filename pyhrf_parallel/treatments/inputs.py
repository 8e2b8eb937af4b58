"""Data as users give them: paths, or images and tables in memory, which are written to temporary files."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.files import write_then_rename

#: A path, an image of nibabel or a DataFrame.
One = Any


def paths_of(given: One | Sequence[One]) -> tuple[str, ...]:
    """Return the absolute paths of one or several files."""
    is_one = isinstance(given, (str, os.PathLike, pd.DataFrame)) or _is_image(given)
    return tuple(path_of(each) for each in ([given] if is_one else given))


def path_of(given: One) -> str:
    """Return the absolute path of a file; data in memory are written to one.

    Raises
    ------
    TreatmentDataError
        If it is neither a path nor an image nor a table.
    """
    if isinstance(given, (str, os.PathLike)):
        return os.path.abspath(given)  # noqa: PTH100
    if isinstance(given, pd.DataFrame):
        return _keep(given.to_csv(sep="\t", index=False, na_rep="n/a").encode(), ".tsv")
    if _is_image(given):
        path: str | None = given.get_filename()
        if path and _is_as_in_its_file(given, path):
            return os.path.abspath(path)  # noqa: PTH100
        suffix = ".gii" if isinstance(given, nib.GiftiImage) else ".nii"
        return _keep(given.to_bytes(), suffix)
    raise TreatmentDataError(
        f"a {type(given).__name__} is neither a path, an image of nibabel nor a DataFrame"
    )


def is_temporary(path: str) -> bool:
    """Whether a file was written here and is removed when this process ends."""
    return _directory.cache_info().currsize > 0 and Path(path).parent == _directory()


def _is_image(given: Any) -> bool:
    return isinstance(given, (nib.Nifti1Pair, nib.GiftiImage))


def _is_as_in_its_file(image: Any, path: str) -> bool:
    """Whether data, header and affine of an image are as they were loaded."""
    if not nib.is_proxy(getattr(image, "dataobj", None)) or image.in_memory:
        return False
    if not Path(path).exists():
        return True  # told when it is read
    stored: Any = nib.load(path)
    return bool(image.header == stored.header and np.array_equal(image.affine, stored.affine))


def _keep(content: bytes, suffix: str) -> str:
    """Write data that have no file; the same content becomes the same file."""
    path = _directory() / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not path.exists():
        write_then_rename(path, content)
    return str(path)


@lru_cache(maxsize=1)
def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="pyhrf_parallel_")).absolute()
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not a fork
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory
