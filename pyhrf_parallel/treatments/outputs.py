"""What a treatment writes for people and other programs: images, tables, provenance."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyhrf_parallel.account import user_name
from pyhrf_parallel.treatment_jobs.failures import OK, last_line
from pyhrf_parallel.treatment_jobs.interface import JobSpan
from pyhrf_parallel.treatments.analysers import Estimates
from pyhrf_parallel.treatments.fmri_data import FmriData, ROIData
from pyhrf_parallel.treatments.images import Array
from pyhrf_parallel.treatments.report import make_report
from pyhrf_parallel.treatments.results import Analyser, Result
from pyhrf_parallel.version import __version__

RESPONSES = "responses.tsv"
REGIONS = "regions.tsv"
PROVENANCE = "provenance.json"
REPORT = "report.html"
_PACKAGES = ("nibabel", "nilearn", "numpy", "pandas", "scipy")


def write_outputs(
    data: FmriData, analyser: Analyser, results: Sequence[Result], place: Path,
    timeline: Sequence[JobSpan] = (),
) -> list[Path]:  # fmt: skip
    """Write the maps, the responses, a table of the regions, how all of it was made, and a page on it.

    Returns
    -------
    list of Path
        The files, in the directory `place`. Voxels of no region, and of regions that have failed,
        are NaN in the maps.
    """
    place.mkdir(parents=True, exist_ok=True)
    estimates = [(roi, found) for roi, found, _ in results if isinstance(found, Estimates)]
    space = data.images[0]
    maps = _maps(estimates, space.shape[:3])
    files = [
        _write(place / f"{name}{space.suffix}", partial(space.save_map, values))
        for name, values in maps.items()
    ]
    responses = _responses(estimates)
    if responses is not None:
        files.append(_write_table(place / RESPONSES, responses))
    regions, provenance = _regions(results), _provenance(data, analyser, results)
    files.append(_write_table(place / REGIONS, regions))
    files.append(_write_text(place / PROVENANCE, json.dumps(provenance, indent=2)))
    page = make_report(data, maps, responses, regions, provenance, timeline=timeline)
    return [*files, _write_text(place / REPORT, page)]


def _maps(
    estimates: Sequence[tuple[ROIData, Estimates]], shape: tuple[int, ...]
) -> dict[str, Array]:
    """Put the values of all regions into the space of the images."""
    names = {name: array.shape[1:] for _, found in estimates for name, array in found.maps.items()}
    maps: dict[str, Array] = {}
    for name, rest in names.items():
        volume = np.full((*shape, *rest), np.nan)
        for roi, found in estimates:
            if name in found.maps:
                volume[tuple(roi.voxels.T)] = found.maps[name]
        maps[name] = volume
    return maps


def _responses(estimates: Sequence[tuple[ROIData, Estimates]]) -> pd.DataFrame | None:
    tables = [
        found.responses.assign(region=roi.roi_id, n_voxels=roi.n_voxels)
        for roi, found in estimates
        if found.responses is not None
    ]
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    first = ["region", "n_voxels"]
    return table[first + [name for name in table if name not in first]]


def _regions(results: Sequence[Result]) -> pd.DataFrame:
    rows = [
        (roi.roi_id, roi.n_voxels, OK if report == OK else "failed",
         "" if report == OK else last_line(report))
        for roi, _, report in results
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=pd.Index(["region", "n_voxels", "status", "reason"]))


def _provenance(data: FmriData, analyser: Analyser, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "analyser": repr(analyser),
        "bold": list(data.bold),
        "parcellation": data.parcellation,
        "events": list(data.events),
        "confounds": list(data.confounds),
        "tr_seconds": data.tr,
        "n_regions": len(results),
        "n_voxels": sum(roi.n_voxels for roi, _, _ in results),
        "n_voxels_dropped": data.n_dropped,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "by": f"{user_name()}@{platform.node()}",
        "versions": {"python": platform.python_version(), "pyhrf_parallel": __version__}
        | {name: version(name) for name in _PACKAGES},
    }


def _write_table(path: Path, table: pd.DataFrame) -> Path:
    return _write(path, partial(table.to_csv, sep="\t", index=False, na_rep="n/a"))


def _write_text(path: Path, text: str) -> Path:
    return _write(path, lambda part: part.write_text(text, encoding="utf-8"))


def _write(path: Path, save: Callable[[Path], object]) -> Path:
    """Save under a temporary name of the same kind first: a file with its real name is complete."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
