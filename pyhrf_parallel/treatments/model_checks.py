"""Checks of a model before any region is analysed, for one error instead of one for each region."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.designs import Design
from pyhrf_parallel.treatments.fmri_data import FmriData

_HRF_MODELS = tuple(
    f"{name}{more}"
    for name in ("spm", "glover")
    for more in ("", " + derivative", " + derivative + dispersion")
)
_ALIKE = 1.2  # how many times higher a response may be for two to have the same unit


def check_percent(data: FmriData) -> None:
    """Check that signals have means of which they can be percent."""
    if data.centred:
        raise TreatmentDataError(
            f"{data.centred[0]}: the means of its signals are about 0, so it was de-meaned or standardised, "
            "and effects cannot be percent signal change: take the images before that, or an analyser of your "
            "own"
        )


def check_number(name: str, value: Any, *, is_length: bool = False) -> None:
    """Check a number of seconds or Hz."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        unit = "seconds" if is_length else "Hz"
        raise TreatmentDataError(f"{name} is {value!r}, and should be a number of {unit}, >= 0")


def check_hrf_model(hrf_model: Any) -> None:
    """Check that nilearn knows a model of the response."""
    if callable(hrf_model) or hrf_model in _HRF_MODELS:
        return
    if hrf_model == "fir":
        raise TreatmentDataError("hrf_model is 'fir': FIRAnalyser estimates that")
    raise TreatmentDataError(
        f"there is no hrf_model {hrf_model!r}{_meant(hrf_model, _HRF_MODELS)}; nilearn's are "
        f"{', '.join(map(repr, _HRF_MODELS))}"
    )


def check_contrasts(
    contrasts: Any, designs: Sequence[Design], conditions: Sequence[str], peaks: Mapping[str, float]
) -> None:
    """Check that contrasts can be estimated; warn if one is not percent signal change."""
    if not isinstance(contrasts, Mapping):
        raise TreatmentDataError(
            "contrasts are given as {name: {condition: weight}}, and these are a "
            f"{type(contrasts).__name__}"
        )
    for name, weights in contrasts.items():
        if name in conditions:
            raise TreatmentDataError(
                f"contrast {name!r} is called as a condition: both would be the same map"
            )
        _check_weights(name, weights)
        known = {column for design in designs for column in design.places}
        for column, weight in weights.items():
            if weight and column not in known:
                raise TreatmentDataError(
                    f"contrast {name!r}: there is no condition {column!r}"
                    f"{_meant(column, conditions)}; the conditions are {', '.join(conditions)}"
                )
        if all(design.weights(weights) is None for design in designs):
            raise TreatmentDataError(f"contrast {name!r}: no run has all of {', '.join(weights)}")
        _warn_of_units(name, weights, peaks)


def _check_weights(name: Any, weights: Any) -> None:
    if not isinstance(name, str) or not isinstance(weights, Mapping):
        raise TreatmentDataError(
            f"contrast {name!r} is given as {{condition: weight}} of a name, and is {weights!r}"
        )
    numbers = [w for w in weights.values() if isinstance(w, Real) and math.isfinite(w)]
    if len(numbers) < len(weights) or not any(numbers):
        raise TreatmentDataError(
            f"contrast {name!r}: its weights are {dict(weights)!r}, and should be numbers, not all 0"
        )


def _warn_of_units(name: str, weights: Mapping[str, float], peaks: Mapping[str, float]) -> None:
    heights = sorted((peaks[c], c) for c, weight in weights.items() if weight and c in peaks)
    for (low, lower), (high, higher) in pairwise([heights[0], heights[-1]] if heights else []):
        if high > _ALIKE * low:
            warnings.warn(
                f"contrast {name!r}: responses to events of {lower!r} and of {higher!r}, which last for "
                f"different times, are {high / low:.3g} times as high for the same strength: {name}_effect "
                "compares strengths and is not percent signal change (z is right)",
                stacklevel=2,
            )


def _meant(given: Any, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(str(given), list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""
