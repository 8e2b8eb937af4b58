"""Pictures of maps: slices as an anatomist sees them, and meshes."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from pyhrf_parallel.treatments.images import Array, Volume

_SLICES = 7
_WIDTH = 1.7  # inches of a slice


def turn(values: Array, affine: Array) -> tuple[Array, Array]:
    """Turn an array of voxels so that its axes go most nearly to the right, to the front, and up.

    Returns
    -------
    values, affine : ndarray
        The array, and from its indices to mm.
    """
    axes = nib.orientations.io_orientation(affine)
    if np.isnan(axes).any():  # the affine has no such directions
        return values, affine
    turned: Array = nib.orientations.apply_orientation(values, axes)
    return turned, affine @ nib.orientations.inv_ornt_aff(axes, values.shape[:3])


def draw_slices(values: Array, background: Array, space: Volume) -> Figure:
    """Draw axial slices through what a map covers, left being on the left side."""
    background, _ = turn(background, space.affine)
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
        axis.imshow(background[:, :, level].T, origin="lower", cmap="gray", aspect=aspect)
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
