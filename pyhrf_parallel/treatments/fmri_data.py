"""The data of a treatment: BOLD runs, a parcellation, events; and what of them one region has."""

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
from pyhrf_parallel.treatments.images import Surface, Volume, load_image, load_mesh
from pyhrf_parallel.treatments.tables import read_confounds, read_events

Array = NDArray[np.floating[Any]]
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_TR_TOLERANCE = 0.01  # of the header's value


@dataclass
class ROIData:
    """What an analyser gets: the data of one region.

    Attributes
    ----------
    roi_id : int
        Its label in the parcellation.
    signals : list of ndarray of shape (n_scans, n_voxels)
        For each run, in the unit of the images.
    voxels : ndarray of shape (n_voxels, 3)
        Indices of the voxels in the images.
    events : list of DataFrame
        For each run: ``onset`` and ``duration`` in seconds, ``trial_type``, and perhaps ``modulation``.
    confounds : list of DataFrame or None
        For each run, shape (n_scans, n_confounds).
    tr : float
        Repetition time, in seconds.
    """

    roi_id: int
    signals: list[Array]
    voxels: NDArray[np.integer[Any]]
    events: list[pd.DataFrame]
    confounds: list[pd.DataFrame] | None
    tr: float

    @property
    def n_voxels(self) -> int:
        """The number of voxels."""
        return len(self.voxels)

    def without_signals(self) -> ROIData:
        """Return what is worth keeping beside a result."""
        return replace(self, signals=[], confounds=None)


@dataclass(frozen=True)
class FmriData:
    """One subject's files.

    Parameters
    ----------
    bold : path or list of paths
        4-D NIfTI images, one for each run, of one shape and affine; or GIfTI images of the vertices of a
        surface.
    parcellation : path
        An image of whole numbers in the space of the BOLD images; 0 is no region.
    events : path or list of paths
        For each run a BIDS ``events.tsv`` or a paradigm ``.csv`` of pyhrf; or one paradigm with a session
        for each run.
    tr : float
        Repetition time, in seconds.
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
        cls, bold: Files, parcellation: str | os.PathLike[str], events: Files, tr: float,
        confounds: Files | None = None, *, regions: Iterable[int] = (),
        mesh: str | os.PathLike[str] | None = None,
    ) -> FmriData:  # fmt: skip
        """Make it of paths of any kind, relative ones being made absolute."""
        return cls(
            _paths(bold), os.path.abspath(parcellation), _paths(events), float(tr),  # noqa: PTH100
            _paths(confounds or ()), tuple(int(label) for label in regions),
            None if mesh is None else os.path.abspath(mesh),  # noqa: PTH100
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        # What has been read does not travel.
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
            _check_space(image, images[0])
            self._check_tr(image)
        return images

    @cached_property
    def labels(self) -> NDArray[np.integer[Any]]:
        """The parcellation, shape as the images'; voxels without a usable signal have 0."""
        return self._drop([_scan(image, self._parcels != 0) for image in self.images])

    @cached_property
    def _parcels(self) -> NDArray[np.integer[Any]]:
        """The regions to be analysed, with all their voxels."""
        bold, image = self.images[0], load_image(self.parcellation, 3)
        _check_space(image, bold)
        values = image.values()
        rounded = np.round(values)
        if not np.array_equal(values, rounded):
            raise TreatmentDataError(f"{self.parcellation}: its labels are not whole numbers")
        labels: NDArray[np.int64] = rounded.astype(np.int64)
        if unknown := set(self.regions).difference(np.unique(labels).tolist()):
            raise TreatmentDataError(f"{self.parcellation}: there is no region {min(unknown)}")
        if self.regions:
            labels[~np.isin(labels, self.regions)] = 0
        return labels

    def _drop(self, scanned: Sequence[_Scanned]) -> NDArray[np.integer[Any]]:
        """Return the regions without the voxels that some run has no usable signal of."""
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
        """How many voxels of regions have no usable signal, and are left out."""
        return int(np.count_nonzero(self._parcels) - np.count_nonzero(self.labels))

    @cached_property
    def roi_ids(self) -> list[int]:
        """The labels of the regions, the biggest first; of the same size in their order."""
        ids, sizes = np.unique(self.labels[self.labels != 0], return_counts=True)
        return [int(ids[i]) for i in np.argsort(-sizes, kind="stable")]

    @cached_property
    def design_tables(self) -> tuple[list[pd.DataFrame], list[pd.DataFrame] | None]:
        """Events and confounds of each run, checked against its length."""
        n_runs = len(self.images)
        scans = [image.shape[3] for image in self.images]
        paths = self.events if len(self.events) == n_runs else self.events * n_runs
        if len(paths) != n_runs or len(self.confounds) not in (0, n_runs):
            raise TreatmentDataError(
                f"{n_runs} BOLD runs, {len(self.events)} files of events, {len(self.confounds)} of "
                "confounds: give as many of each (confounds may be left out)"
            )
        events = []
        for run, (path, n_scans) in enumerate(zip(paths, scans, strict=True)):
            sessions = n_runs if len(self.events) == 1 else 1
            events.append(read_events(Path(path), run if sessions > 1 else 0, sessions))
            _check_onsets(path, events[-1], n_scans * self.tr)
        if not self.confounds:
            return events, None
        return events, [
            read_confounds(Path(path), n) for path, n in zip(self.confounds, scans, strict=True)
        ]

    def rois(self) -> Iterator[ROIData]:
        """Give the data of each region in the order of `roi_ids`."""
        events, confounds = self.design_tables
        parcels = self._parcels
        inside = parcels != 0
        scanned = [_scan(image, inside, keep=True) for image in self.images]
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
        """How many scans of all runs and voxels each region has, in the order of `roi_ids`."""
        scans = sum(image.shape[3] for image in self.images)
        ids, sizes = np.unique(self.labels, return_counts=True)
        by_id = dict(zip(ids.tolist(), sizes.tolist(), strict=True))
        return [(scans, by_id[roi_id]) for roi_id in self.roi_ids]

    def region(self, roi_id: int) -> ROIData:
        """Return a region without its signals, as results have it."""
        events, _ = self.design_tables
        return ROIData(roi_id, [], np.argwhere(self.labels == roi_id), events, None, self.tr)

    def outline(self) -> ROIData:
        """Return the data without any voxel: what a model depends on."""
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
                    f"{self.mesh} has {n_points} points, and is no mesh of {self.bold[0]}, shape "
                    f"{self.images[0].shape[:3]}"
                )

    def moved(self, directory: str | os.PathLike[str]) -> FmriData:
        """Return the same files in another directory."""
        return self.renamed(
            {path: os.path.join(directory, os.path.basename(path)) for path in self.files}  # noqa: PTH118, PTH119
        )

    def renamed(self, paths: Mapping[str, str]) -> FmriData:
        """Return the data with other paths, by those that they have."""
        return replace(
            self,
            bold=tuple(paths[path] for path in self.bold),
            parcellation=paths[self.parcellation],
            events=tuple(paths[path] for path in self.events),
            confounds=tuple(paths[path] for path in self.confounds),
            mesh=None if self.mesh is None else paths[self.mesh],
        )

    def _check_tr(self, image: Volume | Surface) -> None:
        if not 0 < self.tr < np.inf:
            raise TreatmentDataError(f"the TR is {self.tr:g} s")
        # Many programs leave 0 or 1 there.
        if image.tr not in (0, 1) and abs(image.tr - self.tr) > _TR_TOLERANCE * image.tr:
            raise TreatmentDataError(
                f"{image.path}: its header has a TR of {image.tr:g} s, and {self.tr:g} s was given"
            )


@dataclass(frozen=True)
class _Scanned:
    """What a pass over an image has found in the voxels of regions.

    Attributes
    ----------
    usable : ndarray of bool of shape (n_voxels,)
        Where the signal is finite, not constant and positive on average.
    signals : ndarray of shape (n_voxels, n_scans)
        Empty if they were not to be kept.
    """

    usable: NDArray[np.bool_]
    signals: Array


def _scan(image: Volume | Surface, inside: NDArray[np.bool_], *, keep: bool = False) -> _Scanned:
    """Read an image once."""
    n_voxels, n_scans = np.count_nonzero(inside), image.shape[3]
    low, high = np.full(n_voxels, np.inf), np.full(n_voxels, -np.inf)
    total, finite = np.zeros(n_voxels), np.ones(n_voxels, bool)
    signals: Array = np.empty((0, 0))
    start = 0
    for scans in image.blocks():
        block = scans[inside]
        if keep and start == 0:
            signals = np.empty((n_voxels, n_scans), block.dtype)
        if keep:
            signals[:, start : start + block.shape[1]] = block
        start += block.shape[1]
        finite &= np.isfinite(block).all(axis=1)
        with np.errstate(invalid="ignore"):
            np.minimum(low, block.min(axis=1), out=low)
            np.maximum(high, block.max(axis=1), out=high)
            total += block.sum(axis=1, dtype=np.float64)
    return _Scanned(finite & (high > low) & (total > 0), signals)


def _paths(files: Files) -> tuple[str, ...]:
    one = isinstance(files, (str, os.PathLike))
    each: Sequence[str | os.PathLike[str]] = [files] if one else files  # type: ignore[assignment,list-item]
    return tuple(os.path.abspath(path) for path in each)  # noqa: PTH100


def _check_space(image: Volume | Surface, reference: Volume | Surface) -> None:
    if reason := image.is_like(reference):
        raise TreatmentDataError(f"{reason}: resample one of them")


def _check_onsets(path: str, events: pd.DataFrame, end: float) -> None:
    last = events["onset"].max()
    if last >= end or events["onset"].min() < 0:
        raise TreatmentDataError(
            f"{path}: onsets from {events['onset'].min():g} to {last:g} s, and the scans are from 0 to "
            f"{end:g} s"
        )
