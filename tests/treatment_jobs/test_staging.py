"""What is refused before anything is sent, and what is left as it was."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from docs.examples.own_treatment import TableTreatment
from pyhrf_parallel import (
    ClusterError,
    ConfigurationError,
    NotShippableError,
    ParallelError,
    TreatmentDataError,
    TreatmentError,
    submit_treatments,
)
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.treatment_jobs.subject import Subject
from pyhrf_parallel.treatment_jobs.treatment import as_job_treatment
from tests.treatment_jobs.conftest import ESTIMATE, SPLIT, run_here, table


def of(treatment: Any, exec_cmd: str = "x") -> Subject:
    return Subject.of("one", as_job_treatment(treatment), exec_cmd=exec_cmd)


def test_the_callers_treatment_stays_as_it_is(tmp_path: Path) -> None:
    treatment = table(tmp_path)
    before = copy.deepcopy(vars(treatment))
    subject = of(treatment, "estimate --fast 'a b'")
    assert vars(treatment) == before
    assert subject.xml == "./signals.csv"
    assert subject.inputs == {"signals.csv": str(tmp_path / "signals.csv")}
    assert subject.commands.estimate == ["estimate", "--fast", "a b"]
    assert subject.regions == {1: "roidata_0001.pck", 2: "roidata_0002.pck", 3: "roidata_0003.pck"}


def test_labels_of_numpy(tmp_path: Path) -> None:
    treatment = table(tmp_path)
    files, ids = treatment.dump_roi_datasets(dry=True)
    vars(treatment).update(dump_roi_datasets=lambda dry=False: (files, np.array(ids)))
    assert [type(label) for label in of(treatment).regions] == [int] * 3


def refuse(
    treatment: Any, home: Path, match: str, kind: type[ParallelError], **options: Any
) -> None:
    results = home.parent / "results"
    with pytest.raises(kind, match=match):
        run_here({"one": treatment}, results, **options)
    assert not [path for path in results.rglob("*") if path.is_file()]


def test_no_region(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    vars(treatment).update(dump_roi_datasets=lambda dry=False: ([], []))
    refuse(treatment, home, "'one' has no region", TreatmentError)


def test_regions_that_cannot_be_told_apart(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    vars(treatment).update(dump_roi_datasets=lambda dry=False: (["roidata_0001.pck"] * 2, [1, 2]))
    refuse(treatment, home, "two regions the same label or file", TreatmentError)
    vars(treatment).update(dump_roi_datasets=lambda dry=False: (["region.pck"], [1]))
    refuse(treatment, home, "'one': region.pck is not named as", TreatmentError)


def test_a_missing_file(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    vars(treatment).update(get_data_files=lambda: ["none.csv"])
    refuse(treatment, home, "'one': there is no file none.csv", TreatmentDataError)


def test_files_of_the_same_name(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    other = tmp_path / "run-2" / "signals.csv"
    other.parent.mkdir()
    other.write_text("1")
    vars(treatment).update(get_data_files=lambda: [treatment.table, str(other)])
    refuse(treatment, home, "run-2/signals.csv and .* would be the same file", TreatmentError)
    # Named twice, it is one file.
    vars(treatment).update(get_data_files=lambda: [treatment.table, treatment.table])
    assert len(of(treatment).inputs) == 1


def test_a_file_with_a_name_of_ours(tmp_path: Path, home: Path) -> None:
    refuse(table(tmp_path, name="result.pck"), home, "would be the same file", TreatmentError)


def test_what_is_no_treatment(home: Path) -> None:
    refuse({}, home, "a dict without .*dump_roi_datasets", TreatmentError)


def test_one_that_cannot_be_copied(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    vars(treatment)["lock"] = threading.Lock()
    refuse(treatment, home, "'one' cannot be copied", NotShippableError)


def test_one_that_cannot_be_kept(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is collected in another process all the same; only its outputs are not made there."""

    class Stubborn(TableTreatment):
        def __reduce__(self) -> Any:
            raise TypeError("not me")

        def __deepcopy__(self, _memo: Any) -> Any:
            return type(self)(self.table)

    treatment = Stubborn(table(tmp_path).table)
    paths = {"one": tmp_path / "out"}
    submit_treatments({"one": treatment}, paths, exec_cmd=ESTIMATE, split_cmd=SPLIT).close()
    assert run_command(["collect", "last"]) == 0
    assert (tmp_path / "out" / "result.pck").exists()


def test_one_that_cannot_be_written(tmp_path: Path, home: Path) -> None:
    class Silent:
        result_dump_file = None

        def __init__(self) -> None:
            self.table = table(tmp_path)

        def __getattr__(self, name: str) -> Any:
            if name == "to_xml" or name.startswith("_") or name in {"table", "region_estimator"}:
                raise AttributeError(name)
            return getattr(self.table, name)

    refuse(Silent(), home, "Silent cannot be written", NotShippableError)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"result_transfer": "ftp"}, "result_transfer must be"),
        ({"rois_per_job": 0}, "rois_per_job must be"),
        ({"rois_per_job": True}, "rois_per_job must be"),
        ({"n_jobs": 0}, "n_jobs must be"),
        ({"retries": -1}, "retries must be"),
        ({"exec_cmd": ""}, "exec_cmd is empty"),
        ({"split_cmd": []}, "split_cmd is empty"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str, tmp_path: Path, home: Path) -> None:
    refuse(table(tmp_path), home, match, ConfigurationError, **options)


def test_no_treatment(home: Path) -> None:
    with pytest.raises(TreatmentError, match="there is no treatment"):
        run_here({}, home.parent)


def test_a_treatment_without_a_path(tmp_path: Path, home: Path) -> None:
    refuse(table(tmp_path), home, "'one' has no result path", TreatmentError, local_result_paths={})
    refuse(table(tmp_path), home, "'one' has no remote path", TreatmentError, remote_paths={})


def test_a_result_that_could_not_be_written(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("mine")
    paths = {"one": tmp_path / "file"}
    refuse(
        table(tmp_path),
        home,
        "cannot be written to .*file",
        TreatmentError,
        local_result_paths=paths,
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_the_pickle_of_a_treatment_is_private(tmp_path: Path, home: Path) -> None:
    with submit_treatments(
        {"one": table(tmp_path)}, {"one": tmp_path / "out"}, exec_cmd=ESTIMATE, split_cmd=SPLIT
    ) as run:
        (kept,) = home.rglob("treatments.pck")
        assert all(place.stat().st_mode & 0o077 == 0 for place in kept.parents[:2])
        assert pickle.loads(kept.read_bytes())["one"].table == str(tmp_path / "signals.csv")
        for path in Path(run.manifest.directory).rglob("*"):
            assert path.is_symlink() or path.stat().st_uid == os.getuid()
        assert Path(run.manifest.directory).stat().st_mode & 0o077 == 0
        run.clean()


def test_a_start_that_fails_leaves_no_directory(tmp_path: Path, home: Path) -> None:
    paths = {"one": tmp_path / "results" / "one"}
    (tmp_path / "results").mkdir()
    run_here({"one": table(tmp_path)}, tmp_path, local_result_paths=paths, dry_run=True)
    assert list((tmp_path / "results").iterdir()) == []
    with pytest.raises(ClusterError):
        run_here(
            {"one": table(tmp_path)},
            tmp_path,
            local_result_paths=paths,
            remote_paths={"one": tmp_path / "signals.csv"},  # no directory
        )
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "results" / "one").mkdir()  # the user's own
    with pytest.raises(ClusterError):
        run_here(
            {"one": table(tmp_path)},
            tmp_path,
            local_result_paths=paths,
            remote_paths={"one": tmp_path / "signals.csv"},
        )
    assert (tmp_path / "results" / "one").is_dir()
