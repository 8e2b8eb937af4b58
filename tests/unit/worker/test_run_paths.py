"""Files of a run are found by what they are, wherever the run is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyhrf_parallel.worker.record_files import RecordFile
from pyhrf_parallel.worker.run_paths import RunPaths


def test_names_and_paths(tmp_path: Path) -> None:
    assert RunPaths().plan == "plan.json"
    assert RunPaths(tmp_path).plan == str(tmp_path / "plan.json")


def test_each_file_has_a_name_of_its_own() -> None:
    paths = RunPaths("run")
    fixed = [path for name, path in vars(paths).items() if name != "directory"]
    of_a_job = [
        paths.log("a"),
        paths.cursor("a"),
        paths.records("a"),
        paths.done("a"),
        paths.claims("a"),
    ]
    assert len({*fixed, *of_a_job}) == len(fixed) + len(of_a_job)


def test_records_are_found_before_and_after_they_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(tmp_path)
    files = {job: RecordFile(paths.records(job)) for job in ("job-1", "job-11")}
    files["job-1"].finish()
    for other in (paths.log("job-1"), paths.plan, f"{paths.plan}.part"):
        Path(other).touch()
    assert dict(paths.all_records()) == {
        "job-1.records": paths.records("job-1"),
        "job-11.records": f"{paths.records('job-11')}.part",
    }
    assert [name for name, _ in paths.all_records("job-1")] == ["job-1.records"]
    monkeypatch.chdir(tmp_path)
    assert [path for _, path in RunPaths().all_records()] == [
        "job-1.records",
        "job-11.records.part",
    ]


def test_jobs_and_logs(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    logs = [paths.log("a.b"), paths.slurm_log("a", "7")]
    for path in (*logs, paths.engine_log, paths.cursor("a.b"), paths.payload):
        Path(path).touch()
    assert paths.jobs() == ["a.b"]
    assert sorted(paths.logs()) == sorted(logs)  # the engine is not a job
    assert [RunPaths.job_of_log(Path(p).name) for p in (*logs, paths.payload)] == [
        "a.b",
        "a.7.slurm",
        "",
    ]
