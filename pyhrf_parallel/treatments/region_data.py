"""The data of one region, and the estimates of an analyser. Without nilearn, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError

Array = NDArray[np.floating[Any]]


@dataclass
class ROIData:
    """The data of one region, as analysers get them.

    Attributes
    ----------
    roi_id : int
        Its label in the parcellation.
    signals : list of ndarray of shape (n_scans, n_voxels)
        For each run, in the unit of the images.
    voxels : ndarray of shape (n_voxels, 3)
        Indices of the voxels in the images.
    events : list of DataFrame
        For each run: ``onset`` and ``duration`` in seconds, ``trial_type``, and perhaps ``modulation``.
    confounds : list of DataFrame or None
        For each run, shape (n_scans, n_confounds).
    tr : float
        Repetition time, in seconds.
    """

    roi_id: int
    signals: list[Array]
    voxels: NDArray[np.integer[Any]]
    events: list[pd.DataFrame]
    confounds: list[pd.DataFrame] | None
    tr: float

    @property
    def n_voxels(self) -> int:
        """The number of voxels."""
        return len(self.voxels)

    def without_signals(self) -> ROIData:
        """Return the region without signals and confounds, to be kept with its result."""
        return replace(self, signals=[], confounds=None)


@dataclass
class Estimates:
    """The estimates of an analyser for one region, of which maps and tables are written.

    Attributes
    ----------
    maps : dict of str to ndarray of shape (n_voxels,) or (n_voxels, n_delays)
        Values of the voxels, one map for each name.
    responses : DataFrame or None
        The region's haemodynamic responses: ``condition``, ``delay`` (seconds), ``response`` and
        ``standard_error`` (percent signal change).
    """

    maps: dict[str, Array]
    responses: pd.DataFrame | None = None


#: The columns that a table of responses must have.
COLUMNS = ("condition", "delay", "response", "standard_error")


def checked(found: Estimates, n_voxels: int) -> Estimates:
    """Return estimates whose maps are arrays with a row for each voxel.

    Raises
    ------
    TreatmentDataError
        If they cannot.
    """
    if not isinstance(found.maps, Mapping):
        raise TreatmentDataError(
            f"the maps of an Estimates are a dict, and these are a {type(found.maps).__name__}"
        )
    if not (found.responses is None or isinstance(found.responses, pd.DataFrame)):
        raise TreatmentDataError(
            f"the responses of an Estimates are a DataFrame, and these a {type(found.responses).__name__}"
        )
    if found.responses is not None:
        missing = [name for name in COLUMNS if name not in found.responses]
        if missing:
            raise TreatmentDataError(f"the responses have no column {', '.join(missing)}")
    return Estimates(
        {name: _checked_map(name, values, n_voxels) for name, values in found.maps.items()},
        found.responses,
    )


def _checked_map(name: str, values: Any, n_voxels: int) -> Array:
    if not isinstance(name, str) or not name:
        raise TreatmentDataError(f"the name of a map is {name!r}, and should be a text")
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TreatmentDataError(
            f"map {name!r} is complex: give its real and imaginary parts, or magnitude and phase, as two"
        )
    if array.dtype.kind not in "biuf":
        raise TreatmentDataError(f"map {name!r} is not of numbers, but of {array.dtype}")
    if array.ndim not in (1, 2) or len(array) != n_voxels:
        raise TreatmentDataError(
            f"map {name!r} has shape {array.shape}, and should have ({n_voxels},) or ({n_voxels}, n)"
        )
    return array
