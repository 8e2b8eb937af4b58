"""Analyses of one region: GLMs of nilearn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm import first_level
from nilearn.glm.contrasts import Contrast
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.ar1 import AR1Fit
from pyhrf_parallel.treatments.designs import Design, conditions_of, designs_of, response_peaks
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.model_checks import (
    check_contrasts,
    check_hrf_model,
    check_number,
    check_percent,
)
from pyhrf_parallel.treatments.region_data import Estimates, ROIData

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class GLMAnalyser:
    """Effects of each condition and contrast, with a canonical response.

    The signal of each voxel is in percent of its mean; the noise is AR(1); drifts are cosines; runs are
    combined as fixed effects, as nilearn's ``FirstLevelModel`` does it. A column ``modulation`` of the
    events scales each one, as there.

    Parameters
    ----------
    hrf_model : str
        nilearn's name of the response, ``'spm'``, ``'glover'`` and those with ``' + derivative'`` or
        ``' + derivative + dispersion'``.
    high_pass : float
        Cut-off of the drifts, in Hz.
    contrasts : mapping of str to (mapping of str to float), optional
        More than the conditions themselves: the weights of conditions, by name.

    Notes
    -----
    An effect is percent signal change: how high the response to a single event rises, one that lasts as
    long as those of its condition (by their median) and has modulation 1. So nilearn's estimate is
    multiplied by the peak of the regressor of such an event, as MarsBaR does; FSL's Featquery takes the
    height of the regressor, too. z scores are nilearn's. A contrast is multiplied by the mean of the peaks
    of its conditions, weighted as they are. If these lie far apart, as those of events of 0 s and blocks of
    20 s do, it compares strengths per second, which are no percent, and a warning says so.
    """

    hrf_model: str = "spm + derivative"
    high_pass: float = 0.01
    contrasts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __call__(self, roi: ROIData) -> Estimates:
        """Return the maps ``NAME_effect`` (percent signal change), ``NAME_variance`` and ``NAME_z``."""
        designs = list(designs_of(roi, self.hrf_model, self.high_pass))
        fits = [d.models.fit(_percent(s)) for s, d in zip(roi.signals, designs, strict=True)]
        weights = {name: {name: 1.0} for name in conditions_of(roi)} | dict(self.contrasts)
        peaks = response_peaks(roi, self.hrf_model)
        effects = [_fixed_effect(fits, designs, name, each) for name, each in weights.items()]
        maps = {}
        for name, effect, z in zip(weights, effects, _z_scores(effects), strict=True):
            scale = _scale(weights[name], peaks)
            maps[f"{name}_effect"] = scale * effect.effect_size()
            maps[f"{name}_variance"] = scale**2 * effect.effect_variance()
            maps[f"{name}_z"] = z
        return Estimates(maps)

    def check(self, data: FmriData) -> None:
        """Check the model before any region is analysed.

        Raises
        ------
        TreatmentDataError
            If the model cannot be estimated on these data, saying why.
        """
        check_hrf_model(self.hrf_model)
        check_number("high_pass", self.high_pass)
        check_percent(data)
        roi = data.outline()
        designs = list(designs_of(roi, self.hrf_model, self.high_pass))
        peaks = response_peaks(roi, self.hrf_model)
        check_contrasts(self.contrasts, designs, conditions_of(roi), peaks)

    def map_names(self, roi: ROIData) -> list[str]:
        """Return the names of the maps; the region needs no voxels."""
        names = [*conditions_of(roi), *self.contrasts]
        return [f"{name}_{kind}" for name in names for kind in ("effect", "variance", "z")]


@dataclass(frozen=True)
class FIRAnalyser:
    """Responses of any shape, by finite impulse responses.

    Parameters
    ----------
    length : float
        Of a response, in seconds.
    high_pass : float
        Cut-off of the drifts, in Hz.
    """

    length: float = 24.0
    high_pass: float = 0.01

    def __call__(self, roi: ROIData) -> Estimates:
        """Return the responses of the region, and maps ``NAME_fir`` and ``NAME_fir_variance``."""
        delays = self._delays(roi)
        designs = list(designs_of(roi, "fir", self.high_pass, delays))
        signals = [_percent(signals) for signals in roi.signals]
        voxels = [d.models.fit(s) for s, d in zip(signals, designs, strict=True)]
        means = [s.mean(axis=1, keepdims=True) for s in signals]
        region = [d.models.fit(m) for m, d in zip(means, designs, strict=True)]
        maps, rows = {}, []
        for condition in conditions_of(roi):
            names = [f"{condition}_delay_{delay}" for delay in delays]
            own = [_fixed_effect(voxels, designs, name, {name: 1.0}) for name in names]
            maps[f"{condition}_fir"] = np.column_stack([e.effect_size() for e in own])
            maps[f"{condition}_fir_variance"] = np.column_stack([e.effect_variance() for e in own])
            for name, delay in zip(names, delays, strict=True):
                effect = _fixed_effect(region, designs, name, {name: 1.0})
                error = np.sqrt(effect.effect_variance())
                rows.append(
                    (condition, delay * roi.tr, float(effect.effect_size()[0]), float(error[0]))
                )
        columns = ["condition", "delay", "response", "standard_error"]
        return Estimates(maps, pd.DataFrame(rows, columns=pd.Index(columns)))

    def check(self, data: FmriData) -> None:
        """Check the model before any region is analysed.

        Raises
        ------
        TreatmentDataError
            If the model cannot be estimated on these data, saying why.
        """
        check_number("length", self.length, is_length=True)
        check_number("high_pass", self.high_pass)
        check_percent(data)
        roi = data.outline()
        _ = list(designs_of(roi, "fir", self.high_pass, self._delays(roi)))

    def _delays(self, roi: ROIData) -> NDArray[np.integer[Any]]:
        return np.arange(round(self.length / roi.tr) + 1)

    def map_names(self, roi: ROIData) -> list[str]:
        """Return the names of the maps; the region needs no voxels."""
        return [f"{name}_{kind}" for name in conditions_of(roi) for kind in ("fir", "fir_variance")]


def _percent(signals: Array) -> Array:
    scaled: Array = first_level.mean_scaling(signals)[0]
    return scaled


def _scale(weights: Mapping[str, float], peaks: Mapping[str, float]) -> float:
    """Return the factor from a contrast to percent signal change; 1 if it has no condition."""
    sizes = {name: abs(weight) for name, weight in weights.items() if weight and name in peaks}
    total = sum(sizes.values())
    return sum(size * peaks[name] for name, size in sizes.items()) / total if total else 1.0


def _fixed_effect(
    fits: Sequence[AR1Fit], designs: Sequence[Design], name: str, weights: Mapping[str, float]
) -> Contrast:
    """Combine a contrast over the runs that have its conditions."""
    total: Any = None
    n_runs = 0
    for fit, design in zip(fits, designs, strict=True):
        vector = design.weights(weights)
        if vector is None or not vector.any():
            continue  # a run without events of one of them
        contrast = fit.contrast(vector)
        total = contrast if total is None else total + contrast
        n_runs += 1
    if total is None:
        raise TreatmentDataError(f"contrast {name!r}: no run has all of {', '.join(weights)}")
    combined: Contrast = (1.0 / n_runs) * total
    return combined


def _z_scores(contrasts: Sequence[Contrast]) -> list[Array]:
    """Return the z scores of contrasts, computed at once: a call costs more than 50 voxels do."""
    scores: list[Array] = [np.empty(0)] * len(contrasts)
    for dof in {contrast.dof for contrast in contrasts}:
        alike = [i for i, contrast in enumerate(contrasts) if contrast.dof == dof]
        effects = np.concatenate([contrasts[i].effect_size() for i in alike])
        variances = np.concatenate([contrasts[i].effect_variance() for i in alike])
        joined = Contrast(effect=effects, variance=variances, dim=1, dof=dof, stat_type="t")
        for i, score in zip(alike, np.split(joined.z_score(), len(alike)), strict=True):
            scores[i] = score
    return scores
