"""The page on a treatment's results: one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.treatments.brain import draw_slices, draw_surface
from pyhrf_parallel.treatments.images import Array, Surface, Volume, load_mesh
from pyhrf_parallel.treatments.naming import shown

if TYPE_CHECKING:
    from pyhrf_parallel.treatments.fmri_data import FmriData

#: The status of regions that were not analysed, in the table of them.
FAILED, EMPTY = "failed", "empty"
_PANELS = 12  # regions whose responses are drawn
_LABELLED = 0.025  # of the whole time: a region's bar that has room for its label
_CERTAINTY = 1.96  # standard errors to each side: 95 % of a normal distribution
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
h1, h2 { font-weight: 600 } h2 { margin-top: 2em }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
img { max-width: 100%; height: auto } .failed { color: #a00 } figcaption { color: #555 } figure { margin: 1em 0 }
"""


def make_report(
    data: FmriData,
    maps: dict[str, Array],
    responses: pd.DataFrame | None,
    regions: pd.DataFrame,
    provenance: dict[str, Any],
    *,
    timeline: Sequence[JobSpan] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    data : FmriData
        What was analysed; its mean image is what maps are shown on.
    maps : dict of str to ndarray
        Values in the space of the images; z maps are shown, else the first ones.
    responses, regions : DataFrame
        As they are written.
    provenance : dict
        How all of it was made.
    timeline : sequence of JobSpan
        When jobs ran.
    """
    failed, empty = (regions[regions["status"] == status] for status in (FAILED, EMPTY))
    summary = f"{_count(len(regions), 'region')}, {_count(int(regions['n_voxels'].sum()), 'voxel')}"
    parts = [f"<h1>Treatment by region</h1><p>{summary}. {html.escape(provenance['analyser'])}</p>"]
    parts.append(_not_analysed(failed, empty))
    parts += _maps(maps, data)
    if responses is not None:
        drawn = _draw_responses(responses)
        parts.append("<h2>Haemodynamic responses</h2>" + _figure(drawn, "bands: 95 % confidence"))
    if timeline:
        drawn = _draw_timeline(timeline)
        parts.append("<h2>When the jobs ran</h2>" + _figure(drawn, _tell_times(timeline)))
    parts.append("<h2>How this was made</h2>" + _table(list(provenance.items())))
    title = "Treatment by region"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{''.join(parts)}\n</body></html>\n"
    )


def _not_analysed(failed: pd.DataFrame, empty: pd.DataFrame) -> str:
    if failed.empty and empty.empty:
        return "<p>All regions were analysed.</p>"
    parts = []
    for some, told in ((failed, "failed"), (empty, "without usable voxels")):
        rows = [
            (f"region {region}", f"{_count(int(n_voxels), 'voxel')}: {reason}")
            for region, n_voxels, reason in zip(
                some["region"], some["n_voxels"], some["reason"], strict=True
            )
        ]
        if rows:
            heading = f"{_count(len(rows), 'region')} {told}"
            parts.append(f'<h2 class="failed">{heading}</h2>{_table(rows)}')
    return "".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    cells = (
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _maps(maps: dict[str, Array], data: FmriData) -> list[str]:
    space = data.images[0]
    single = {name: values for name, values in maps.items() if values.ndim == 3}  # noqa: PLR2004
    drawn = {name: values for name, values in single.items() if name.endswith("_z")} or single
    if not drawn:
        return []
    if isinstance(space, Surface):
        if data.mesh is None:
            return ["<h2>Maps</h2><p>Without a mesh, maps of a surface are not drawn.</p>"]
        mesh = load_mesh(data.mesh)
        figures = [_figure(draw_surface(v[:, 0, 0], *mesh), name) for name, v in drawn.items()]
        return ["<h2>Maps, on the mesh</h2>", *figures]
    background = np.mean([i.mean() for i in data.images if isinstance(i, Volume)], axis=0)
    figures = [_figure(draw_slices(v, background, space), name) for name, v in drawn.items()]
    note = (
        "L and R are the left and the right of the subject."
        if space.knows_sides
        else ("The images do not say which side is left: they have neither a qform nor an sform.")
    )
    return ["<h2>Maps, on the mean BOLD image</h2>", f"<p>{note}</p>", *figures]


def _draw_responses(responses: pd.DataFrame) -> Figure:
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


def _draw_timeline(timeline: Sequence[JobSpan]) -> Figure:
    """Draw a bar for each step or region, those that ran one after the other in one row."""
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


def _tell_times(timeline: Sequence[JobSpan]) -> str:
    lasted = max(span.ended for span in timeline) - min(span.began for span in timeline)
    regions = [span.ended - span.began for span in timeline if span.name.startswith("region ")]
    hosts = ", ".join(sorted({span.host for span in timeline}))
    return (
        f"{lasted:.1f} s in all, {sum(regions):.1f} s of it in {len(regions)} regions (blue), on {hosts}; "
        "a job that begins imports the packages of the analysis before its first region"
    )


def _figure(figure: Figure, caption: str) -> str:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # of a name: it is in the caption or the tables, too
        figure.savefig(content, format="png")
    text, encoded = html.escape(caption), base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
