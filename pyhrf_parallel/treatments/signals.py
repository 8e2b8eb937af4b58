"""Reading the signals of an image in one pass, and finding those that can be analysed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyhrf_parallel.treatments.images import Surface, Volume

Array = NDArray[np.floating[Any]]

_CENTRED = 0.1  # a mean that is so small, beside the range of a signal, was taken out: 10 is usual


@dataclass(frozen=True)
class Signals:
    """The signals of the voxels of regions in one image.

    Attributes
    ----------
    usable : ndarray of bool of shape (n_voxels,)
        Where the signal is finite, not constant and positive on average; where `is_centred`, the last does
        not matter.
    is_centred : bool
        Whether the means of most signals are about 0.
    signals : ndarray of shape (n_voxels, n_scans)
        Empty if they were not to be kept.
    """

    usable: NDArray[np.bool_]
    is_centred: bool
    signals: Array


def read_signals(
    image: Volume | Surface, inside: NDArray[np.bool_], *, keep: bool = False
) -> Signals:
    """Read the signals of the voxels `inside`; without `keep`, check only which are usable."""
    n_voxels, n_scans = np.count_nonzero(inside), image.shape[3]
    low, high = np.full(n_voxels, np.inf), np.full(n_voxels, -np.inf)
    total, finite = np.zeros(n_voxels), np.ones(n_voxels, bool)
    signals: Array = np.empty((0, 0))
    start = 0
    for scans in image.blocks():
        block = scans[inside]
        if keep and start == 0:
            signals = np.empty((n_voxels, n_scans), block.dtype)
        if keep:
            signals[:, start : start + block.shape[1]] = block
        start += block.shape[1]
        finite &= np.isfinite(block).all(axis=1)
        with np.errstate(invalid="ignore"):
            np.minimum(low, block.min(axis=1), out=low)
            np.maximum(high, block.max(axis=1), out=high)
            total += block.sum(axis=1, dtype=np.float64)
    varies = finite & (high > low)
    sizes = np.abs(total[varies]) / n_scans / (high - low)[varies]
    is_centred = bool(sizes.size) and float(np.median(sizes)) < _CENTRED
    return Signals(varies & (is_centred | (total > 0)), is_centred, signals)
