"""What jobs ask of a treatment of any class."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import NotShippableError, TreatmentError
from pyhrf_parallel.treatment_jobs.outcome import TaskFailure, TreatmentOutcome
from pyhrf_parallel.treatment_jobs.region_files import crash_report
from pyhrf_parallel.treatment_jobs.subject import Commands, Subject
from pyhrf_parallel.treatment_jobs.treatment import JobSpan, JobTreatment, as_job_treatment
from tests.treatment_jobs.conftest import table


class Own(JobTreatment):
    """One that offers more than pyhrf's."""

    keeps_names = False

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.analyser: str | None = "mean"
        self.shown: list[tuple[Any, ...]] = []

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[int]]:
        return ["/x/roidata_0002.pck", "/x/roidata_0001.pck"], [2, 1]

    def get_data_files(self) -> list[str]:
        return self.files

    def replace_data_files(self, paths: Any) -> None:
        self.files = [paths[file] for file in self.files]

    def set_init_param(self, name: str, value: Any) -> None:
        pass

    def drop_analyser(self) -> None:
        self.analyser = None

    def to_xml(self) -> str:
        return f"{self.analyser} of {', '.join(self.files)}"

    def roi_shapes(self) -> list[tuple[int, int]]:
        return [(10, 5), (10, 3)]

    def output(self, results: list[Any]) -> None:
        self.shown.append((results, self.timeline))


def test_defaults_of_one_that_offers_no_more_than_pyhrfs(tmp_path: Path) -> None:
    own = table(tmp_path)
    adapted = as_job_treatment(own)
    assert adapted.split_command == ["pyhrf_split_roidata"]
    assert adapted.estimation_command == ["pyhrf_jde_estim"]
    assert (adapted.check_command, adapted.output_directories) == ([], [])
    assert (adapted.region_estimator(), adapted.roi_shapes(), adapted.identity()) == (None,) * 3
    assert adapted.keeps_names
    assert adapted.output_command("result.pck", "outputs.tar") is None
    assert adapted.to_xml() == own.table


def test_whatever_it_has_is_its_own(tmp_path: Path) -> None:
    treatment = table(tmp_path)
    vars(treatment).update(split_command=["mine"], replace_data_files=lambda _: None)
    adapted = as_job_treatment(treatment)
    assert adapted.split_command == ["mine"]
    assert not adapted.keeps_names
    copied = copy.deepcopy(adapted)
    copied.replace_data_dir("/elsewhere")
    assert copied.get_data_files() == ["/elsewhere/signals.csv"]
    assert treatment.get_data_files() == [str(tmp_path / "signals.csv")]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TreatmentError, match=r"'sub-01' is a list without dump_roi_datasets, get_"):
        as_job_treatment([], "sub-01")
    with pytest.raises(NotShippableError, match=r"a JobTreatment cannot be written"):
        JobTreatment().to_xml()


def test_one_with_all_it_may_offer(tmp_path: Path) -> None:
    files = [tmp_path / name / "bold é.nii" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    own = Own([str(file) for file in files])
    subject = Subject.of("one", as_job_treatment(own))
    assert subject.inputs == {"bold _.nii": str(files[0]), "1_bold _.nii": str(files[1])}
    assert subject.xml == "None of ./bold _.nii, ./1_bold _.nii"
    assert (own.analyser, own.files) == ("mean", [str(file) for file in files])
    assert Subject.of("one", own, exec_cmd="mine").xml.startswith("mean of ")  # a command reads it


def test_the_caller_stays_as_it_is_when_outputs_are_written() -> None:
    own = Own([])
    subject = Subject("one", "L-one", {2: "roidata_0002.pck"})
    spans = [JobSpan("roi_split", 1.0, 2.0, "here")]
    TreatmentOutcome(subject, results=[1], timeline=spans).write_outputs(own)
    TreatmentOutcome(subject, timeline=spans).write_outputs(own)
    assert own.shown == [([1], spans)]
    assert own.timeline == ()


def test_a_subject_survives_json() -> None:
    subject = Subject(
        "one", "L-one", {30: "roidata_0030.pck", 2: "roidata_0002.pck"}, "/there",
        Commands(output=["tar"]), {"a": "/b/a"}, "<x/>", "/out/result.pck", 7, "me@here", ["00"],
        [(10, 5), (10, 3)], makes_outputs=False, output_directories=["/out"], identity={"a": [1]},
    )  # fmt: skip
    again = Subject.from_json(json.loads(json.dumps(subject.as_json())))
    assert again == subject
    assert list(again.tasks) == [7, 8]
    assert again.results == ["result_0030.pck", "result_0002.pck"]


def test_a_failure_is_a_result_as_pyhrfs() -> None:
    report = "Traceback (most recent call last):\n  ...\nValueError: no HRF fits"
    failure = TaskFailure.of_report(7, 40, report)
    assert str(failure) == "region 7 (40 voxels): ValueError: no HRF fits"
    assert failure.as_result("roi") == ("roi", None, report)
    assert crash_report(failure.as_result()) == report
    assert TaskFailure(7, None, "it was not run").as_result() == (None, None, "it was not run")
