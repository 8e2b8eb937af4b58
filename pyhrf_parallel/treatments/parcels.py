"""Parcellations: which region each voxel is of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.images import Surface, Volume, load_image

_TOLERANCE = 1e-3  # scaled images have 1.0000002 for 1; resampled ones are far off
_OUTSIDE = -1  # where programs for surfaces have no region


def read_labels(path: str, bold: Volume | Surface) -> NDArray[np.integer[Any]]:
    """Read a parcellation in the space of an image.

    Returns
    -------
    ndarray of int
        The labels; 0 is no region, and so are -1 and NaN in the file.

    Raises
    ------
    TreatmentDataError
        If it is of another space, or its labels are not whole numbers.
    """
    image = load_image(path, 3, may_have_one_more=True)
    check_space(image, bold)
    values = image.values().reshape(image.shape[:3])
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), 0, values)
    if values.dtype.kind not in "biuf":
        raise TreatmentDataError(f"{path}: its labels are not numbers")
    rounded = np.round(values)
    if not np.allclose(values, rounded, rtol=0, atol=_TOLERANCE):
        raise TreatmentDataError(
            f"{path}: its labels are not whole numbers (was it resampled other than by the nearest voxel?)"
        )
    labels: NDArray[np.int64] = rounded.astype(np.int64)
    outside = labels == _OUTSIDE
    if outside.any() and (labels == 0).any():
        warnings.warn(
            f"{path} has voxels of 0 and of -1: both are taken for no region", stacklevel=2
        )
    labels[outside] = 0
    return labels


def check_space(image: Volume | Surface, reference: Volume | Surface) -> None:
    """Check that two images fit together.

    Raises
    ------
    TreatmentDataError
        If they do not.
    """
    if reason := image.is_like(reference):
        raise TreatmentDataError(f"{reason}: resample one of them")
