"""nilearn's GLM with AR(1) noise, for many small sets of voxels.

What depends on the design alone is computed once for each coefficient: `nilearn.glm.first_level.run_glm`
does it again for each set, and a set of 50 voxels takes it as long as one of 5,000.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from nilearn.glm.contrasts import Contrast
from nilearn.glm.regression import ARModel
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_BINS = 100  # of the coefficients between 0 and 1, as nilearn has them


class AR1Models:
    """The regressions on one design, by the coefficient of the noise.

    Parameters
    ----------
    design : ndarray of shape (n_scans, n_regressors)
        The design.
    """

    def __init__(self, design: Array) -> None:
        self._design = design
        self._models: dict[int, ARModel] = {}

    def fit(self, signals: Array) -> AR1Fit:
        """Fit the signals of voxels.

        Parameters
        ----------
        signals : ndarray of shape (n_scans, n_voxels)
            The signals.
        """
        white = self._model(0)
        residuals = signals - self._design @ (white.calc_beta @ signals)
        bins = _coefficients(residuals)
        order = np.argsort(bins, kind="stable")
        values, starts = np.unique(bins[order], return_index=True)
        parts = [slice(a, b) for a, b in itertools.pairwise([*starts, len(order)])]
        models = [self._model(int(value)) for value in values]
        sorted_signals = signals[:, order]
        rest = sorted_signals.copy()
        rest[1:] -= bins[order] / _BINS * sorted_signals[:-1]  # white
        theta = np.empty((self._design.shape[1], len(order)))
        for model, part in zip(models, parts, strict=True):
            theta[:, part] = model.calc_beta @ rest[:, part]
            rest[:, part] -= model.whitened_design @ theta[:, part]
        dispersion = np.einsum("ij,ij->j", rest, rest) / np.subtract(*self._design.shape)
        back = np.argsort(order)
        return AR1Fit(theta, dispersion, models, parts, back)

    def _model(self, value: int) -> ARModel:
        if value not in self._models:
            self._models[value] = ARModel(self._design, value / _BINS)
        return self._models[value]


@dataclass(frozen=True)
class AR1Fit:
    """A fit of a design to the signals of voxels.

    Attributes
    ----------
    theta : ndarray of shape (n_regressors, n_voxels)
        The effects of the regressors.
    dispersion : ndarray of shape (n_voxels,)
        The variance of the noise.
    models, parts : list of ARModel, list of slice
        The models, and the voxels that each is of.
    back : ndarray of shape (n_voxels,)
        Where each voxel of the signals is here: those with the same model are side by side.
    """

    theta: Array
    dispersion: Array
    models: list[ARModel]
    parts: list[slice]
    back: NDArray[np.integer[Any]]

    def contrast(self, weights: Array) -> Contrast:
        """Return the t contrast of these weights of the regressors."""
        variance = np.empty_like(self.dispersion)
        for model, part in zip(self.models, self.parts, strict=True):
            variance[part] = weights @ model.normalized_cov_beta @ weights
        return Contrast(
            effect=(weights @ self.theta)[self.back],
            variance=(variance * self.dispersion)[self.back],
            dim=1,
            dof=self.models[0].df_residuals,
            stat_type="t",
        )


def _coefficients(residuals: Array) -> NDArray[np.integer[Any]]:
    """Return the bin of each voxel's AR(1) coefficient, by Yule and Walker."""
    n = len(residuals)
    own = np.einsum("ij,ij->j", residuals, residuals) / n
    lagged = np.einsum("ij,ij->j", residuals[:-1], residuals[1:]) / (n - 1)
    bins: NDArray[np.int64] = (lagged / own * _BINS).astype(np.int64)  # towards 0, as nilearn does
    return bins
