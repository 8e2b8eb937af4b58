"""The regions that pyhrf finds in its images: volumes, and surfaces in GIfTI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.pyhrf27 import allowed, xml_tree


def find_regions(mask: str, bold: Sequence[str], background: int) -> dict[int, int]:
    """Return the labels of the regions with their sizes, the biggest first, as pyhrf splits.

    Parameters
    ----------
    mask : path
        The image with the labels.
    bold : sequence of path
        The BOLD images: without variance of its signal, a voxel is in no region.
    background : int
        The label of what is not analysed.

    Raises
    ------
    TreatmentDataError
        If an image cannot be read, or they do not fit together.
    """
    labels = _read_labels(mask)
    labels[(labels >= 1) & ~_find_measured(bold, labels.shape)] = 0
    ids, sizes = np.unique(labels[labels != background], return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    return {int(ids[i]): int(sizes[i]) for i in order}


def _read_labels(mask: str) -> NDArray[np.int64]:
    values = _read_image(mask)
    if not np.allclose(np.round(values), values):
        raise TreatmentDataError(f"{mask}: its labels are not whole numbers")
    labels: NDArray[np.int64] = np.round(values).astype(np.int64)
    if labels.min() == -1:
        labels += 1
    return labels


def _find_measured(bold: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where pyhrf goes on with the signals: not without variance, as it computes it."""
    squares: Any = 0
    total: Any = 0
    n = 0
    for path in bold:
        values = _read_image(path)
        axis = 3 if values.ndim > 3 else 0  # noqa: PLR2004  (a surface has scans, then vertices)
        if values.size != values.shape[axis] * np.prod(shape):
            raise TreatmentDataError(f"{path} has shape {values.shape}, and the mask {shape}")
        n += values.shape[axis]
        # In the type of the image, which may be too small for it.
        squares = squares + (values**2).sum(axis).reshape(shape)
        total = total + values.sum(axis).reshape(shape)
    if n == 0:
        raise TreatmentDataError("its data name no BOLD images")
    if n == 1:
        raise TreatmentDataError("its BOLD images have one scan")
    of_integers = np.issubdtype(squares.dtype, np.integer)
    with np.errstate(invalid="ignore"):  # of what is infinite
        variance = (squares // (n - 1) if of_integers else squares / (n - 1)) - (total / n) ** 2
    measured: NDArray[np.bool_] = (variance != 0) & ~np.isnan(total)
    return measured


def count_scans(path: str) -> int:
    """Return the number of scans of an image."""
    image = _load(path)
    if isinstance(image, nib.GiftiImage):
        return int(_stack(image).shape[0])
    return int(image.shape[3]) if image.ndim > 3 else 1  # noqa: PLR2004


def _read_image(path: str) -> NDArray[Any]:
    """Read an image as pyhrf does: in volumes, NaN becomes 0."""
    image = _load(path)
    if isinstance(image, nib.GiftiImage):
        return _stack(image)
    try:
        values: NDArray[Any] = np.asanyarray(image.dataobj)
    except Exception as error:
        raise TreatmentDataError(f"{path} cannot be read as an image: {error}") from error
    return np.where(np.isnan(values), 0, values)


def _stack(image: Any) -> NDArray[Any]:
    """Return the values of a surface, which has an array for each scan, or one of all."""
    arrays = [array.data for array in image.darrays]
    return np.stack(arrays) if len(arrays) > 1 else np.asarray(arrays[0])


def _load(path: str) -> Any:
    try:
        image = nib.load(path)
    except Exception as error:  # whatever a damaged image makes of its reader
        raise TreatmentDataError(f"{path} cannot be read as an image: {error}") from error
    for extension in getattr(image.header, "extensions", ()):
        _check_extension(path, extension.get_content())
    return image


def _check_extension(path: str, content: bytes | str) -> None:
    """Check XML in the header of an image: pyhrf reads that as it reads a configuration."""
    text = content if isinstance(content, str) else content.decode("latin-1")
    if "<" not in text:
        return
    try:
        allowed.check(xml_tree.parse(text.strip(" \t\r\n\0")))
    except TreatmentDataError as error:
        raise TreatmentDataError(
            f"the header of {path} has XML that pyhrf would run: {error}"
        ) from error
