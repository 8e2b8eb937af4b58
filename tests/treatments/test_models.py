"""Errors of a model: told once, before anything is split or analysed, and not once for each region."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel import TreatmentDataError, TreatmentError, load_results, submit_treatments
from pyhrf_parallel.backends import Mode
from pyhrf_parallel.errors import ArgumentError
from pyhrf_parallel.treatments import (
    Estimates,
    FIRAnalyser,
    FmriData,
    GLMAnalyser,
    ROIData,
    ROITreatment,
)
from pyhrf_parallel.treatments.designs import designs_of
from tests.treatments import analyses
from tests.treatments.conftest import N_SCANS, Subject


def contrast(**weights: Any) -> GLMAnalyser:
    return GLMAnalyser(contrasts={"c": weights})


class TestOnce:
    @pytest.mark.parametrize(
        ("analyser", "told"),
        [
            (contrast(audio=1, vidoe=-1), r"'c': .*'vidoe' \(did you mean 'video'\?\)"),
            (contrast(smell=1), r"'c': there is no condition 'smell'; .* are audio, video"),
            (contrast(audio=0), r"'c': its weights are .* not all 0"),
            (contrast(audio="1"), r"'c': its weights are"),
            (GLMAnalyser(contrasts={"audio": {"video": 1}}), "'audio' is called as a condition"),
            (GLMAnalyser(contrasts={"c": [1, -1]}), r"'c' is given as"),  # type: ignore[dict-item]
            (GLMAnalyser("smp"), r"no hrf_model 'smp' \(did you mean 'spm'\?\)"),
            (GLMAnalyser("spm + derivatives"), r"did you mean 'spm \+ derivative'"),
            (GLMAnalyser("fir"), "FIRAnalyser"),
            (GLMAnalyser(high_pass=-0.01), "high_pass is -0.01"),
            (FIRAnalyser(length=-4), "length is -4, and should be a number of seconds"),
            (FIRAnalyser(length=float("nan")), "length is nan"),
            (FIRAnalyser(length=100), "run 0: 90 scans do not determine"),
        ],
    )
    @pytest.mark.parametrize("mode", ["serial", "remote_cluster", "submit_treatments"])
    def test_one_error_for_all_regions(
        self, analyser: Any, told: str, mode: Any, subject: Subject, tmp_path: Path
    ) -> None:
        treatment = ROITreatment(subject.data(), analyser, tmp_path / "out")
        with pytest.raises(TreatmentDataError, match=told) as caught:
            if mode == "submit_treatments":
                submit_treatments({"a": treatment}, {"a": tmp_path / "out"})
            else:
                treatment.run(mode)
        assert "retry" not in str(caught.value)
        assert "region" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_a_class_for_an_instance(self, subject: Subject) -> None:
        analyser: Any = GLMAnalyser
        with pytest.raises(ArgumentError, match=r"give an instance, GLMAnalyser\(\.\.\.\)"):
            ROITreatment(subject.data(), analyser)
        analyser = 5
        with pytest.raises(ArgumentError, match="of type int"):
            ROITreatment(subject.data(), analyser)

    def test_a_class_that_is_made_of_a_region(self, subject: Subject) -> None:
        class Size:
            def __init__(self, roi: ROIData) -> None:
                self.n = roi.n_voxels

        found = ROITreatment(subject.data(), Size).execute()
        assert [size.n for _, size, _ in found] == [60, 40, 20]

    def test_more_regressors_than_scans(self, subject: Subject, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        path = subject.place / "confounds.tsv"
        pd.DataFrame(rng.normal(size=(N_SCANS, 95))).to_csv(path, sep="\t", index=False)
        data = subject.data(confounds=[path, path])
        with pytest.raises(TreatmentDataError, match=r"do not determine 10\d regressors"):
            ROITreatment(data, GLMAnalyser(), tmp_path / "out").run()

    def test_equal_regressors_are_named(self, subject: Subject, tmp_path: Path) -> None:
        path = subject.place / "confounds.tsv"
        x = np.random.default_rng(0).normal(size=N_SCANS)
        pd.DataFrame({"trans_x": x, "again": x}).to_csv(path, sep="\t", index=False)
        data = subject.data(confounds=[path, path])
        with pytest.raises(TreatmentDataError, match="'trans_x' and 'again' are equal"):
            ROITreatment(data, GLMAnalyser(), tmp_path / "out").run()

    def test_an_analyser_of_a_users_own_can_check(self, subject: Subject, tmp_path: Path) -> None:
        class Careful:
            def __call__(self, roi: ROIData) -> None:
                raise AssertionError

            def check(self, data: FmriData) -> None:
                raise ValueError(f"too few scans: {data.images[0].shape[3]}")

        modes: tuple[Mode, ...] = ("serial", "remote_cluster")
        for mode in modes:
            with pytest.raises(ValueError, match="too few scans: 90"):
                ROITreatment(subject.data(), Careful(), tmp_path).run(mode)

    def test_a_contrast_of_events_of_different_lengths_is_told(self, subject: Subject) -> None:
        table = pd.read_csv(subject.events(0), sep="\t")
        table.loc[table["trial_type"] == "video", "duration"] = 8.0
        table.to_csv(subject.place / "e.tsv", sep="\t", index=False)
        data = subject.data(events=[subject.place / "e.tsv"] * 2)
        with pytest.warns(UserWarning, match="c_effect compares strengths and is not percent"):
            contrast(audio=1, video=-1).check(data)


class TestNamesOfRegressors:
    """nilearn has names of its own for regressors, and a user's may be the same."""

    @pytest.mark.parametrize("name", ["constant", "drift_1", "trans_x", "audio_derivative"])
    def test_a_condition_may_have_any_name(
        self, name: str, subject: Subject, tmp_path: Path
    ) -> None:
        def run(condition: str) -> Any:
            for run in range(2):
                table = pd.read_csv(subject.events(run), sep="\t")
                table["trial_type"] = table["trial_type"].replace("video", condition)
                table.to_csv(subject.place / f"{run}.tsv", sep="\t", index=False)
            path = subject.place / "confounds.tsv"
            x = np.random.default_rng(0).normal(size=N_SCANS)
            pd.DataFrame({"trans_x": x, "constant": x**2}).to_csv(path, sep="\t", index=False)
            events = [subject.place / f"{run}.tsv" for run in range(2)]
            data = subject.data(events=events, confounds=[path, path])
            analyser = GLMAnalyser(contrasts={"c": {condition: 1.0, "audio": -1.0}})
            return ROITreatment(data, analyser, tmp_path / condition).run()[0][1].maps

        expected, found = run("video"), run(name)
        for kind in ("effect", "variance", "z"):
            np.testing.assert_allclose(
                found[f"{name}_{kind}"], expected[f"video_{kind}"], rtol=1e-6
            )
            np.testing.assert_allclose(found[f"c_{kind}"], expected[f"c_{kind}"], rtol=1e-6)

    def test_other_columns_have_their_names(self, subject: Subject) -> None:
        path = subject.place / "confounds.tsv"
        table = pd.DataFrame({"trans_x": np.random.default_rng(0).normal(size=N_SCANS)})
        table.to_csv(path, sep="\t", index=False)
        roi = subject.data(confounds=[path, path]).outline()
        design, _ = designs_of(roi, "spm + derivative", 0.01)
        assert design.names[:4] == ["audio", "audio_derivative", "video", "video_derivative"]
        assert {"trans_x", "drift_1", "constant"} < set(design.names)


def demeaned(run: Any) -> Any:
    return run - run.mean(axis=3, keepdims=True)


def standardised(run: Any) -> Any:
    return demeaned(run) / run.std(axis=3, keepdims=True)


def with_a_rest(run: Any) -> Any:
    return demeaned(run) + 0.05


class TestCentredSignals:
    @pytest.mark.parametrize("centre", [demeaned, standardised, with_a_rest])
    @pytest.mark.parametrize("analyser", [GLMAnalyser(), FIRAnalyser()])
    def test_percent_of_nothing_is_refused(
        self, analyser: Any, centre: Callable[[Any], Any], subject: Subject, tmp_path: Path
    ) -> None:
        subject.runs[1] = centre(subject.runs[1])
        with pytest.raises(
            TreatmentDataError, match=r"bold_1\.nii\.gz: .* about 0.*cannot be percent"
        ):
            ROITreatment(subject.data(), analyser, tmp_path / "out").run()

    def test_an_analyser_of_ones_own_gets_all_voxels(self, subject: Subject) -> None:
        subject.runs = [standardised(run) for run in subject.runs]
        found = ROITreatment(subject.data(), analyses.mean_signal).execute()
        assert [len(one.maps["mean"]) for _, one, _ in found] == [60, 40, 20]

    def test_a_weak_signal_is_none(self, subject: Subject) -> None:
        """As outside of the brain, where the mean is twice the standard deviation."""
        rng = np.random.default_rng(0)
        subject.runs = [np.abs(rng.rayleigh(size=run.shape)) for run in subject.runs]
        assert subject.data().centred == []
        GLMAnalyser().check(subject.data())


class TestRegionsWithoutVoxels:
    @pytest.mark.parametrize("mode", ["serial", "local", "remote_cluster"])
    def test_it_stays_with_its_reason(self, mode: Mode, subject: Subject, tmp_path: Path) -> None:
        subject.runs[1][5] = 0  # region 30
        treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out")
        results = treatment.run(mode, n_jobs=1)
        assert [roi.roi_id for roi, _, _ in results] == [7, 2, 30]
        roi, found, report = results[2]
        assert (roi.n_voxels, found) == (0, None)
        assert "no voxel with a usable signal" in report
        assert treatment.already_done()
        table = pd.read_csv(tmp_path / "out" / "regions.tsv", sep="\t").set_index("region")
        assert table["status"].to_dict() == {7: "ok", 2: "ok", 30: "empty"}
        assert "no voxel with a usable signal" in table["reason"][30]
        page = (tmp_path / "out" / "report.html").read_text()
        assert "1 region without usable voxels" in page
        assert "failed</h2>" not in page
        treatment.run(mode, retry_failed=True)


def generate(roi: ROIData) -> Any:
    return (i for i in range(3)) if roi.roi_id == 2 else analyses.mean_signal(roi)


def leave(roi: ROIData) -> Any:
    raise SystemExit(3) if roi.roi_id == 2 else RuntimeError("x")


def leave_in_2(roi: ROIData) -> Any:
    return leave(roi) if roi.roi_id == 2 else analyses.mean_signal(roi)


def maps_in_2(maps: Any, responses: Any = None) -> Callable[[ROIData], Any]:
    def analyse(roi: ROIData) -> Any:
        return Estimates(maps, responses) if roi.roi_id == 2 else analyses.mean_signal(roi)

    return analyse


class TestOneRegionAlone:
    @pytest.mark.parametrize(
        ("analyser", "told"),
        [
            (generate, "cannot be pickled|cannot pickle"),
            (leave_in_2, r"called sys.exit\(3\)"),
            (maps_in_2({"mean": np.ones(3)}), r"map 'mean' has shape \(3,\), .* \(40,\)"),
            (maps_in_2({"mean": np.ones((40, 2, 2))}), r"map 'mean' has shape \(40, 2, 2\)"),
            (
                maps_in_2({"mean": np.ones((40, 9))}),
                r"map 'mean' has 9 values .* one value in region 7",
            ),
            (maps_in_2({"mean": np.full(40, 1j)}), "map 'mean' is complex"),
            (maps_in_2({"mean": ["a"] * 40}), "map 'mean' is not of numbers"),
            (maps_in_2({5: np.ones(40)}), "name of a map is 5"),
            (maps_in_2([np.ones(40)]), "the maps of an Estimates are a dict"),
            (maps_in_2({}, pd.DataFrame({"delay": [0]})), "no column condition, response"),
            (maps_in_2({}, "none"), "responses of an Estimates are a DataFrame"),
        ],
    )
    def test_it_fails_and_the_others_have_results(
        self, analyser: Any, told: str, subject: Subject, tmp_path: Path
    ) -> None:
        self.check("serial", analyser, told, subject, tmp_path)

    @pytest.mark.parametrize("mode", ["local", "remote_cluster"])
    @pytest.mark.parametrize(
        ("analyser", "told"),
        [
            (generate, "cannot be pickled|cannot pickle"),
            (leave_in_2, r"called sys.exit\(3\)"),
            (maps_in_2({"mean": np.ones(3)}), r"map 'mean' has shape \(3,\), .* \(40,\)"),
        ],
    )
    def test_in_other_modes(
        self, analyser: Any, told: str, mode: Mode, subject: Subject, tmp_path: Path
    ) -> None:
        self.check(mode, analyser, told, subject, tmp_path)

    @staticmethod
    def check(mode: Mode, analyser: Any, told: str, subject: Subject, tmp_path: Path) -> None:
        treatment = ROITreatment(subject.data(), analyser, tmp_path / "out")
        with pytest.raises(TreatmentError, match=rf"region 2 \(40 voxels\): .*({told})"):
            treatment.run(mode, n_jobs=1)
        mean = nib.load(tmp_path / "out" / "mean.nii.gz").get_fdata()
        assert np.isfinite(mean[subject.labels == 7]).all()
        assert np.isfinite(mean[subject.labels == 30]).all()
        assert np.isnan(mean[subject.labels == 2]).all()
        table = pd.read_csv(tmp_path / "out" / "regions.tsv", sep="\t")
        assert table["status"].tolist() == ["ok", "failed", "ok"]

    def test_lambdas_are_results(self, subject: Subject, tmp_path: Path) -> None:
        modes: tuple[Mode, ...] = ("serial", "local", "remote_cluster")
        for mode in modes:
            treatment = ROITreatment(subject.data(), lambda _: lambda: 5, tmp_path / mode)
            treatment.run(mode, n_jobs=1)
            assert [
                found() for _, found, _ in load_results(treatment.result_path, allow_pickle=True)
            ] == [5, 5, 5]

    def test_ctrl_c_still_ends_all(self, subject: Subject, tmp_path: Path) -> None:
        def interrupt(roi: ROIData) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ROITreatment(subject.data(), interrupt, tmp_path / "out").run()

    @pytest.mark.parametrize("mode", ["serial", "local", "remote_cluster"])
    def test_events_that_an_analyser_edits_are_its_own(
        self, mode: Mode, subject: Subject, tmp_path: Path
    ) -> None:
        def edit(roi: ROIData) -> float:
            total = float(sum(table["onset"].sum() for table in roi.events))
            for table in roi.events:
                table["onset"] += 5
                del table["duration"]
            roi.voxels[:] = 0
            return total

        expected = sum(table["onset"].sum() for table in subject.data().design_tables[0])
        results = ROITreatment(subject.data(), edit, tmp_path / "out").run(mode, n_jobs=1)
        assert [found for _, found, _ in results] == [expected] * 3
        for roi, _, _ in results:
            assert list(roi.events[0]) == ["onset", "duration", "trial_type"]
            assert (subject.labels[tuple(roi.voxels.T)] == roi.roi_id).all()


def test_a_full_disk_is_told_with_the_file(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full is what a file on a full disk is."""
    treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out")
    original = Path.write_bytes

    def full(path: Path, content: Any) -> int:
        if ".pck" in path.name:
            with Path("/dev/full").open("wb", buffering=0) as file:
                return file.write(content)
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        TreatmentError, match=r"result\.pck cannot be written: No space left.*MB are free there"
    ):
        treatment.run()
    assert not list((tmp_path / "out").glob(".part*"))
    assert shutil.disk_usage(tmp_path).free
