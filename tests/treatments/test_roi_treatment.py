"""`ROITreatment`: the same results however it is run, the same as nilearn's, and failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, compute_regressor
from nilearn.maskers import NiftiMasker

from pyhrf_parallel import (
    ConfigurationError,
    TreatmentDataError,
    TreatmentError,
    load_results,
    remote_map,
)
from pyhrf_parallel.backends import MODES, Mode
from pyhrf_parallel.treatments import (
    Estimates,
    FIRAnalyser,
    FmriData,
    GLMAnalyser,
    ROIData,
    ROITreatment,
)
from tests.treatments import analyses
from tests.treatments.conftest import SHAPE, Subject

DIFFERENCE = {"audio-video": {"audio": 1.0, "video": -1.0}}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # The last bits of a result depend on the number of threads of the linear algebra.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def image(path: Path) -> Any:
    return nib.load(path).get_fdata()


def real_subject(place: Path) -> FmriData:
    return FmriData.of(
        place / "subj0_bold_session0.nii.gz", place / "subj0_parcellation.nii.gz",
        place / "paradigm_loc_av.csv", tr=2.4,
    )  # fmt: skip


def nilearn_model(data: FmriData, hrf_model: str) -> Any:
    mask = nib.Nifti1Image((data.labels != 0).astype(np.int8), nib.load(data.bold[0]).affine)
    masker = NiftiMasker(mask, dtype="float64").fit()  # it reads single precision unasked
    return FirstLevelModel(t_r=data.tr, hrf_model=hrf_model, mask_img=masker, slice_time_ref=0)


def peak_of_an_event(hrf_model: str, tr: float, duration: float) -> float:
    """Return how high nilearn's regressor of one event rises, at its best moment between scans."""
    times = np.arange(60) * tr
    regressors = [
        compute_regressor(np.array([[20 + late], [duration], [1.0]]), hrf_model, times)[0][:, 0]
        for late in np.arange(0, tr, tr / 50)
    ]
    return float(np.max(regressors))


@pytest.mark.filterwarnings("ignore")  # nilearn's of this test's own use of it
def test_the_glm_is_that_of_nilearn(real_data: Path, tmp_path: Path) -> None:
    data = real_subject(real_data)
    analyser = GLMAnalyser(hrf_model="glover + derivative", contrasts=DIFFERENCE)
    ROITreatment(data, analyser, tmp_path).run()
    model = nilearn_model(data, "glover + derivative")
    model.fit(data.bold[0], events=data.design_tables[0][0])
    inside = data.labels != 0
    peak = peak_of_an_event("glover", 2.4, 0.0)
    scale = {"effect": peak, "variance": peak**2}
    for name, weights in {"audio": "audio", "audio-video": "audio-video"}.items():
        found = model.compute_contrast(weights, output_type="all")
        for ours, theirs in (
            ("effect", "effect_size"),
            ("variance", "effect_variance"),
            ("z", "z_score"),
        ):
            expected = found[theirs].get_fdata()[inside] * scale.get(ours, 1.0)
            values = image(tmp_path / f"{name}_{ours}.nii.gz")[inside]
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_several_runs_are_combined_as_nilearn_does(subject: Subject, tmp_path: Path) -> None:
    data = subject.data()
    ROITreatment(data, GLMAnalyser(hrf_model="spm"), tmp_path / "out").run()
    model = nilearn_model(data, "spm")
    model.fit(list(data.bold), events=data.design_tables[0])
    for ours, theirs in (("effect", "effect_size"), ("z", "z_score")):
        expected = model.compute_contrast("video", output_type=theirs).get_fdata()
        expected *= peak_of_an_event("spm", 2.0, 1.0) if ours == "effect" else 1.0
        values = image(tmp_path / "out" / f"video_{ours}.nii.gz")
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("analyser", [GLMAnalyser(contrasts=DIFFERENCE), FIRAnalyser()])
def test_the_same_in_every_bit_however_it_is_run(
    analyser: Any, real_data: Path, tmp_path: Path
) -> None:
    found = {}
    for mode in MODES:
        treatment = ROITreatment(real_subject(real_data), analyser, tmp_path / mode)
        found[mode] = treatment.run(mode, n_jobs=2)
        assert treatment.already_done()
    for other in MODES[1:]:
        for (roi, one, _), (same, two, _) in zip(found["serial"], found[other], strict=True):
            assert roi.roi_id == same.roi_id
            assert one.maps.keys() == two.maps.keys()
            for name in one.maps:
                assert np.array_equal(one.maps[name], two.maps[name]), (other, name)


def test_outputs(subject: Subject, tmp_path: Path) -> None:
    data, out = subject.data(), tmp_path / "out"
    results = ROITreatment(data, FIRAnalyser(length=16), out).run()
    assert sorted(path.name for path in out.iterdir()) == [
        "audio_fir.nii.gz", "audio_fir_variance.nii.gz", "maps.tsv", "provenance.json", "regions.tsv",
        "report.html", "responses.tsv", "result.pck", "video_fir.nii.gz", "video_fir_variance.nii.gz",
    ]  # fmt: skip
    fir = nib.load(out / "audio_fir.nii.gz")
    assert fir.shape == (6, 5, 4, 9)
    assert np.array_equal(fir.affine, nib.load(data.bold[0]).affine)
    table = pd.read_csv(out / "responses.tsv", sep="\t")
    assert table["region"].unique().tolist() == [7, 2, 30]
    assert table["delay"].max() == 16
    assert len(table) == 3 * 2 * 9
    told = json.loads((out / "provenance.json").read_text())
    assert told["n_voxels"] == 120
    assert told["versions"]["nilearn"]
    loaded = load_results(out / "result.pck")
    assert [(roi.roi_id, report) for roi, _, report in loaded] == [(7, "ok"), (2, "ok"), (30, "ok")]
    assert np.array_equal(loaded[0][1].maps["audio_fir"], results[0][1].maps["audio_fir"])


def test_an_onset_between_two_scans_counts_for_both(subject: Subject) -> None:
    """So that a response that is sampled in between is found where it is."""
    onsets = np.arange(5.0, 140, 22)  # between two scans
    table = pd.DataFrame({"onset": onsets, "duration": 0.0, "trial_type": "a"})
    table.to_csv(subject.place / "odd.tsv", sep="\t", index=False)
    signal = np.full(90, 100.0)
    for onset in onsets:  # two seconds after it, half of it in each scan beside
        scan = int(onset + 2) // 2
        signal[[scan, scan + 1]] += 1
    subject.runs = [np.broadcast_to(signal, (*SHAPE, 90)).astype(np.float32)]
    subject.runs[0] = subject.runs[0] + np.random.default_rng(0).normal(size=(*SHAPE, 90)) / 1000
    data = subject.data(events=[subject.place / "odd.tsv"])
    (_, found, report), *_ = ROITreatment(data, FIRAnalyser(length=8)).execute()
    assert report == "ok"
    responses = found.responses.set_index("delay")["response"]
    assert responses.idxmax() == 2
    assert responses[2] > 5 * responses.drop(2).abs().max()


def test_execute_writes_nothing(subject: Subject, tmp_path: Path) -> None:
    treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out")
    assert [roi.roi_id for roi, _, _ in treatment.execute()] == [7, 2, 30]
    assert not (tmp_path / "out").exists()
    assert not treatment.already_done()


def test_the_result_alone(subject: Subject, tmp_path: Path) -> None:
    dump = tmp_path / "elsewhere" / "dump.pck"
    ROITreatment(
        subject.data(), analyses.mean_signal, tmp_path / "out", False, result_dump_file=dump
    ).run()
    assert dump.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_region_that_fails(mode: Mode, subject: Subject, tmp_path: Path) -> None:
    out = tmp_path / "out"
    treatment = ROITreatment(subject.data(), analyses.fail_in_2, out)
    with pytest.raises(TreatmentError) as caught:
        treatment.run(mode, n_jobs=2)
    for part in (
        "1 of 3 regions failed",
        "region 2 (40 voxels): ValueError: no HRF fits",
        "fail_in_2",
    ):
        assert part in str(caught.value)
    assert not treatment.already_done()
    mean = image(out / "mean.nii.gz")
    assert np.isnan(mean[subject.labels == 2]).all()
    assert np.isfinite(mean[subject.labels == 7]).all()
    regions = pd.read_csv(out / "regions.tsv", sep="\t")
    assert regions["status"].tolist() == ["ok", "failed", "ok"]
    assert regions["reason"][1] == "ValueError: no HRF fits"
    _, (_, nothing, report), _ = load_results(out / "result.pck")
    assert nothing is None
    assert report.startswith(("Traceback", "Task 1 failed"))
    assert report.rstrip().endswith("\nValueError: no HRF fits")


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_region_whose_process_dies(mode: Mode, subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(TreatmentError, match=r"region 2 \(40 voxels\).*(?s:.)*SIGKILL"):
        ROITreatment(subject.data(), analyses.die_in_2, tmp_path / "out").run(mode, n_jobs=2)
    assert len(load_results(tmp_path / "out" / "result.pck")) == 3
    regions = pd.read_csv(tmp_path / "out" / "regions.tsv", sep="\t")
    assert "its process was killed by SIGKILL" in regions["reason"][1]


def test_only_failed_regions_are_run_again(subject: Subject, tmp_path: Path) -> None:
    out, data = tmp_path / "out", subject.data()
    ran, mark = tmp_path / "ran", tmp_path / "mark"

    def fail_at_first(roi: ROIData) -> Estimates:
        with ran.open("a") as file:
            file.write(f"{roi.roi_id} ")
        if roi.roi_id == 2 and not mark.exists():
            raise ValueError("no HRF fits")
        return analyses.mean_signal(roi)

    with pytest.raises(TreatmentError):
        ROITreatment(data, fail_at_first, out).run()
    mark.touch()
    results = ROITreatment(data, fail_at_first, out).run(retry_failed=True)
    assert ran.read_text() == "7 2 30 2 "
    assert [report for _, _, report in results] == ["ok"] * 3
    assert np.isfinite(image(out / "mean.nii.gz")[subject.labels != 0]).all()


def test_what_is_wrong_is_said_before_anything_is_analysed(
    subject: Subject, tmp_path: Path
) -> None:
    def never(roi: ROIData) -> None:
        raise AssertionError

    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(TreatmentError, match="cannot be written to"):
        ROITreatment(subject.data(), never, blocked / "out").run()
    with pytest.raises(ConfigurationError) as of_a_map:
        remote_map(never, mode="cluster")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError) as of_a_treatment:
        ROITreatment(subject.data(), never, tmp_path / "out").run("cluster")  # type: ignore[arg-type]
    assert str(of_a_treatment.value) == str(of_a_map.value)
    subject.tr = 3.0
    with pytest.raises(TreatmentDataError, match="TR of 2 s"):
        ROITreatment(subject.data(), never, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()
