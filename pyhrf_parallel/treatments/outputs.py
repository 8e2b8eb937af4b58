"""The outputs of a treatment for people and other programs: images, tables and a page."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyhrf_parallel.treatment_jobs.ledger import Note, write
from pyhrf_parallel.treatment_jobs.region_files import OK, last_line
from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.images import Array
from pyhrf_parallel.treatments.region_analysis import NamesMaps
from pyhrf_parallel.treatments.region_data import Estimates, ROIData
from pyhrf_parallel.treatments.report import EMPTY, FAILED, make_report
from pyhrf_parallel.treatments.results import NO_VOXELS, Result

RESPONSES = "responses.tsv"
REGIONS = "regions.tsv"
MAPS = "maps.tsv"
REPORT = "report.html"
_STATUS = {OK: OK, NO_VOXELS: EMPTY}  # by what a result says
_LONGEST = 80  # bytes of a name of a file, without what kind of file it is
_KIND = 16  # characters of a last part, as in audio_effect, that stays as it is
_HARMLESS = frozenset("_-+.=@,")


def planned_names(analyser: Any, data: FmriData) -> list[str]:
    """Return the names of the files that an analysis will write, as far as they are known."""
    names = [MAPS, RESPONSES, REGIONS, REPORT]
    if not isinstance(analyser, NamesMaps):
        return names
    suffix = data.images[0].suffix
    files = file_names(analyser.map_names(data.outline())).values()
    return [*names, *(f"{file}{suffix}" for file in files)]


class Outputs:
    """The files of a treatment besides the list of results; nothing is written before `write`.

    Voxels of no region, and of regions that have failed, are NaN in the maps. A map is written to another
    name if there is a file that is not the treatment's own.

    Parameters
    ----------
    data : FmriData
        What was analysed.
    results : sequence of tuple
        Of all regions.
    place : Path
        The directory.
    is_foreign : callable
        Tells of a path whether a file is there that must stay.
    """

    def __init__(
        self, data: FmriData, results: Sequence[Result], place: Path,
        is_foreign: Callable[[Path], bool],
    ) -> None:  # fmt: skip
        self._data, self._results, self._place = data, results, place
        self._space = data.images[0]
        estimates = [
            (roi, found) for roi, found, report in results
            if report == OK and isinstance(found, Estimates)
        ]  # fmt: skip
        self._maps = _maps(estimates, self._space.shape[:3])
        self._responses = _responses(estimates)
        suffix = self._space.suffix
        there = place.iterdir() if place.is_dir() else ()
        taken = [
            path.name.removesuffix(suffix)
            for path in there if path.name.endswith(suffix) and is_foreign(path)
        ]  # fmt: skip
        self._files = {
            name: place / f"{file}{suffix}" for name, file in file_names(self._maps, taken).items()
        }

    @property
    def paths(self) -> list[Path]:
        """The files."""
        tables = [REGIONS, REPORT]
        tables += [RESPONSES] * (self._responses is not None) + [MAPS] * bool(self._files)
        return [*self._files.values(), *(self._place / name for name in tables)]

    def write(self, told: Mapping[str, Any], timeline: Sequence[JobSpan], note: Note) -> None:
        """Write maps, tables of responses, regions and maps, and the page."""
        for name, path in self._files.items():
            values = self._maps[name]
            write(path, partial(self._space.save_map, values), 4 * values.size, note)
        if self._files:
            rows = [(name, path.name) for name, path in self._files.items()]
            _write_table(
                self._place / MAPS, pd.DataFrame(rows, columns=pd.Index(["map", "file"])), note
            )
        if self._responses is not None:
            _write_table(self._place / RESPONSES, self._responses, note)
        regions = _regions(self._results)
        _write_table(self._place / REGIONS, regions, note)
        page = make_report(
            self._data, self._maps, self._responses, regions, dict(told), timeline=timeline
        )
        _write_text(self._place / REPORT, page, note)


def _maps(
    estimates: Sequence[tuple[ROIData, Estimates]], shape: tuple[int, ...]
) -> dict[str, Array]:
    """Return maps of all regions in the space of the images."""
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
        (roi.roi_id, roi.n_voxels, _STATUS.get(report, FAILED),
         "" if report == OK else last_line(report))
        for roi, _, report in results
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=pd.Index(["region", "n_voxels", "status", "reason"]))


def _write_table(path: Path, table: pd.DataFrame, note: Note) -> None:
    _write_text(path, table.to_csv(sep="\t", index=False, na_rep="n/a"), note)


def _write_text(path: Path, text: str, note: Note) -> None:
    write(path, lambda part: part.write_text(text, encoding="utf-8"), len(text), note)


def file_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a safe file name, without a suffix, for each name.

    Letters and digits of any language and some signs stay. Where anything is changed a checksum of the
    name is added, and where two names, or one and a taken one, would be the same to a file system that
    does not know small letters from capitals; what follows the last underscore stays at the end.

    Parameters
    ----------
    names : iterable of str
        Different ones.
    taken : iterable of str
        Names that may not be used.
    """
    used = {_folded(name) for name in taken}
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        own = _safe(name)
        if own != name or not own or len(own.encode()) > _LONGEST:
            own = _marked(name)
        for number in range(1, 99):
            if _folded(own) not in used:
                break
            own = _marked(name, str(number))
        used.add(_folded(own))
        found[name] = own
    return found


def _marked(name: str, salt: str = "") -> str:
    """Return a short name with a checksum of the whole."""
    base, separator, kind = name.rpartition("_")
    if not base or len(kind) > _KIND or _safe(kind) != kind:
        base, separator, kind = name, "", ""
    digits = hashlib.sha256((base + salt).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_cut(_safe(base), _LONGEST // 2) or '_'}-{digits}{separator}{kind}"


def _safe(name: str) -> str:
    normal = unicodedata.normalize("NFC", name)
    safe = "".join(c if c.isalnum() or c in _HARMLESS else "_" for c in normal)
    return f"_{safe[1:]}" if safe[:1] in {".", "-"} else safe


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
