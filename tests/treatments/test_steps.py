"""A treatment step by step, through files: what the jobs of a graph run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhrf_parallel import (
    NotShippableError,
    TreatmentDataError,
    TreatmentError,
    load_results,
    save_treatment,
)
from pyhrf_parallel.treatment_jobs.region_files import merge_pickles, result_path
from pyhrf_parallel.treatments import (
    FIRAnalyser,
    GLMAnalyser,
    ROITreatment,
    Treatment,
)
from pyhrf_parallel.treatments.results import failures
from tests.conftest import ROOT
from tests.treatments import analyses
from tests.treatments.conftest import Subject


def run(command: str, *argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name(command), *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def saved(subject: Subject, analyser: Any) -> Path:
    path = subject.place / "treatment 1.xml"
    save_treatment(ROITreatment(subject.data(), analyser, subject.place / "out"), path)
    return path


def test_our_treatment_is_one(subject: Subject) -> None:
    assert isinstance(ROITreatment(subject.data()), Treatment)


def test_split_estimate_pack(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    treatment = saved(subject, GLMAnalyser(contrasts={"all": {"audio": 0.5, "video": 0.5}}))
    place = tmp_path / "regions $HOME `x`"
    place.mkdir()
    done = run("pyhrf_split_roidata", "-c", treatment, "-v 20", "-d", place)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 regions, roidata_0007.pck is the biggest\n"
    files, ids = ROITreatment.from_xml(treatment.read_text()).dump_roi_datasets(True, place)
    assert ids == [7, 2, 30]
    assert sorted(files) == sorted(str(path) for path in place.iterdir())
    for path in files:
        done = run("pyhrf_roi_estim", "-c", treatment, "-r", path, "-v", "1")
        assert (done.returncode, done.stderr) == (0, "")
    results = [result_path(path) for path in files]
    done = run("pyhrf_pack_results", "-v1", "-o", tmp_path / "result.pck", *results)
    assert (done.returncode, done.stderr) == (0, "")
    expected = ROITreatment.from_xml(treatment.read_text()).execute()
    for (roi, found, report), (same, wanted, _) in zip(
        load_results(tmp_path / "result.pck"), expected, strict=True
    ):
        assert (roi.roi_id, report) == (same.roi_id, "ok")
        for name in wanted.maps:
            assert np.array_equal(found.maps[name], wanted.maps[name])


def test_a_failed_region_is_a_result_and_a_failure(subject: Subject, tmp_path: Path) -> None:
    treatment = saved(subject, analyses.fail_in_2)
    run("pyhrf_split_roidata", "-c", treatment, "-d", tmp_path)
    done = run("pyhrf_roi_estim", "-c", treatment, "-r", tmp_path / "roidata_0002.pck")
    assert done.returncode == 1
    assert done.stderr.startswith("region 2 (40 voxels):\nTraceback")
    assert "ValueError: no HRF fits" in done.stderr
    run("pyhrf_roi_estim", "-c", treatment, "-r", tmp_path / "roidata_0007.pck")
    out = tmp_path / "result.pck"
    merge_pickles([tmp_path / "result_0007.pck", tmp_path / "result_0002.pck"], out)
    ((roi, nothing, report),) = failures(load_results(out))
    assert (roi.roi_id, nothing) == (2, None)
    assert "no HRF fits" in report


@pytest.mark.parametrize(
    ("command", "argv", "status", "told"),
    [
        ("pyhrf_split_roidata", ["-c", "none.xml"], 1, "No such file"),
        ("pyhrf_split_roidata", [], 2, "-c"),
        ("pyhrf_split_roidata", ["-c", "x", "-d", "none"], 2, "none is no directory"),
        ("pyhrf_roi_estim", ["-c", "x", "-r", "r.pck"], 1, "not named as the data of a region"),
        ("pyhrf_pack_results", ["-o", "out.pck", "none.pck"], 1, "none.pck cannot be read"),
        ("pyhrf_pack_results", ["-o", "out.pck"], 2, "RESULT"),
    ],
)
def test_wrong_use(
    command: str, argv: list[str], status: int, told: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = run(command, *argv)
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_packing_does_not_need_the_packages_of_the_analysis() -> None:
    code = (
        "import sys; from pyhrf_parallel.commands import regions; "
        "print({'numpy', 'pandas', 'nilearn', 'nibabel'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class TestMerging:
    @given(
        st.lists(st.tuples(st.text(), st.lists(st.integers()), st.none()), max_size=8), st.data()
    )
    def test_it_is_what_unpickling_would_give(self, values: list[Any], data: st.DataObject) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            paths = [Path(place, str(index)) for index in range(len(values))]
            for path, value in zip(paths, values, strict=True):
                shared = (value, [value, value])  # what a pickle remembers
                path.write_bytes(
                    pickle.dumps(shared, data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL)))
                )
            merge_pickles(paths, Path(place, "out"))
            merged = pickle.loads(Path(place, "out").read_bytes())
        assert merged == [(value, [value, value]) for value in values]

    def test_what_cannot_be_merged_leaves_the_earlier_result(self, tmp_path: Path) -> None:
        out = tmp_path / "result.pck"
        out.write_text("earlier")
        for content, told in (
            (b"", "not complete"),
            (pickle.dumps([1] * 99, 3)[:-2], "not complete"),
            (pickle.dumps([1] * 99, 5)[:-2], "not complete"),
        ):
            (tmp_path / "result_0001.pck").write_bytes(content)
            with pytest.raises(TreatmentError, match=told):
                merge_pickles([tmp_path / "result_0001.pck"], out)
            assert out.read_text() == "earlier"
            assert len(list(tmp_path.iterdir())) == 2

    def test_many(self, tmp_path: Path) -> None:
        path = tmp_path / "result_0001.pck"
        path.write_bytes(pickle.dumps({"a": 1}, 3))
        began = time.monotonic()
        merge_pickles([path] * 10_000, tmp_path / "out")
        assert pickle.loads((tmp_path / "out").read_bytes()) == [{"a": 1}] * 10_000
        assert time.monotonic() - began < 20


class TestXML:
    @pytest.mark.parametrize(
        "analyser",
        [
            GLMAnalyser("glover", 0.02, {"a": {"audio": 1.0}}),
            FIRAnalyser(12.5),
            analyses.mean_signal,
        ],
    )
    def test_there_and_back(self, subject: Subject, analyser: Any) -> None:
        treatment = ROITreatment(
            subject.data(), analyser, subject.place / "<out> & é", False, "dump.pck"
        )
        again = ROITreatment.from_xml(treatment.to_xml())
        assert vars(again) == vars(treatment)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<roi_treatment/>",
            "<other/>",
            "<roi_treatment><bold>[</bold></roi_treatment>",
            '<!DOCTYPE x [<!ENTITY a "b">]><roi_treatment/>',
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(TreatmentDataError):
            ROITreatment.from_xml(text)

    def test_an_analyser_that_has_no_name(self, subject: Subject, tmp_path: Path) -> None:
        path = tmp_path / "t.xml"
        with pytest.raises(NotShippableError, match="take a function of a module"):
            save_treatment(ROITreatment(subject.data(), lambda _: None), path)
        assert not path.exists()

    def test_what_is_no_treatment(self, tmp_path: Path) -> None:
        with pytest.raises(TreatmentError, match=r"a dict without .*get_data_files"):
            save_treatment({}, tmp_path / "t.xml")  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []

    def test_data_in_another_directory(self, subject: Subject) -> None:
        treatment = ROITreatment(subject.data())
        treatment.replace_data_dir("/data")
        assert treatment.get_data_files()[0] == "/data/bold_0.nii.gz"
        treatment.set_init_param("make_outputs", False)
        assert treatment.make_outputs is False
        with pytest.raises(ValueError, match="no parameter 'bold'"):
            treatment.set_init_param("bold", 1)
