"""The data of a treatment: what is read, and what is refused before anything is analysed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.treatments import FmriData
from tests.treatments.conftest import AFFINE, N_SCANS, SHAPE, Subject


def test_regions_are_given_biggest_first_with_their_signals(subject: Subject) -> None:
    rois = list(subject.data().rois())
    assert [(roi.roi_id, roi.n_voxels) for roi in rois] == [(7, 60), (2, 40), (30, 20)]
    for roi in rois:
        assert (subject.labels[tuple(roi.voxels.T)] == roi.roi_id).all()
        for run, signals in zip(subject.runs, roi.signals, strict=True):
            assert np.array_equal(signals.T, run[tuple(roi.voxels.T)])


def test_unusable_voxels_are_dropped_and_counted(subject: Subject) -> None:
    subject.runs[0][0, 0, 0] = 5  # constant
    subject.runs[1][3, 0, 0, 8] = np.nan
    subject.runs[1][5] = 0  # a region without any
    data = subject.data()
    assert data.n_dropped == 22
    assert [(roi.roi_id, roi.n_voxels) for roi in data.rois()] == [(7, 59), (2, 39)]


def test_negative_labels_and_sizes_that_are_equal(subject: Subject) -> None:
    subject.labels[:] = 0
    subject.labels[0], subject.labels[1] = 4, -2
    assert subject.data().roi_ids == [-2, 4]


def test_a_paradigm_of_pyhrf(subject: Subject) -> None:
    path = subject.place / "paradigm.csv"
    path.write_text('0 "audio" 15.0 0.0\n0 "video" 20.7 0.0\n1 "audio" 3.5 0.0\n')
    first, second = subject.data(events=path).design_tables[0]
    assert first["onset"].tolist() == [15.0, 20.7]
    assert second["trial_type"].tolist() == ["audio"]
    path.write_text("0 audio 15.0\n1 audio 7.0\n")
    assert subject.data(events=path).design_tables[0][1]["duration"].tolist() == [0.0]


def test_what_travels_is_not_what_was_read(subject: Subject) -> None:
    data = subject.data()
    data.check()
    assert len(pickle.dumps(data)) < 2000
    assert pickle.loads(pickle.dumps(data)) == data


def test_confounds(subject: Subject) -> None:
    path = subject.place / "confounds.tsv"
    table = pd.DataFrame({"trans_x": np.arange(N_SCANS, dtype=float)})
    table["trans_x_derivative"] = table["trans_x"].diff()
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    _, confounds = subject.data(confounds=[path, path]).design_tables
    assert confounds is not None
    assert confounds[1]["trans_x_derivative"].tolist() == [1.0] * N_SCANS


def spoil_affine(subject: Subject) -> FmriData:
    data = subject.data()
    nib.save(nib.Nifti1Image(subject.labels, 2 * AFFINE), data.parcellation)
    return data


def spoil_shape(subject: Subject) -> FmriData:
    subject.labels = subject.labels[:-1]
    return subject.data()


def spoil_dimensions(subject: Subject) -> FmriData:
    subject.runs[1] = subject.runs[1][..., 0]
    nib.save(nib.Nifti1Image(subject.runs[1], AFFINE), subject.place / "bold_1.nii.gz")
    runs = subject.runs
    subject.runs = runs[:1]
    return subject.data(bold=[subject.place / "bold_0.nii.gz", subject.place / "bold_1.nii.gz"])


def spoil_tr(subject: Subject) -> FmriData:
    subject.tr = 2.4
    return subject.data()


def spoil_labels(subject: Subject) -> FmriData:
    subject.labels = subject.labels + 0.5
    return subject.data()


def no_regions(subject: Subject) -> FmriData:
    subject.labels[:] = 0
    return subject.data()


def late_onset(subject: Subject) -> FmriData:
    path = subject.place / "late.tsv"
    path.write_text("onset\tduration\ttrial_type\n200\t1\taudio\n")
    return subject.data(events=[path, path])


def no_onset(subject: Subject) -> FmriData:
    path = subject.place / "none.tsv"
    path.write_text("onset\tduration\ttrial_type\n3\t1\taudio\nn/a\t1\taudio\n")
    return subject.data(events=[path, path])


def negative_duration(subject: Subject) -> FmriData:
    path = subject.place / "back.tsv"
    path.write_text("onset\tduration\ttrial_type\n3\t-1\taudio\n")
    return subject.data(events=[path, path])


def unknown_modulation(subject: Subject) -> FmriData:
    path = subject.place / "mod.tsv"
    lines = ("onset\tduration\ttrial_type\tmodulation", "3\t1\taudio\t2", "9\t1\taudio\tn/a")
    path.write_text("\n".join(lines))
    return subject.data(events=[path, path])


def no_column(subject: Subject) -> FmriData:
    path = subject.place / "column.tsv"
    path.write_text("onset\tduration\n3\t1\n")
    return subject.data(events=[path, path])


def sessions(subject: Subject) -> FmriData:
    path = subject.place / "one.csv"
    path.write_text("0 audio 15.0\n")
    return subject.data(events=path)


def few_events(subject: Subject) -> FmriData:
    return subject.data(events=[subject.events(0)] * 3)


def short_confounds(subject: Subject) -> FmriData:
    path = subject.place / "confounds.tsv"
    path.write_text("x\n1\n2\n")
    return subject.data(confounds=[path, path])


def missing_file(subject: Subject) -> FmriData:
    return subject.data(bold=subject.place / "none.nii.gz", events=subject.events(0))


def no_image(subject: Subject) -> FmriData:
    return subject.data(bold=subject.events(0), events=subject.events(0))


def truncated(subject: Subject) -> FmriData:
    data = subject.data()
    path = subject.place / "short.nii.gz"
    path.write_bytes(Path(data.bold[0]).read_bytes()[:20_000])
    return replace(data, bold=(str(path), data.bold[1]))


def unknown_region(subject: Subject) -> FmriData:
    return replace(subject.data(), regions=(7, 8))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_affine, r"parcellation.nii.gz and .*bold_0.* different affines: resample"),
        (spoil_shape, r"parcellation.nii.gz has shape \(5, 5, 4\), and .*bold_0.* has \(6, 5, 4\)"),
        (spoil_dimensions, r"bold_1.nii.gz has shape \(6, 5, 4\): 4 dimensions"),
        (spoil_tr, r"bold_0.nii.gz: its header has a TR of 2 s, and 2.4 s was given"),
        (spoil_labels, r"parcellation.nii.gz: its labels are not whole numbers"),
        (no_regions, r"no region has a voxel with a usable signal"),
        (late_onset, r"late.tsv: onsets from 200 to 200 s, and the scans are from 0 to 180 s"),
        (no_onset, r"none.tsv: event 1 needs an onset and a duration >= 0 in seconds"),
        (negative_duration, r"back.tsv: event 0 needs an onset and a duration >= 0"),
        (unknown_modulation, r"mod.tsv: event 1 needs .*, and a modulation \(1: as it is\)"),
        (no_column, r"column.tsv: no column trial_type"),
        (sessions, r"one.csv: 1 sessions for 2 BOLD runs"),
        (few_events, r"2 BOLD runs, 3 files of events"),
        (short_confounds, r"confounds.tsv: 2 rows for a run of 90 scans"),
        (missing_file, r"none.nii.gz cannot be read as an image"),
        (no_image, r"events_0.tsv cannot be read as an image"),
        (truncated, r"short.nii.gz is damaged, from scan \d+ on"),
        (unknown_region, r"parcellation.nii.gz: there is no region 8"),
    ],
)
def test_what_does_not_fit_is_told_with_its_file(
    subject: Subject, spoil: Callable[[Subject], FmriData], told: str
) -> None:
    with pytest.raises(TreatmentDataError, match=told):
        spoil(subject).check()


def test_relative_paths_are_those_of_now(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = subject.data()
    monkeypatch.chdir(subject.place)
    relative = FmriData.of(
        [Path(path).name for path in data.bold], "parcellation.nii.gz",
        [Path(path).name for path in data.events], 2.0,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert relative == data
    assert relative.labels.shape == SHAPE
