"""What results may replace, and what not; which analysis they are of; how files are named."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhrf_parallel import TreatmentError, load_results, run_soma_workflow, submit_treatments
from pyhrf_parallel.backends import Mode
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.treatment_jobs.outcome import raise_failures
from pyhrf_parallel.treatments import (
    Estimates,
    FIRAnalyser,
    GLMAnalyser,
    ROIData,
    ROITreatment,
    outputs,
)
from pyhrf_parallel.treatments.fingerprints import describe
from pyhrf_parallel.treatments.outputs import file_names
from pyhrf_parallel.treatments.provenance import name_of
from tests.conftest import ROOT
from tests.treatments import analyses
from tests.treatments.conftest import Subject


def never(roi: ROIData) -> None:
    raise AssertionError("analysed")


def thresholded(roi: ROIData, level: int) -> None: ...


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def len_of_signals(roi: ROIData) -> int:
    return len(roi.signals)


def kill_while_it_writes(treatment: ROITreatment, mode: Mode = "serial") -> None:
    """Run a treatment whose process is killed before it writes its first table."""

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outputs, "_write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            treatment.run(mode)


class TestReplacing:
    @pytest.mark.parametrize("mode", ["serial", "remote_cluster", "submit", "submit_treatments"])
    @pytest.mark.parametrize(
        "name", ["regions.tsv", "result.pck", "report.html", "provenance.json", "maps.tsv"]
    )
    def test_a_file_of_the_users_is_refused_before_anything_runs(
        self, name: str, mode: Any, subject: Subject, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / name).write_text('{"my own": 1}')
        treatment = ROITreatment(subject.data(), never, out)
        with pytest.raises(
            TreatmentError, match=rf"replace .*{name}, which is not a known result of an ear"
        ):
            if mode == "submit":
                treatment.submit()
            elif mode == "submit_treatments":
                submit_treatments({"a": treatment}, {"a": tmp_path / "other"})
            else:
                treatment.run(mode)
        assert content(out) == {name: b'{"my own": 1}'}

    def test_a_list_of_results_of_another_name_stays(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        for name in ("one.pck", "two.pck", "one.pck"):
            ROITreatment(subject.data(), len_of_signals, out, result_dump_file=out / name).run()
        assert {"one.pck", "two.pck"} <= set(content(out))

    def test_a_map_of_the_users(self, subject: Subject, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "audio_z.nii.gz").write_text("mine")
        with pytest.raises(TreatmentError, match=r"audio_z\.nii\.gz, which is not a known result"):
            ROITreatment(subject.data(), GLMAnalyser(), out).run()
        assert content(out) == {"audio_z.nii.gz": b"mine"}

    def test_a_map_called_as_an_input(self, subject: Subject) -> None:
        """In the directory of the data, too, nothing is lost, and each time the names are the same."""
        data = subject.data()
        before = content(subject.place)

        def bold(roi: ROIData) -> Estimates:
            return Estimates({"bold_0": roi.signals[0].mean(axis=0)})

        for _ in range(2):
            ROITreatment(data, bold, subject.place).run()
            after = content(subject.place)
            assert before.items() <= after.items()
            table = pd.read_csv(subject.place / "maps.tsv", sep="\t").set_index("map")["file"]
            assert re.fullmatch(r"bold-[0-9a-f]{8}_0\.nii\.gz", table["bold_0"])
            assert np.isfinite(nib.load(subject.place / table["bold_0"]).get_fdata()).any()
            new = {*after} - {*before}
            assert len(new) == 6

    def test_the_results_of_another_analysis_are_replaced_as_a_whole(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        out, data = tmp_path / "out", subject.data()
        ROITreatment(data, GLMAnalyser(), out).run()
        (out / "notes.txt").write_text("mine")
        ROITreatment(data, FIRAnalyser(length=8), out).run()
        names = {path.name for path in out.iterdir()}
        assert not any("_z" in name for name in names)
        assert {"audio_fir.nii.gz", "responses.tsv", "notes.txt"} <= names
        ROITreatment(data, analyses.mean_signal, out, make_outputs=False).run()
        assert {path.name for path in out.iterdir()} == {
            "notes.txt", "result.pck", "result.pck.provenance.json",
        }  # fmt: skip
        ROITreatment(data, analyses.mean_signal, out).run()
        assert not (out / "result.pck.provenance.json").exists()

    def test_a_result_that_is_brought_where_outputs_go(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        for _ in range(2):
            treatment = ROITreatment(subject.data(), analyses.mean_signal, out)
            with submit_treatments({"a": treatment}, {"a": out}) as run:
                run_id = run.run_id
            assert run_command(["collect", run_id]) == 0
        assert treatment.already_done()
        assert (out / "mean.nii.gz").exists()

    def test_what_was_changed_since_is_the_users(self, subject: Subject, tmp_path: Path) -> None:
        out, data = tmp_path / "out", subject.data()
        ROITreatment(data, analyses.mean_signal, out).run()
        (out / "regions.tsv").write_text("with my notes")
        with pytest.raises(TreatmentError, match=r"regions.tsv, which has been changed since"):
            ROITreatment(data, analyses.mean_signal, out).run()
        assert (out / "regions.tsv").read_text() == "with my notes"

    def test_results_that_are_analysed_again(self, subject: Subject, tmp_path: Path) -> None:
        out = tmp_path / "out"
        ROITreatment(subject.data(), analyses.mean_signal, out).run()
        ledger = ROITreatment(subject.data(), analyses.mean_signal, out).files._ledger()
        with pytest.raises(
            TreatmentError, match=r"mean\.nii\.gz is analysed, and belongs to the ea"
        ):
            ledger.check((), [str(out / "mean.nii.gz")])

    def test_a_provenance_that_lists_files_elsewhere(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        """Somebody else's file says what is to be removed: nothing outside of the directory is."""
        out, precious = tmp_path / "out", tmp_path / "precious"
        precious.write_text("x")
        ROITreatment(subject.data(), analyses.mean_signal, out).run()
        path = out / "provenance.json"
        told = json.loads(path.read_text())
        told["files"] |= {"../precious": None, str(precious): None}
        path.write_text(json.dumps(told))
        ROITreatment(subject.data(), analyses.mean_signal, out).run()
        assert precious.exists()

    @pytest.mark.parametrize("mode", ["serial", "remote_cluster"])
    def test_a_run_that_was_killed_while_it_wrote(
        self, mode: Mode, subject: Subject, tmp_path: Path
    ) -> None:
        """What it has left is known, and is no obstacle for the next one."""
        treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out")
        kill_while_it_writes(treatment, mode)
        assert (tmp_path / "out" / "mean.nii.gz").exists()
        assert len(ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out").run()) == 3


class TestResultsElsewhere:
    """The result goes where the caller says, and not to the output_dir of the treatment."""

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        place = tmp_path / "out"
        place.mkdir()
        return place

    def run(self, treatment: ROITreatment, out: Path, **options: Any) -> list[Any]:
        given = {"label": "L", "make_outputs": False, "config": {}} | options
        with submit_treatments({"a": treatment}, {"a": out}, **given) as run:  # type: ignore[call-overload]
            (outcome,) = run.finish().values()
        outcome.write_outputs(treatment)
        raise_failures([outcome])
        found: list[Any] = outcome.results
        return found

    @pytest.mark.parametrize("name", ["result.pck", "result.pck.provenance.json"])
    def test_a_file_of_the_users(
        self, name: str, out: Path, subject: Subject, tmp_path: Path
    ) -> None:
        (out / name).write_text("mine")
        treatment = ROITreatment(subject.data(), never, tmp_path / "other")
        with pytest.raises(TreatmentError, match=rf"replace .*{name}, which is not a known result"):
            submit_treatments({"a": treatment}, {"a": out})
        with pytest.raises(TreatmentError, match=rf"replace .*{name}, which is not a known result"):
            submit_treatments({"a": treatment}, {"a": out}, dry_run=True)
        assert content(out) == {name: b"mine"}

    def test_a_file_that_came_during_the_run(
        self, out: Path, subject: Subject, tmp_path: Path
    ) -> None:
        treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "other")
        with submit_treatments({"a": treatment}, {"a": out}) as run:
            (out / "result.pck").write_text("mine")
            with pytest.raises(
                TreatmentError, match=r"replace .*result\.pck, which is not a known result"
            ):
                run.result()
            assert content(out) == {"result.pck": b"mine"}
            (out / "result.pck").rename(out / "mine")
            assert len(run.result()["a"]) == 3
            run.clean()
        assert (out / "mine").read_text() == "mine"

    def test_the_same_call_twice_and_another_analysis(self, out: Path, subject: Subject) -> None:
        """The provenance is always that of the result, and no other analysis goes on with it."""
        data = subject.data()
        ROITreatment(data, GLMAnalyser(), out).run()
        treatment = ROITreatment(data, analyses.mean_signal, out)
        for _ in range(2):
            self.run(treatment, out)
            assert {*content(out)} == {"result.pck", "result.pck.provenance.json"}
        told = json.loads((out / "result.pck.provenance.json").read_text())
        assert told["identity"]["analyser"]["name"] == "mean_signal"
        with pytest.raises(TreatmentError, match="the analyser was mean_signal, and is GLM"):
            ROITreatment(data, GLMAnalyser(), out).run(retry_failed=True)
        treatment.run(retry_failed=True)
        assert not (out / "result.pck.provenance.json").exists()

    def test_an_output_dir_that_is_not_written_to(
        self, out: Path, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path / "here"
        place.mkdir()
        monkeypatch.chdir(place)
        mine = {"report.html": b"mine", "result.pck": b"mine"}
        for name, text in mine.items():
            (place / name).write_bytes(text)
        treatment = ROITreatment(subject.data(), analyses.mean_signal)
        assert len(self.run(treatment, out)) == 3
        with pytest.raises(TreatmentError, match=r"replace .*here.*, which is not a known result"):
            self.run(treatment, out, make_outputs=True)
        run_soma_workflow(
            {"a": treatment}, None, None, None, None, None, None, {"a": out}, "LABEL", False
        )
        assert run_command(["collect", "last"]) == 0
        assert content(place) == mine

    def test_a_result_in_another_directory_than_its_maps(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        result = tmp_path / "results" / "one.pck"
        for mode in ("remote_cluster", "remote_cluster", "serial"):
            treatment = ROITreatment(
                subject.data(), analyses.mean_signal, tmp_path / "maps", result_dump_file=result
            )
            treatment.run(mode)
            assert {*content(result.parent)} == {"one.pck"}
            assert "mean.nii.gz" in content(tmp_path / "maps")


class TestFilesThatAreNotKnown:
    def test_one_that_was_never_written(self, subject: Subject, tmp_path: Path) -> None:
        """An analysis was going to write it and was killed; the user has put one there."""
        treatment = ROITreatment(subject.data(), analyses.mean_signal, tmp_path / "out")
        kill_while_it_writes(treatment)
        (tmp_path / "out" / "regions.tsv").write_text("mine")
        with pytest.raises(TreatmentError, match=r"regions\.tsv, which is not a known result"):
            treatment.run()
        assert (tmp_path / "out" / "regions.tsv").read_text() == "mine"

    def test_one_that_came_during_the_analysis(self, subject: Subject, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()

        def analyse(roi: ROIData) -> int:
            (out / "regions.tsv").write_text("mine")
            return 1

        with pytest.raises(TreatmentError, match=r"regions\.tsv, which is not a known result"):
            ROITreatment(subject.data(), analyse, out).run()
        assert content(out) == {"regions.tsv": b"mine"}

    def test_results_of_the_version_that_listed_no_files(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        told = {"analyser": "GLMAnalyser()", "versions": {"pyhrf_parallel": "0.1.0"}}
        (out / "provenance.json").write_text(json.dumps(told))
        (out / "result.pck").write_text("old")
        before = content(out)
        with pytest.raises(
            TreatmentError, match=r"provenance\.json, which tells of results of an ear"
        ):
            ROITreatment(subject.data(), never, out).run()
        assert content(out) == before


class TestRetrying:
    @pytest.fixture
    def failed(self, subject: Subject, tmp_path: Path) -> ROITreatment:
        treatment = ROITreatment(subject.data(), analyses.fail_in_2, tmp_path / "out")
        with pytest.raises(TreatmentError):
            treatment.run()
        return treatment

    def test_another_analyser(self, failed: ROITreatment) -> None:
        other = ROITreatment(failed.fmri_data, GLMAnalyser(), failed.output_dir)
        before = content(Path(failed.output_dir))
        for mode in ("serial", "remote_cluster"):
            with pytest.raises(
                TreatmentError, match=r"the analyser was fail_in_2, and is GLMAnalyser.*would mix"
            ):
                other.run(mode, retry_failed=True)
        assert content(Path(failed.output_dir)) == before

    def test_other_content_of_a_file(self, failed: ROITreatment, subject: Subject) -> None:
        subject.runs[1] = subject.runs[1] + 1
        other = ROITreatment(subject.data(), analyses.fail_in_2, failed.output_dir)
        with pytest.raises(TreatmentError, match=r"bold_1\.nii\.gz had another content"):
            other.run(retry_failed=True)

    def test_the_same_files_elsewhere(self, failed: ROITreatment, tmp_path: Path) -> None:
        moved = failed.fmri_data.moved(tmp_path / "moved")
        (tmp_path / "moved").mkdir()
        for path in failed.fmri_data.files:
            shutil.copy(path, tmp_path / "moved")
        other = ROITreatment(moved, analyses.fail_in_2, failed.output_dir)
        with pytest.raises(TreatmentError, match="1 of 3 regions failed"):
            other.run(retry_failed=True)

    def test_another_parameter(self, subject: Subject, tmp_path: Path) -> None:
        data = subject.data()
        ROITreatment(data, FIRAnalyser(length=8), tmp_path / "out").run()
        other = ROITreatment(data, FIRAnalyser(length=10), tmp_path / "out")
        with pytest.raises(TreatmentError, match=r"length was 8, and is 10"):
            other.run(retry_failed=True)

    def test_an_analysis_that_was_killed(
        self, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has replaced some files, and not all."""
        from pyhrf_parallel.treatments import results

        data = subject.data()
        ROITreatment(data, analyses.mean_signal, tmp_path / "out").run()
        other = ROITreatment(data, GLMAnalyser(), tmp_path / "out")
        with monkeypatch.context() as patched:

            def killed(*args: Any) -> None:
                raise KeyboardInterrupt

            patched.setattr(results, "describe_analysis", killed)
            with pytest.raises(KeyboardInterrupt):
                other.run()
        for analyser in (analyses.mean_signal, GLMAnalyser()):
            with pytest.raises(TreatmentError, match="of another analysis"):
                ROITreatment(data, analyser, tmp_path / "out").run(retry_failed=True)

    def test_another_source_of_the_same_name(self, tmp_path: Path, subject: Subject) -> None:
        script = tmp_path / "script.py"
        body = """
import sys
from pyhrf_parallel.treatments import *
def fit(roi): {}
data = FmriData.of({!r}, {!r}, {!r}, tr=2.0)
ROITreatment(data, fit, {!r}).run(retry_failed='again' in sys.argv)
"""
        data = subject.data()
        files = list(data.bold), data.parcellation, list(data.events), str(tmp_path / "out")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}

        def run(code: str, *argv: str) -> str:
            script.write_text(body.format(code, *files))
            done = subprocess.run(
                [sys.executable, script, *argv], capture_output=True, text=True, check=False,
                env=environment,
            )  # fmt: skip
            return done.stderr

        assert run("return 1") == ""
        assert run("return 1", "again") == ""
        assert "the source of fit is another" in run("return 2", "again")


class TestDescribing:
    def test_names_have_no_address(self) -> None:
        class Fit:
            def __init__(self, order: int) -> None:
                self.order = order

            def __call__(self, roi: ROIData) -> None: ...

        for analyser, told in (
            (analyses.mean_signal, "mean_signal"),
            (functools.partial(thresholded, level=3), "thresholded(level=3)"),
            (Fit(2), "Fit(order=2)"),
            (GLMAnalyser("spm"), "GLMAnalyser(hrf_model='spm', high_pass=0.01, contrasts={})"),
        ):
            assert name_of(analyser).endswith(told)

    def test_what_changes_a_result_is_seen(self) -> None:
        def make(order: Any) -> Any:
            def fit(roi: ROIData) -> Any:
                return order

            return fit

        assert describe(make(1)) == describe(make(1)) != describe(make(2))
        assert (
            describe(make(np.ones(3))) == describe(make(np.ones(3))) != describe(make(np.ones(4)))
        )
        assert describe(make({"b", "a"})) == describe(make({"a", "b"}))

    def test_what_contains_itself(self) -> None:
        def fit(roi: ROIData) -> Any:
            return fit(roi)

        assert json.dumps(describe(fit))

    def test_inputs_have_checksums(self, subject: Subject, tmp_path: Path) -> None:
        import hashlib

        data = subject.data()
        ROITreatment(data, analyses.mean_signal, tmp_path / "out").run()
        told = json.loads((tmp_path / "out" / "provenance.json").read_text())
        for path in data.files:
            assert told["sha256"][path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert told["analyser"].endswith("analyses.mean_signal")
        assert len(told["identity"]["analyser"]["source"]) == 64


NAMES = [
    "../x", "/tmp/x", "faces/happy", "x" * 300, "nul\0", r"$\frac$", "$x", "constant", "drift_1",
    "Face", "face", "_rest", "é", ".hidden", "a b", "-v", "условие", "a\nb",
]  # fmt: skip


class TestNames:
    @given(st.sets(st.one_of(st.text(max_size=120), st.text("aA._/-é", max_size=6))))
    def test_safe_and_unique(self, names: set[str]) -> None:
        found = file_names(names)
        assert found.keys() == names
        files = list(found.values())
        assert len({file.casefold() for file in files}) == len(files)
        for file in files:
            assert 0 < len(file.encode()) <= 120
            assert not set(file) & set("/\0\n \\:*?\"<>|$'")
            assert file[0] not in ".-"

    def test_plain_names_stay(self) -> None:
        names = [f"{kind}_{string.ascii_letters}1.5-2+3" for kind in ("a", "é")]
        assert file_names(names) == dict(zip(names, names, strict=True))

    def test_maps_of_a_condition_stay_together(self) -> None:
        found = file_names(["faces/happy_effect", "faces/happy_z"])
        (base,) = {file.rpartition("_")[0] for file in found.values()}
        assert base.startswith("faces_happy-")
        assert {file.rpartition("_")[2] for file in found.values()} == {"effect", "z"}

    @pytest.mark.parametrize("analyser", [GLMAnalyser("spm"), FIRAnalyser(length=4)])
    def test_any_name_of_a_condition(self, analyser: Any, subject: Subject, tmp_path: Path) -> None:
        names = [name for name in NAMES if "\0" not in name]  # no text file has it
        onsets = np.random.default_rng(1).uniform(0, 170, 6 * len(names))
        table = pd.DataFrame({"onset": onsets, "duration": 0.0, "trial_type": names * 6})
        table.to_csv(subject.place / "e.tsv", sep="\t", index=False)
        rng = np.random.default_rng(0)
        subject.runs = [100 + rng.normal(size=(*run.shape[:3], 90)) for run in subject.runs[:1]]
        data = subject.data(events=[subject.place / "e.tsv"])
        out = tmp_path / "out"
        results = ROITreatment(data, analyser, out).run()
        written = pd.read_csv(out / "maps.tsv", sep="\t", keep_default_na=False)
        assert set(written["map"]) == set(results[0][1].maps)
        assert set(written["file"]) == {path.name for path in out.glob("*.nii.gz")}
        for name, file in zip(written["map"], written["file"], strict=True):
            roi, found, _ = results[0]
            values = nib.load(out / file).get_fdata()[tuple(roi.voxels.T)]
            np.testing.assert_allclose(values, found.maps[name], rtol=1e-6)
        assert {path.name for path in tmp_path.iterdir()} == {"out", subject.place.name}

    def test_any_name_of_a_map(self, subject: Subject, tmp_path: Path) -> None:
        def name_all(roi: ROIData) -> Estimates:
            return Estimates({name: roi.signals[0].mean(axis=0) for name in NAMES})

        ROITreatment(subject.data(), name_all, tmp_path / "out").run("remote_cluster")
        assert len(list((tmp_path / "out").glob("*.nii.gz"))) == len(NAMES)
        assert len(load_results(tmp_path / "out" / "result.pck")) == 3


def test_a_result_in_a_directory_that_is_to_be_made(subject: Subject, tmp_path: Path) -> None:
    dump = tmp_path / "new" / "dump.pck"
    ROITreatment(
        subject.data(), analyses.mean_signal, tmp_path / "out", result_dump_file=dump
    ).run()
    assert len(load_results(dump)) == 3
    assert str(dump) in json.loads((tmp_path / "out" / "provenance.json").read_text())["files"]
