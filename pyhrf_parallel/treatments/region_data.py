"""The data of one region: what analysers get, and what is kept beside results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass
class ROIData:
    """What an analyser gets: the data of one region.

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
        """Return what is worth keeping beside a result."""
        return replace(self, signals=[], confounds=None)
