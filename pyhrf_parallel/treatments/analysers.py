"""Analyses of one region: GLMs of nilearn."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm import first_level
from nilearn.glm.contrasts import Contrast
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.ar1 import AR1Fit, AR1Models
from pyhrf_parallel.treatments.fmri_data import ROIData

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


@dataclass(frozen=True)
class GLMAnalyser:
    """Effects of each condition and contrast, with a canonical response.

    The signal of each voxel is in percent of its mean; the noise is AR(1); drifts are cosines; runs are
    combined as fixed effects, as nilearn's ``FirstLevelModel`` does it.

    Parameters
    ----------
    hrf_model : str
        nilearn's name of the response, ``'spm'``, ``'glover'`` and those with ``' + derivative'`` or
        ``' + derivative + dispersion'``.
    high_pass : float
        Cut-off of the drifts, in Hz.
    contrasts : mapping of str to (mapping of str to float), optional
        More than the conditions themselves: the weights of conditions, by name.
    """

    hrf_model: str = "spm + derivative"
    high_pass: float = 0.01
    contrasts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __call__(self, roi: ROIData) -> Estimates:
        """Return the maps ``NAME_effect`` (percent signal change), ``NAME_variance`` and ``NAME_z``."""
        designs = list(_designs(roi, self.hrf_model, self.high_pass))
        fits = [d.models.fit(_percent(s)) for s, d in zip(roi.signals, designs, strict=True)]
        weights = {name: {name: 1.0} for name in _conditions(roi)} | dict(self.contrasts)
        effects = [_fixed_effect(fits, designs, name, each) for name, each in weights.items()]
        maps = {}
        for name, effect, z in zip(weights, effects, _z_scores(effects), strict=True):
            maps[f"{name}_effect"] = effect.effect_size()
            maps[f"{name}_variance"] = effect.effect_variance()
            maps[f"{name}_z"] = z
        return Estimates(maps)


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
        """Return the region's responses, and of each voxel ``NAME_fir`` and ``NAME_fir_variance``."""
        delays = np.arange(round(self.length / roi.tr) + 1)
        designs = list(_designs(roi, "fir", self.high_pass, delays))
        signals = [_percent(signals) for signals in roi.signals]
        voxels = [d.models.fit(s) for s, d in zip(signals, designs, strict=True)]
        means = [s.mean(axis=1, keepdims=True) for s in signals]
        region = [d.models.fit(m) for m, d in zip(means, designs, strict=True)]
        maps, rows = {}, []
        for condition in _conditions(roi):
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


@dataclass(frozen=True)
class _Design:
    """A design, with the names of its regressors."""

    names: list[str]
    models: AR1Models


def _conditions(roi: ROIData) -> list[str]:
    return sorted({name for table in roi.events for name in table["trial_type"]})


def _designs(
    roi: ROIData,
    hrf_model: str,
    high_pass: float,
    delays: NDArray[np.integer[Any]] | None = None,
) -> Iterator[_Design]:
    for run, table in enumerate(roi.events):
        yield _design(
            f"run {run}",
            len(roi.signals[run]),
            roi.tr,
            hrf_model,
            high_pass,
            _Rows.of(table),
            _Rows.of(roi.confounds[run]) if roi.confounds else None,
            None if delays is None else tuple(delays.tolist()),
        )


@dataclass(frozen=True)
class _Rows:
    """A table that can be a key."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, table: pd.DataFrame) -> _Rows:
        known, rows = _seen.get(id(table), (None, None))
        if rows is None or known is None or known() is not table:
            rows = cls(tuple(map(str, table)), tuple(table.itertuples(index=False, name=None)))
            key = id(table)
            _seen[key] = weakref.ref(table, lambda _: _seen.pop(key, None)), rows
        return rows

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(list(self.rows), columns=pd.Index(self.columns))


# In a loop, all regions have the same tables.
_seen: dict[int, tuple[weakref.ref[pd.DataFrame], _Rows]] = {}


@lru_cache(maxsize=16)  # a worker gets many regions of the same runs
def _design(  # noqa: PLR0917  (all that the cache has to know)
    name: str, n_scans: int, tr: float, hrf_model: str, high_pass: float,
    events: _Rows, confounds: _Rows | None, delays: tuple[int, ...] | None,
) -> _Design:  # fmt: skip
    table = events.table()
    if delays is not None:
        # The response is to a whole event, however long. As an event of one TR, an onset between two
        # scans counts for both in proportion: the response is linear between its delays.
        table = table.assign(duration=tr)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Matrix is singular")  # an error below
        warnings.filterwarnings("ignore", "[^:]* null duration")  # these are impulses
        design: pd.DataFrame = first_level.make_first_level_design_matrix(
            np.arange(n_scans) * tr,
            table,
            hrf_model=hrf_model,
            high_pass=high_pass,
            fir_delays=delays,
            add_regs=None if confounds is None else confounds.table(),
        )
    rank = np.linalg.matrix_rank(design)
    if rank < design.shape[1]:
        raise TreatmentDataError(
            f"{name}: {n_scans} scans do not determine {design.shape[1]} regressors (rank {rank}); "
            "fewer delays, conditions or confounds are needed"
        )
    return _Design(list(design.columns), AR1Models(design.to_numpy(np.float64)))


def _percent(signals: Array) -> Array:
    scaled: Array = first_level.mean_scaling(signals)[0]
    return scaled


def _fixed_effect(
    fits: Sequence[AR1Fit], designs: Sequence[_Design], name: str, weights: Mapping[str, float]
) -> Contrast:
    """Combine a contrast over the runs that have its conditions."""
    total: Any = None
    n_runs = 0
    wanted = {condition for condition, weight in weights.items() if weight}
    for fit, design in zip(fits, designs, strict=True):
        if not wanted or not wanted <= set(design.names):
            continue  # a run without events of one of them
        vector = np.array([weights.get(column, 0.0) for column in design.names])
        contrast = fit.contrast(vector)
        total = contrast if total is None else total + contrast
        n_runs += 1
    if total is None:
        raise TreatmentDataError(f"contrast {name!r}: no run has all of {', '.join(weights)}")
    combined: Contrast = (1.0 / n_runs) * total
    return combined


def _z_scores(contrasts: Sequence[Contrast]) -> list[Array]:
    """Return the z scores of contrasts: of all at once, as a call takes longer than 50 voxels do."""
    scores: list[Array] = [np.empty(0)] * len(contrasts)
    for dof in {contrast.dof for contrast in contrasts}:
        alike = [i for i, contrast in enumerate(contrasts) if contrast.dof == dof]
        effects = np.concatenate([contrasts[i].effect_size() for i in alike])
        variances = np.concatenate([contrasts[i].effect_variance() for i in alike])
        joined = Contrast(effect=effects, variance=variances, dim=1, dof=dof, stat_type="t")
        for i, score in zip(alike, np.split(joined.z_score(), len(alike)), strict=True):
            scores[i] = score
    return scores
