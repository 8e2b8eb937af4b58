"""Effects against known signals: percent that are percent, and modulation that counts as nilearn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, compute_regressor
from nilearn.maskers import NiftiMasker

from pyhrf_parallel.treatments import FIRAnalyser, FmriData, GLMAnalyser, ROITreatment
from tests.treatments.conftest import N_SCANS, SHAPE, TR, Subject

ONSETS = {"audio": np.array([3.0, 61.0, 119.0]), "video": np.array([32.0, 90.0])}


def write_events(path: Path, durations: dict[str, float], **columns: Any) -> Path:
    table = pd.concat(
        pd.DataFrame({"onset": onsets, "duration": durations[name], "trial_type": name})
        for name, onsets in ONSETS.items()
    )
    table.assign(**columns).to_csv(path, sep="\t", index=False)
    return path


def respond(subject: Subject, percents: dict[str, float], durations: dict[str, float]) -> None:
    """Let all voxels respond to single events, so high at the highest moment."""
    times, fine = np.arange(N_SCANS) * TR, np.arange(0, 120, TR / 50)
    signal = np.zeros(N_SCANS)
    for name, percent in percents.items():
        # Glover's response; the durations as an integral of it, and no part of the code that is tested.
        kernel, _ = compute_regressor(
            np.array([[0.0], [max(durations[name], 0.1)], [1.0]]), "glover", fine, oversampling=1
        )
        one = kernel[:, 0] / kernel[:, 0].max()
        for onset in ONSETS[name]:
            signal += percent * np.interp(times - onset, fine, one, left=0, right=0)
    noise = np.random.default_rng(2).normal(scale=0.1, size=(*SHAPE, N_SCANS))
    subject.runs = [(700 * (1 + (signal + noise) / 100)).astype(np.float32)]


def effects(data: FmriData, analyser: Any, place: Path, *names: str) -> dict[str, float]:
    ROITreatment(data, analyser, place).run()
    maps = {name: nib.load(place / f"{name}_effect.nii.gz").get_fdata() for name in names}
    return {name: float(np.nanmean(values)) for name, values in maps.items()}


@pytest.mark.parametrize("duration", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("hrf_model", ["glover", "spm + derivative"])
def test_effects_are_percent_signal_change(
    hrf_model: str, duration: float, subject: Subject, tmp_path: Path
) -> None:
    durations = dict.fromkeys(ONSETS, duration)
    respond(subject, {"audio": 2.0, "video": 1.0}, durations)
    data = subject.data(events=[write_events(subject.place / "e.tsv", durations)])
    contrasts = {
        "difference": {"audio": 1.0, "video": -1.0},
        "mean": {"audio": 0.5, "video": 0.5},
    }
    found = effects(
        data, GLMAnalyser(hrf_model, contrasts=contrasts), tmp_path / "out",
        "audio", "video", *contrasts,
    )  # fmt: skip
    expected = {"audio": 2.0, "video": 1.0, "difference": 1.0, "mean": 1.5}
    assert found == pytest.approx(expected, rel=0.2)


def test_conditions_of_different_lengths(subject: Subject, tmp_path: Path) -> None:
    """Each condition has the unit of its own events."""
    durations = {"audio": 0.0, "video": 20.0}
    respond(subject, {"audio": 2.0, "video": 1.0}, durations)
    data = subject.data(events=[write_events(subject.place / "e.tsv", durations)])
    found = effects(data, GLMAnalyser("glover"), tmp_path / "out", "audio", "video")
    assert found == pytest.approx({"audio": 2.0, "video": 1.0}, rel=0.2)


def test_an_effect_and_its_variance_have_one_scale(subject: Subject) -> None:
    durations = dict.fromkeys(ONSETS, 1.0)
    respond(subject, {"audio": 0.1, "video": 0.0}, durations)
    data = subject.data(events=[write_events(subject.place / "e.tsv", durations)])
    _, found, _ = ROITreatment(data, GLMAnalyser("glover")).execute()[0]
    t = found.maps["audio_effect"] / np.sqrt(found.maps["audio_variance"])
    z = found.maps["audio_z"]
    assert np.abs(t - z).max() < 0.1 * np.abs(t).max()


@pytest.mark.filterwarnings("ignore")  # nilearn's of this test's own use of it
def test_modulation_is_that_of_nilearn(subject: Subject, tmp_path: Path) -> None:
    modulation = [1.0, 0.5, 3.0, 1.0, 2.0]
    path = write_events(subject.place / "e.tsv", dict.fromkeys(ONSETS, 1.0), modulation=modulation)
    subject.runs = subject.runs[:1]
    data = subject.data(events=[path])
    ROITreatment(data, GLMAnalyser("glover"), tmp_path / "out").run()
    mask = nib.Nifti1Image((data.labels != 0).astype(np.int8), nib.load(data.bold[0]).affine)
    model = FirstLevelModel(
        t_r=TR, hrf_model="glover", mask_img=NiftiMasker(mask, dtype="float64").fit(),
        slice_time_ref=0,
    ).fit(data.bold[0], events=pd.read_csv(path, sep="\t"))  # fmt: skip
    for name in ONSETS:
        expected = model.compute_contrast(name, output_type="z_score").get_fdata()
        values = nib.load(tmp_path / "out" / f"{name}_z.nii.gz").get_fdata()
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_responses_are_those_to_an_event_of_modulation_1(subject: Subject) -> None:
    modulation = np.array([1.0, 0.5, 3.0, 1.0, 2.0])
    path = write_events(subject.place / "e.tsv", dict.fromkeys(ONSETS, 0.0), modulation=modulation)
    signal = np.zeros(N_SCANS)
    for onset, size in zip(np.concatenate([*ONSETS.values()]), modulation, strict=True):
        signal[int(onset // TR) + 3] += size
    subject.runs = [(100 + signal + np.random.default_rng(0).normal(size=(*SHAPE, N_SCANS)) / 50)]
    found = ROITreatment(subject.data(events=[path]), FIRAnalyser(10)).execute()[0][1]
    peaks = found.responses.groupby("condition")["response"].max()
    assert peaks["video"] == pytest.approx(1.0, rel=0.1)


def test_the_amplitude_of_a_paradigm_of_pyhrf_is_modulation(subject: Subject) -> None:
    path = subject.place / "paradigm.csv"
    path.write_text('0 "audio" 15.0 1.0 2.5\n0 "audio" 20.7 1.0 1\n1 "audio" 3.5 0.0 0.5\n')
    first, second = subject.data(events=path).design_tables[0]
    assert first["modulation"].tolist() == [2.5, 1.0]
    assert second["modulation"].tolist() == [0.5]


def test_columns_that_are_not_used_are_named(subject: Subject) -> None:
    path = write_events(
        subject.place / "e.tsv", dict.fromkeys(ONSETS, 1.0), amplitude=2.0, response_time=0.5
    )
    data = subject.data(events=[path, path])
    with pytest.warns(UserWarning, match=r"e\.tsv: .*not use the columns amplitude, response_time"):
        data.check()
