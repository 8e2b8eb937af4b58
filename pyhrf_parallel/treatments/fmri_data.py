"""The data of a treatment: BOLD runs, a parcellation and events, and the data of each region."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments.images import (
    Surface,
    Volume,
    check_space,
    check_tr,
    load_image,
    load_mesh,
    read_labels,
)
from pyhrf_parallel.treatments.inputs import is_temporary, path_of, paths_of
from pyhrf_parallel.treatments.region_data import ROIData
from pyhrf_parallel.treatments.signals import Signals, read_signals
from pyhrf_parallel.treatments.tables import (
    events_within,
    has_sessions,
    read_confounds,
    read_events,
)

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FmriData:
    """One subject's files.

    Parameters
    ----------
    bold : path or list of paths
        4-D NIfTI images, one for each run, of one shape and affine; or GIfTI images of the vertices of a
        surface. `of` takes images of nibabel, too.
    parcellation : path
        An image of whole numbers in the space of the BOLD images; 0, -1 and NaN are no region.
    events : path or list of paths
        For each run a table with a heading, as a BIDS ``events.tsv``, or a paradigm ``.csv`` of pyhrf; or one
        paradigm with a session for each run. `of` takes DataFrames, too.
    tr : float or None
        Repetition time, in seconds; None for that of the header.
    confounds : path or list of paths, optional
        For each run a tsv with a heading and a row for each scan, as fMRIPrep writes it.
    regions : list of int, optional
        Labels of the parcellation to be analysed; all by default.
    mesh : path, optional
        GIfTI mesh of the surface, to draw maps on.

    Raises
    ------
    TreatmentDataError
        When the data are read: if shapes, affines, repetition times, lengths or labels do not fit
        together, naming the file.
    """

    bold: tuple[str, ...]
    parcellation: str
    events: tuple[str, ...]
    tr: float
    confounds: tuple[str, ...] = ()
    regions: tuple[int, ...] = ()
    mesh: str | None = None

    @classmethod
    def of(
        cls, bold: Any, parcellation: Any, events: Any, tr: float | None = None,
        confounds: Any = None, *, regions: Iterable[int] = (), mesh: Any = None,
    ) -> FmriData:  # fmt: skip
        """Build from paths, which become absolute, from images and from DataFrames.

        Data in memory are written to a temporary directory of this process.
        """
        found_when_made: Any = tr
        return cls(
            paths_of(bold), path_of(parcellation), paths_of(events),
            found_when_made, () if confounds is None else paths_of(confounds),
            tuple(int(label) for label in regions), None if mesh is None else path_of(mesh),
        )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("bold", "events", "confounds"):  # one path is meant as a list of one
            given = getattr(self, name)
            is_one = isinstance(given, (str, os.PathLike))
            each = tuple(map(os.fspath, [given] if is_one else given))
            object.__setattr__(self, name, each)
        object.__setattr__(self, "parcellation", os.fspath(self.parcellation))
        tr: Any = self.tr
        object.__setattr__(self, "tr", self._header_tr() if tr is None else float(tr))

    def __reduce__(self) -> tuple[Any, ...]:
        # Data that have been read do not travel.
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    @property
    def files(self) -> list[str]:
        """All files that are read."""
        files = [*self.bold, self.parcellation, *dict.fromkeys(self.events), *self.confounds]
        return files if self.mesh is None else [*files, self.mesh]

    @cached_property
    def images(self) -> list[Volume | Surface]:
        """The BOLD images, checked; their data are read when they are needed."""
        if not self.bold:
            raise TreatmentDataError("no BOLD image given")
        images = [load_image(path, 4) for path in self.bold]
        for image in images:
            check_space(image, images[0])
            check_tr(image, self.tr)
        return images

    @property
    def is_temporary(self) -> bool:
        """Whether some files are removed when this process ends."""
        return any(is_temporary(path) for path in self.files)

    @cached_property
    def labels(self) -> NDArray[np.integer[Any]]:
        """The parcellation, in the shape of the images; voxels without a usable signal have 0."""
        return self._drop([read_signals(image, self._parcels != 0) for image in self.images])

    @cached_property
    def _parcels(self) -> NDArray[np.integer[Any]]:
        """The regions to be analysed, with all their voxels."""
        labels = read_labels(self.parcellation, self.images[0])
        if unknown := set(self.regions).difference(np.unique(labels).tolist()):
            raise TreatmentDataError(f"{self.parcellation}: there is no region {min(unknown)}")
        if self.regions:
            labels[~np.isin(labels, self.regions)] = 0
        return labels

    def _drop(self, scanned: Sequence[Signals]) -> NDArray[np.integer[Any]]:
        """Return the regions without voxels that lack a usable signal in some run."""
        vars(self)["_centred"] = [
            path for path, one in zip(self.bold, scanned, strict=True) if one.is_centred
        ]
        labels = self._parcels.copy()
        inside = labels != 0
        labels[inside] *= np.all([one.usable for one in scanned], axis=0)
        if not labels.any():
            raise TreatmentDataError(
                f"{self.parcellation}: no region has a voxel with a usable signal in {self.bold[0]}"
            )
        return labels

    @cached_property
    def n_dropped(self) -> int:
        """The number of voxels that are left out because they have no usable signal."""
        return int(np.count_nonzero(self._parcels) - np.count_nonzero(self.labels))

    @cached_property
    def empty_ids(self) -> list[int]:
        """The labels of the regions in which no voxel has a usable signal."""
        empty = set(np.unique(self._parcels).tolist()).difference(np.unique(self.labels).tolist())
        return sorted(empty - {0})

    @cached_property
    def centred(self) -> list[str]:
        """The BOLD images whose signals have no mean, so that nothing can be percent of it."""
        _ = self.labels
        found: list[str] = vars(self)["_centred"]
        return found

    @cached_property
    def roi_ids(self) -> list[int]:
        """The labels of the regions, the biggest first; regions of the same size by label."""
        ids, sizes = np.unique(self.labels[self.labels != 0], return_counts=True)
        return [int(ids[i]) for i in np.argsort(-sizes, kind="stable")]

    @cached_property
    def design_tables(self) -> tuple[list[pd.DataFrame], list[pd.DataFrame] | None]:
        """Events and confounds of each run, checked against its length."""
        n_runs = len(self.images)
        scans = [image.shape[3] for image in self.images]
        is_one_for_all = len(self.events) == 1 and n_runs > 1
        paths = self.events * n_runs if is_one_for_all else self.events
        if is_one_for_all and not has_sessions(Path(self.events[0])):
            raise TreatmentDataError(
                f"{self.events[0]} has the events of one run, and there are {n_runs}: give a list with one "
                "file for each run, the same one again if that is meant"
            )
        if len(paths) != n_runs or len(self.confounds) not in (0, n_runs):
            raise TreatmentDataError(
                f"{n_runs} BOLD runs, {len(self.events)} files of events, {len(self.confounds)} of "
                "confounds: give as many of each (confounds may be left out)"
            )
        events = []
        for run, (path, n_scans) in enumerate(zip(paths, scans, strict=True)):
            sessions = n_runs if is_one_for_all else 1
            table = read_events(Path(path), run if sessions > 1 else 0, sessions)
            events.append(events_within(path, table, n_scans * self.tr))
        if not self.confounds:
            return events, None
        return events, [
            read_confounds(Path(path), n) for path, n in zip(self.confounds, scans, strict=True)
        ]

    def rois(self) -> Iterator[ROIData]:
        """Yield the data of each region in the order of `roi_ids`."""
        events, confounds = self.design_tables
        parcels = self._parcels
        inside = parcels != 0
        scanned = [read_signals(image, inside, keep=True) for image in self.images]
        if "labels" not in vars(self):  # found in the same pass
            vars(self)["labels"] = self._drop(scanned)
        # Rows, and not a mask over the whole image for each region.
        labels = self.labels[inside]
        order = np.argsort(labels, kind="stable")
        ids, starts = np.unique(labels[order], return_index=True)
        rows_of = dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True))
        voxels = np.argwhere(inside)
        for roi_id in self.roi_ids:
            rows = rows_of[roi_id]
            # The memory layout is part of the result: sums over it differ in the last bits.
            signals: list[Array] = [
                np.ascontiguousarray(one.signals[rows].T, np.float64) for one in scanned
            ]
            yield ROIData(roi_id, signals, voxels[rows], events, confounds, self.tr)

    @cached_property
    def roi_shapes(self) -> list[tuple[int, int]]:
        """The numbers of scans (of all runs) and voxels of each region, in the order of `roi_ids`."""
        scans = sum(image.shape[3] for image in self.images)
        ids, sizes = np.unique(self.labels, return_counts=True)
        by_id = dict(zip(ids.tolist(), sizes.tolist(), strict=True))
        return [(scans, by_id[roi_id]) for roi_id in self.roi_ids]

    def region(self, roi_id: int) -> ROIData:
        """Return a region without its signals, as results have it."""
        events, _ = self.design_tables
        return ROIData(roi_id, [], np.argwhere(self.labels == roi_id), events, None, self.tr)

    def outline(self) -> ROIData:
        """Return the data without voxels, on which the model depends."""
        events, confounds = self.design_tables
        signals: list[Array] = [np.empty((image.shape[3], 0)) for image in self.images]
        return ROIData(0, signals, np.empty((0, 3), np.int64), events, confounds, self.tr)

    def only(self, regions: Sequence[int]) -> FmriData:
        """Return the data of some regions."""
        return self if set(regions) == set(self.roi_ids) else replace(self, regions=tuple(regions))

    def check(self) -> None:
        """Read and check everything.

        Raises
        ------
        TreatmentDataError
            Saying which file does not fit, and what was expected.
        """
        _ = self.roi_ids, self.design_tables
        if self.mesh is not None:
            n_points, n_vertices = len(load_mesh(self.mesh)[0]), self.images[0].shape[0]
            if not isinstance(self.images[0], Surface) or n_points != n_vertices:
                raise TreatmentDataError(
                    f"{self.mesh} has {n_points} points, and is not a mesh of {self.bold[0]}, shape "
                    f"{self.images[0].shape[:3]}"
                )

    def moved(self, directory: str | os.PathLike[str]) -> FmriData:
        """Return data with the same file names in another directory."""
        return self.renamed(
            {path: os.path.join(directory, os.path.basename(path)) for path in self.files}  # noqa: PTH118, PTH119
        )

    def renamed(self, paths: Mapping[str, str]) -> FmriData:
        """Return data with other paths, given by the present ones."""
        return replace(
            self,
            bold=tuple(paths[path] for path in self.bold),
            parcellation=paths[self.parcellation],
            events=tuple(paths[path] for path in self.events),
            confounds=tuple(paths[path] for path in self.confounds),
            mesh=None if self.mesh is None else paths[self.mesh],
        )

    def _header_tr(self) -> float:
        """Return the TR in the header of the first image."""
        image = load_image(self.bold[0], 4) if self.bold else None
        if image is None or not image.tr_is_known:
            raise TreatmentDataError(
                f"{self.bold[0] if self.bold else 'no BOLD image'}: its header has no TR that can be relied "
                "on (many programs leave 0 or 1 there): give tr, in seconds"
            )
        return image.tr
