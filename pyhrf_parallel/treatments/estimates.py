"""What an analyser finds in one region. Without nilearn, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass
class Estimates:
    """What an analyser finds in one region.

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
