"""Figures of the report: maps on slices and meshes, responses, and when jobs ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.treatments.images import Array, Volume

_PANELS = 12  # regions whose responses are drawn
_LABELLED = 0.025  # of the whole time: a region's bar that has room for its label
_CERTAINTY = 1.96  # standard errors to each side: 95 % of a normal distribution
_SHOWN = 40  # characters of a name in a figure
_SLICES = 7
_WIDTH = 1.7  # inches of a slice
# Times the brightest voxels: values about 0 are white, and the brain beneath must not be.
_DIMMED = 1.8


def turn(values: Array, affine: Array) -> tuple[Array, Array]:
    """Turn an array of voxels so that its axes point as nearly as possible to the right, the front and up.

    Returns
    -------
    values, affine : ndarray
        The array, and the affine from its indices to mm.
    """
    axes = nib.orientations.io_orientation(affine)
    if np.isnan(axes).any():  # the affine has no such directions
        return values, affine
    turned: Array = nib.orientations.apply_orientation(values, axes)
    return turned, affine @ nib.orientations.inv_ornt_aff(axes, values.shape[:3])


def draw_slices(values: Array, background: Array, space: Volume) -> Figure:
    """Draw axial slices of a map from its lowest to its highest voxel, with left on the left side.

    Each voxel is drawn as it is. `nilearn.plotting` resamples images that are oblique, so that it shows values
    which the map does not have, also outside of the regions; takes NaN for 0, which only a threshold hides; and
    draws slices without a frame: of a masked image, regions of two slices look like those of one.
    """
    background, _ = turn(background, space.affine)
    dark, bright = np.nanpercentile(background, (0, 99.5))
    values, affine = turn(values, space.affine)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    inside = np.flatnonzero(np.isfinite(values).any(axis=(0, 1)))
    levels = (
        np.unique(np.linspace(inside[0], inside[-1], _SLICES).round().astype(int))
        if len(inside)
        else [values.shape[2] // 2]
    )
    limit = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    wide, high = sizes[:2] * values.shape[:2]
    height = _WIDTH * min(high / wide, 3.0) + 0.4
    figure = Figure(figsize=(_WIDTH * len(levels) + 1, height), layout="constrained")
    axes = figure.subplots(1, len(levels), squeeze=False)[0]
    aspect = float(sizes[1] / sizes[0])
    for axis, level in zip(axes, levels, strict=True):
        axis.imshow(
            background[:, :, level].T, origin="lower", cmap="gray", aspect=aspect,
            vmin=dark, vmax=dark + _DIMMED * (bright - dark),
        )  # fmt: skip
        drawn = axis.imshow(
            values[:, :, level].T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit,
            aspect=aspect,
        )  # fmt: skip
        middle = [(n - 1) / 2 for n in values.shape[:2]]
        axis.set_title(f"z = {(affine @ [*middle, level, 1])[2]:.0f} mm", fontsize="small")
        axis.set_axis_off()
        for side, place, align in (("L", 0.02, "left"), ("R", 0.98, "right")):
            if space.knows_sides:
                axis.text(
                    place, 0.02, side, transform=axis.transAxes, ha=align, va="bottom",
                    color="#ffd24d", fontsize="small",
                )  # fmt: skip
    figure.colorbar(drawn, ax=list(axes), shrink=0.8)
    return figure


def draw_surface(values: Array, points: Array, triangles: NDArray[np.integer[Any]]) -> Figure:
    """Draw a mesh from both sides, each triangle with the mean of its vertices."""
    of_triangles = values[triangles].mean(axis=1)
    limit = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    colours = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    faces = colours.to_rgba(np.ma.masked_invalid(of_triangles))
    faces[~np.isfinite(of_triangles)] = (0.85, 0.85, 0.85, 1)
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, subplot_kw={"projection": "3d"})
    # x goes to the right of the subject.
    for axis, azimuth, side in zip(axes, (0, 180), ("right", "left"), strict=True):
        axis.add_collection3d(Poly3DCollection(points[triangles], facecolors=faces))
        for side_axis, bounds in zip(
            "xyz", np.column_stack([points.min(0), points.max(0)]), strict=True
        ):
            getattr(axis, f"set_{side_axis}lim")(*bounds)
        axis.set_box_aspect(np.ptp(points, axis=0) + 1e-9)
        axis.view_init(elev=0, azim=azimuth)
        axis.set_title(f"from the {side}", fontsize="small")
        axis.set_axis_off()
    figure.colorbar(colours, ax=list(axes), shrink=0.7)
    return figure


def draw_responses(responses: pd.DataFrame) -> Figure:
    """Draw the responses of the biggest regions, with bands of 95 % confidence."""
    sizes = responses.groupby("region")["n_voxels"].first()
    regions = sizes.nlargest(_PANELS).index.sort_values()
    columns = min(3, len(regions))
    rows = -(-len(regions) // columns)
    longest = max(len(shown(str(name))) for name in responses["condition"])
    legend = max(1.5, 0.6 + 0.09 * longest)  # inches
    figure = Figure(figsize=(3.2 * columns + legend, 2.4 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, region in zip(axes, regions, strict=False):
        axis.set_title(f"region {region}, {sizes[region]} voxels", fontsize="medium")
        axis.axhline(0, color="0.8", lw=0.8)
        for condition, one in responses[responses["region"] == region].groupby("condition"):
            delay, response = one["delay"], one["response"]
            (line,) = axis.plot(delay, response, ".-", label=shown(str(condition)))
            band = _CERTAINTY * one["standard_error"]
            axis.fill_between(
                delay, response - band, response + band, color=line.get_color(), alpha=0.2, lw=0
            )
    for axis in axes[len(regions) :]:
        axis.set_axis_off()
    if len(regions) < len(sizes):
        figure.suptitle(f"the {len(regions)} biggest of {len(sizes)} regions")
    figure.supxlabel("time after onset (s)")
    figure.supylabel("response (% signal change)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def draw_timeline(timeline: Sequence[JobSpan]) -> Figure:
    """Draw a bar for each step or region; those that ran one after the other share a row."""
    start = min(span.began for span in timeline)
    lasted = max(span.ended for span in timeline) - start
    rows: list[float] = []  # when the last one of each row ended
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    for span in sorted(timeline, key=lambda span: span.began):
        row = next((i for i, ended in enumerate(rows) if ended <= span.began), len(rows))
        rows[row : row + 1] = [span.ended]
        place, width = span.began - start, span.ended - span.began
        region = span.name.removeprefix("region ") if span.name.startswith("region ") else ""
        axis.barh(
            row, width, left=place, height=0.8, color="#86b0d8" if region else "#e0b860",
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        if not region:
            axis.text(place + width, row, f" {span.name}", va="center", fontsize="small")
        elif width > _LABELLED * lasted:
            axis.text(place + width / 2, row, region, va="center", ha="center", fontsize="small")
    figure.set_size_inches(9, 0.9 + 0.35 * min(len(rows), 24))
    axis.set_xlim(0, 1.12 * lasted)  # with the name of the last step
    axis.set_yticks([])
    axis.invert_yaxis()
    axis.set_xlabel("time after the first job began (s)")
    axis.spines[["left", "right", "top"]].set_visible(False)
    return figure


def shown(name: str) -> str:
    """Return a name that matplotlib draws literally: not as a formula, not hidden, not too long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"
    if text.startswith("_"):  # a legend leaves those out
        text = f" {text}"
    return text.replace("$", r"\$")
