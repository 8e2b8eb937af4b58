"""Images as pyhrf reads them: volumes, and surfaces in GIfTI."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.pyhrf27 import allowed, xml_tree


def time_axis(bold: NDArray[Any]) -> int:
    """Return which axis of BOLD values is time."""
    return 3 if bold.ndim > 3 else 0  # noqa: PLR2004  (a surface has scans, then vertices)


def count_scans(path: str) -> int:
    """Return how many scans an image has."""
    image = _load(path)
    if isinstance(image, nib.GiftiImage):
        return int(_stacked(image).shape[0])
    return int(image.shape[3]) if image.ndim > 3 else 1  # noqa: PLR2004


def _stacked(image: Any) -> NDArray[Any]:
    """Return the values of a surface: an array for each scan, or one of all."""
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
    """Look into XML in the header of an image: pyhrf reads that as it reads a configuration."""
    text = content if isinstance(content, str) else content.decode("latin-1")
    if "<" not in text:
        return
    try:
        allowed.check(xml_tree.parse(text.strip(" \t\r\n\0")))
    except TreatmentDataError as error:
        raise TreatmentDataError(
            f"the header of {path} has XML that pyhrf would run: {error}"
        ) from error


def read_image(path: str) -> NDArray[Any]:
    """Read an image as pyhrf does: in volumes, what is not a number is 0."""
    image = _load(path)
    if isinstance(image, nib.GiftiImage):
        return _stacked(image)
    try:
        values: NDArray[Any] = np.asanyarray(image.dataobj)
    except Exception as error:
        raise TreatmentDataError(f"{path} cannot be read as an image: {error}") from error
    return np.where(np.isnan(values), 0, values)
