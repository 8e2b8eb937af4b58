"""Designs of nilearn: regressors of the runs of a region, by the names that users know."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm import first_level
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.ar1 import AR1Models
from pyhrf_parallel.treatments.region_data import ROIData

_OVERSAMPLING = 50  # nilearn's
_REST = 40.0  # seconds after an event: more than a response of nilearn lasts
_CONDITION, _CONFOUND = "condition_", "confound_"


@dataclass(frozen=True)
class Design:
    """The design of one run.

    Attributes
    ----------
    names : list of str
        Of its regressors: a condition ``audio`` has ``audio``, and perhaps ``audio_derivative``; then
        drifts, ``constant`` and the columns of the confounds.
    places : dict of str to int
        Which regressor a name means: of several with the same name a condition, or else the first.
    models : AR1Models
        The regressions on it.
    """

    names: list[str]
    places: dict[str, int]
    models: AR1Models

    def weights(self, wanted: Mapping[str, float]) -> NDArray[np.floating[Any]] | None:
        """Return the weights of all regressors; None if one with a weight is not in the design."""
        vector = np.zeros(len(self.names))
        for name, weight in wanted.items():
            if weight and name not in self.places:
                return None
            if weight:
                vector[self.places[name]] = weight
        return vector


def conditions_of(roi: ROIData) -> list[str]:
    """Return the names of the conditions of all runs."""
    return sorted({name for table in roi.events for name in table["trial_type"]})


def designs_of(
    roi: ROIData,
    hrf_model: str,
    high_pass: float,
    delays: NDArray[np.integer[Any]] | None = None,
) -> Iterator[Design]:
    """Yield the design of each run.

    Raises
    ------
    TreatmentDataError
        If the scans do not determine its regressors.
    """
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


def response_peaks(roi: ROIData, hrf_model: str) -> dict[str, float]:
    """Return the peak of the regressor of a single event of modulation 1, by condition.

    The event lasts as long as those of the condition do, by their median over all runs.
    """
    together = pd.concat(roi.events) if len(roi.events) > 1 else roi.events[0]
    lengths = together.groupby("trial_type")["duration"].median()
    return {str(name): _peak(hrf_model, roi.tr, float(lengths[name])) for name in lengths.index}


@lru_cache(maxsize=256)
def _peak(hrf_model: str, tr: float, duration: float) -> float:
    # On the grid on which nilearn convolves: an event of no length is one of its samples.
    step = tr / _OVERSAMPLING
    times = np.arange(0, duration + _REST, step)
    event = np.array([[0.0], [duration], [1.0]])
    regressors, _ = first_level.compute_regressor(
        event, hrf_model, times, oversampling=1, min_onset=0
    )
    return float(np.abs(regressors[:, 0]).max())


@dataclass(frozen=True)
class _Rows:
    """A table that can be the key of a cache."""

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
) -> Design:  # fmt: skip
    table = events.table()
    if delays is not None:
        # The response is to a whole event, however long. As an event of one TR, an onset between two
        # scans counts for both in proportion: the response is linear between its delays.
        table = table.assign(duration=tr)
    # nilearn has names of its own, which no condition and no confound may have: it gets numbers.
    conditions = sorted(set(table["trial_type"]))
    codes = {each: f"{_CONDITION}{number:06d}" for number, each in enumerate(conditions)}
    added = None if confounds is None else confounds.table()
    names = [] if added is None else list(added.columns)
    if added is not None:
        added.columns = pd.Index([f"{_CONFOUND}{number:06d}" for number in range(len(names))])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Matrix is singular")  # an error below
        warnings.filterwarnings("ignore", "[^:]* null duration")  # these are impulses
        design: pd.DataFrame = first_level.make_first_level_design_matrix(
            np.arange(n_scans) * tr,
            table.assign(trial_type=table["trial_type"].map(codes)),
            hrf_model=hrf_model,
            high_pass=high_pass,
            fir_delays=delays,
            add_regs=added,
        )
    found = [_known_name(str(column), conditions, names) for column in design.columns]
    rank = np.linalg.matrix_rank(design)
    if rank < design.shape[1]:
        raise TreatmentDataError(
            f"{name}: {n_scans} scans do not determine {design.shape[1]} regressors (rank {rank}"
            f"{_useless(design, found)}); fewer delays, conditions or confounds are needed"
        )
    places = {found[place]: place for place in reversed(range(len(found)))}
    own = [place for place, column in enumerate(design.columns) if column in codes.values()]
    places |= {found[place]: place for place in own}
    return Design(found, places, AR1Models(design.to_numpy(np.float64)))


def _known_name(column: str, conditions: Sequence[str], confounds: Sequence[str]) -> str:
    """Return the user's name of a column of nilearn's."""
    if column.startswith(_CONDITION):
        number, _, rest = column.removeprefix(_CONDITION).partition("_")
        return conditions[int(number)] + (f"_{rest}" if rest else "")
    if column.startswith(_CONFOUND):
        return confounds[int(column.removeprefix(_CONFOUND))]
    return column


def _useless(design: pd.DataFrame, names: Sequence[str]) -> str:
    """Name regressors that are 0 everywhere, or equal to another."""
    values = design.to_numpy(np.float64)
    empty = [name for name, column in zip(names, values.T, strict=True) if not column.any()]
    if empty:
        return f"; {', '.join(map(repr, empty[:3]))} has no effect on any scan"
    for one in range(len(names)):
        for other in range(one):
            if np.allclose(values[:, one], values[:, other]):
                return f"; {names[other]!r} and {names[one]!r} are equal"
    return ""
