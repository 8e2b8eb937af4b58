"""The report of a treatment: one HTML file that needs no other."""

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
from pyhrf_parallel.treatments.figures import (
    draw_responses,
    draw_slices,
    draw_surface,
    draw_timeline,
)
from pyhrf_parallel.treatments.images import Array, Surface, Volume, load_mesh

if TYPE_CHECKING:
    from pyhrf_parallel.treatments.fmri_data import FmriData

#: The status of regions that were not analysed, in the table of them.
FAILED, EMPTY = "failed", "empty"
_NO_THRESHOLD = "All values of the regions are shown, without a threshold."
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
        How the results were made.
    timeline : sequence of JobSpan
        When jobs ran.
    """
    failed, empty = (regions[regions["status"] == status] for status in (FAILED, EMPTY))
    summary = f"{_count(len(regions), 'region')}, {_count(int(regions['n_voxels'].sum()), 'voxel')}"
    parts = [f"<h1>Treatment by region</h1><p>{summary}. {html.escape(provenance['analyser'])}</p>"]
    parts.append(_not_analysed(failed, empty))
    parts += _maps(maps, data)
    if responses is not None:
        drawn = draw_responses(responses)
        parts.append("<h2>Haemodynamic responses</h2>" + _figure(drawn, "bands: 95 % confidence"))
    if timeline:
        drawn = draw_timeline(timeline)
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
        figures = [
            _figure(draw_surface(values[:, 0, 0], *mesh), _caption(name, values))
            for name, values in drawn.items()
        ]
        return ["<h2>Maps, on the mesh</h2>", f"<p>{_NO_THRESHOLD}</p>", *figures]
    background = np.mean([i.mean() for i in data.images if isinstance(i, Volume)], axis=0)
    figures = [
        _figure(draw_slices(values, background, space), _caption(name, values))
        for name, values in drawn.items()
    ]
    note = (
        "L and R are the left and the right of the subject; z is of the middle of a slice."
        if space.knows_sides
        else "The images do not say which side is left: they have neither a qform nor an sform."
    )
    return [
        "<h2>Maps, on the mean BOLD image</h2>",
        f"<p>{_NO_THRESHOLD} {note}</p>",
        *figures,
    ]


def _caption(name: str, values: Array) -> str:
    finite = values[np.isfinite(values)]
    return f"{name}, from {finite.min():.3g} to {finite.max():.3g}" if finite.size else name


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
