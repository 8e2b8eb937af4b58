"""Images of volumes (NIfTI) and surfaces (GIfTI), and parcellations in their space."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError

Array = NDArray[np.floating[Any]]

_BLOCK = 16  # scans that are read at a time
_AFFINE_TOLERANCE = 1e-3  # mm
_TR_TOLERANCE = 0.01  # of the header's value
_UNKNOWN_TR = (0, 1)  # seconds: what many programs write without knowing it
_LABEL_TOLERANCE = 1e-3  # scaled images have 1.0000002 for 1; resampled ones are far off
_OUTSIDE = -1  # where programs for surfaces have no region


class Volume:
    """A NIfTI image.

    Attributes
    ----------
    path : str
        Its file.
    shape : tuple of int
        Three dimensions, and the number of scans if it has them.
    affine : ndarray of shape (4, 4)
        From indices to mm.
    tr : float
        Repetition time in seconds, as its header says; 0 if it does not.
    knows_sides : bool
        Whether its header says where left and right are.
    """

    suffix = ".nii.gz"

    def __init__(self, path: str, image: nib.Nifti1Pair) -> None:
        self.path = path
        self.shape: tuple[int, ...] = image.shape
        self.affine: Array = image.affine
        self._image = image
        codes = image.get_qform(coded=True)[1], image.get_sform(coded=True)[1]
        self.knows_sides: bool = any(codes)
        unit = image.header.get_xyzt_units()[1]
        step = float(image.header.get_zooms()[3]) if image.ndim > 3 else 0.0  # noqa: PLR2004
        self.tr: float = step * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)

    @property
    def tr_is_known(self) -> bool:
        """Whether the TR of the header can be relied on."""
        return self.tr not in _UNKNOWN_TR

    def values(self) -> Array:
        """Return all values."""
        values: Array = np.asanyarray(self._image.dataobj)
        return values

    def blocks(self) -> Iterator[Array]:
        """Yield some scans at a time: the image may be as large as the memory."""
        # Without the open file, a compressed one would be read from its beginning for each block.
        proxy = nib.load(self.path, keep_file_open=True, mmap=False).dataobj
        for start in range(0, self.shape[3], _BLOCK):
            try:
                block = np.asanyarray(proxy[..., start : start + _BLOCK])
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise TreatmentDataError(
                    f"{self.path} is damaged, from scan {start} on: {error}"
                ) from error
            yield block

    def mean(self) -> Array:
        """Return the mean over all scans, without having all of them in memory."""
        total: Array = np.zeros(self.shape[:3])
        for block in self.blocks():
            total += block.sum(axis=3, dtype=np.float64)
        return total / self.shape[3]

    def is_like(self, other: Volume | Surface) -> str:
        """Return the reason why two images do not fit together; empty if they do."""
        if not isinstance(other, Volume) or self.shape[:3] != other.shape[:3]:
            return f"{self.path} has shape {self.shape[:3]}, and {other.path} has {other.shape[:3]}"
        if not np.allclose(self.affine, other.affine, atol=_AFFINE_TOLERANCE):
            return f"{self.path} and {other.path} have different affines"
        return ""

    def save_map(self, values: Array, path: Path) -> None:
        """Write values in the space of the image."""
        image = nib.Nifti1Image(values.astype(np.float32), self.affine)
        for own, given in (
            (image.set_qform, self._image.get_qform),
            (image.set_sform, self._image.get_sform),
        ):
            matrix, code = given(coded=True)
            own(self.affine if matrix is None else matrix, int(code))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(str(path))


class Surface:
    """A GIfTI image: values of the vertices of a mesh.

    Attributes
    ----------
    path, shape, tr
        As of a `Volume`; the first dimension is the vertices, the two others are 1.
    """

    suffix = ".func.gii"
    tr: float = 0.0  # files have no agreed place for it
    tr_is_known = False

    def __init__(self, path: str, image: nib.GiftiImage) -> None:
        self.path = path
        arrays = [array.data for array in image.darrays]
        if not arrays or len({array.shape for array in arrays}) != 1:
            raise TreatmentDataError(f"{path} has no values, or of different numbers of vertices")
        flat = np.column_stack(arrays) if arrays[0].ndim == 1 else arrays[0]
        is_map = len(arrays) == 1 and arrays[0].ndim == 1
        shape = (len(flat), 1, 1) if is_map else (len(flat), 1, 1, flat.shape[1])
        self._values = flat.reshape(shape)
        self.shape: tuple[int, ...] = shape

    def values(self) -> Array:
        """Return all values."""
        values: Array = self._values
        return values

    def blocks(self) -> Iterator[Array]:
        """Yield all scans at once."""
        yield self._values

    def is_like(self, other: Volume | Surface) -> str:
        """Return the reason why two images do not fit together; empty if they do."""
        if not isinstance(other, Surface) or self.shape[0] != other.shape[0]:
            return f"{self.path} has shape {self.shape[:3]}, and {other.path} has {other.shape[:3]}"
        return ""

    @staticmethod
    def save_map(values: Array, path: Path) -> None:
        """Write values of the vertices."""
        columns = values.reshape(len(values), -1).astype(np.float32)
        arrays = [
            nib.gifti.GiftiDataArray(column, intent="NIFTI_INTENT_ESTIMATE", datatype="float32")
            for column in np.ascontiguousarray(columns.T)
        ]
        nib.gifti.GiftiImage(darrays=arrays).to_filename(str(path))


def load_image(path: str, ndim: int, *, may_have_one_more: bool = False) -> Volume | Surface:
    """Read an image of a volume or a surface.

    Raises
    ------
    TreatmentDataError
        If it is none, or has not `ndim` dimensions, and one more of size 1 if that is allowed.
    """
    try:
        image = nib.load(path)
    except (OSError, ImageFileError, ValueError) as error:
        raise TreatmentDataError(f"{path} cannot be read as an image: {error}") from error
    if isinstance(image, nib.Nifti1Pair):
        found: Volume | Surface = Volume(path, image)
    elif isinstance(image, nib.GiftiImage):
        found = Surface(path, image)
    else:
        raise TreatmentDataError(f"{path} is neither a NIfTI nor a GIfTI image")
    is_longer = may_have_one_more and found.shape[ndim:] == (1,)
    if len(found.shape) != ndim and not is_longer:
        raise TreatmentDataError(f"{path} has shape {found.shape}: {ndim} dimensions are expected")
    return found


def load_mesh(path: str) -> tuple[Array, NDArray[np.integer[Any]]]:
    """Read a mesh: coordinates of vertices (n, 3), and triangles (m, 3).

    Raises
    ------
    TreatmentDataError
        If it is none.
    """
    try:
        image = nib.load(path)
        points = image.agg_data("pointset")
        triangles = image.agg_data("triangle")
    except (OSError, ImageFileError, AttributeError, ValueError) as error:
        raise TreatmentDataError(f"{path} cannot be read as a mesh: {error}") from error
    if isinstance(points, tuple) or isinstance(triangles, tuple):
        raise TreatmentDataError(f"{path} has no points or no triangles")
    return points, triangles


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
    if not np.allclose(values, rounded, rtol=0, atol=_LABEL_TOLERANCE):
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


def check_tr(image: Volume | Surface, tr: float) -> None:
    """Check a repetition time against an image's header.

    Raises
    ------
    TreatmentDataError
        If it is not positive, or differs from that of the header.
    """
    if not 0 < tr < np.inf:
        raise TreatmentDataError(f"the TR is {tr:g} s")
    if image.tr_is_known and abs(image.tr - tr) > _TR_TOLERANCE * image.tr:
        raise TreatmentDataError(
            f"{image.path}: its header has a TR of {image.tr:g} s, and {tr:g} s was given"
        )
