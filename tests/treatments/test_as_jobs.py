"""Our treatment as jobs of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyhrf_parallel import TreatmentError, TreatmentRun, load_results, prepare_treatment_jobs
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.treatments import (
    Estimates,
    FmriData,
    GLMAnalyser,
    ROIData,
    ROITreatment,
)
from pyhrf_parallel.treatments.running import UnfinishedRegions, submit
from tests.conftest import ROOT
from tests.treatments import analyses
from tests.treatments.conftest import Subject


def cut(place: Path, parcellation: Path, regions: int) -> Path:
    """Write a parcellation of the same voxels into many regions."""
    image = nib.load(parcellation)
    inside = np.asanyarray(image.dataobj) != 0
    labels = np.zeros(image.shape, np.int16)
    labels[inside] = np.arange(np.count_nonzero(inside)) * regions // np.count_nonzero(inside) + 1
    nib.save(nib.Nifti1Image(labels, image.affine), place / "parcellation.nii.gz")
    return place / "parcellation.nii.gz"


def test_five_hundred_regions(real_data: Path, tmp_path: Path) -> None:
    parcellation = cut(tmp_path, real_data / "subj0_parcellation.nii.gz", 500)
    script = f"""
from pyhrf_parallel.treatments import *
data = FmriData.of({str(real_data / "subj0_bold_session0.nii.gz")!r}, {str(parcellation)!r},
                   {str(real_data / "paradigm_loc_av.csv")!r}, tr=2.4)
for mode in ('serial', 'remote_cluster'):
    place = {str(tmp_path)!r} + f'/{{mode}}'
    ROITreatment(data, GLMAnalyser(), place, make_outputs=False).run(mode, n_jobs=2)
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    loop, jobs = (
        load_results(tmp_path / mode / "result.pck") for mode in ("serial", "remote_cluster")
    )
    assert len(jobs) == 500
    for (roi, one, _), (same, two, _) in zip(loop, jobs, strict=True):
        assert roi.roi_id == same.roi_id
        for name in one.maps:
            assert np.array_equal(one.maps[name], two.maps[name])


def test_runs_of_the_same_name(subject: Subject, tmp_path: Path) -> None:
    data = subject.data()
    moved = []
    for number, path in enumerate(data.bold):
        (tmp_path / str(number)).mkdir()
        moved.append(Path(path).rename(tmp_path / str(number) / "bold.nii.gz"))
    data = FmriData.of(moved, data.parcellation, data.events, data.tr)
    found = ROITreatment(data, lambda roi: roi.signals[1].mean(), tmp_path / "out").run(
        "remote_cluster"
    )
    expected = ROITreatment(data, lambda roi: roi.signals[1].mean(), tmp_path / "out").run()
    assert [value for _, value, _ in found] == [value for _, value, _ in expected]


def test_what_only_a_script_knows(subject: Subject, tmp_path: Path) -> None:
    """Both the analyser and the class of what it finds."""
    script = f"""
from pyhrf_parallel.treatments import *
class Found:
    def __init__(self, n): self.n = n
def count(roi): return Found(roi.n_voxels)
data = FmriData.of({subject.data().bold!r}, {subject.data().parcellation!r}, {subject.data().events!r}, tr=2.0)
print([found.n for _, found, _ in ROITreatment(data, count, {str(tmp_path / "out")!r}).run('remote_cluster')])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    assert done.stdout == b"[60, 40, 20]\n"


def test_a_failed_region_and_again(subject: Subject, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    def fails_once(roi: ROIData) -> int:
        with ran.open("a") as file:
            file.write(f"{roi.roi_id} ")
        if roi.roi_id == 2 and ran.read_text().count("2 ") == 1:
            raise ValueError("no HRF fits")
        return roi.roi_id

    treatment = ROITreatment(subject.data(), fails_once, tmp_path / "out")
    with pytest.raises(TreatmentError, match=r"region 2 \(40 voxels\): ValueError: no HRF fits"):
        treatment.run("remote_cluster", n_jobs=1)
    assert "1 region failed" in (tmp_path / "out" / "report.html").read_text()
    found = treatment.run("remote_cluster", retry_failed=True)
    assert [value for _, value, _ in found] == [7, 2, 30]
    assert ran.read_text() == "7 2 30 2 "


def test_a_retry_that_is_collected_elsewhere(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier results are never lost, and in the end all are together."""
    mark = tmp_path / "mark"

    def fails_at_first(roi: ROIData) -> Estimates:
        if roi.roi_id == 2 and not mark.exists():
            raise ValueError("not yet")
        return analyses.mean_signal(roi)

    treatment = ROITreatment(subject.data(), fails_at_first, tmp_path / "out")
    with pytest.raises(TreatmentError):
        treatment.run("remote_cluster")
    with pytest.raises(TreatmentError):
        treatment.run("remote_cluster", retry_failed=True)
    assert [report == "ok" for _, _, report in load_results(treatment.result_path)] == [
        True, False, True,
    ]  # fmt: skip
    mark.touch()
    before = treatment.result_path.read_bytes()
    with submit(UnfinishedRegions.of(treatment, treatment.files.load_kept())) as run:
        while not run.done():
            time.sleep(0.1)
        assert treatment.result_path.read_bytes() == before
        assert run_command(["collect", run.run_id]) == 0
    assert treatment.already_done()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "maps.tsv", "mean.nii.gz", "provenance.json", "regions.tsv", "report.html", "result.pck",
    ]  # fmt: skip
    means = nib.load(tmp_path / "out" / "mean.nii.gz").get_fdata()
    assert np.isfinite(means[treatment.fmri_data.labels != 0]).all()


def test_a_killed_region_is_marked(subject: Subject, tmp_path: Path) -> None:
    treatment = ROITreatment(subject.data(), analyses.die_in_2, tmp_path / "out")
    with pytest.raises(TreatmentError, match=r"region 2 \(40 voxels\): .*SIGKILL"):
        treatment.run("remote_cluster")
    means = nib.load(tmp_path / "out" / "mean.nii.gz").get_fdata()
    labels = treatment.fmri_data.labels
    assert np.isnan(means[labels == 2]).all()
    assert np.isfinite(means[labels == 7]).all()


def test_leaving_and_collecting(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ROITreatment(subject.data(), GLMAnalyser(), tmp_path / "out").submit() as run:
        run_id = run.run_id
    assert run_command(["collect", run_id]) == 0
    assert "out: 3 regions, 0 failed" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "When the jobs ran" in page
    assert (tmp_path / "out" / "audio_z.nii.gz").exists()


def test_collecting_failures_and_again(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"

    def fails_at_first(roi: ROIData) -> int:
        if roi.roi_id == 2 and not mark.exists():
            raise ValueError("not yet")
        return roi.roi_id

    with ROITreatment(subject.data(), fails_at_first, tmp_path / "out").submit() as run:
        run_id = run.run_id
    assert run_command(["collect", run_id]) == 1
    printed = capsys.readouterr()
    assert "3 regions, 1 failed" in printed.out
    assert "The run was kept" in printed.out
    assert "ValueError: not yet" in printed.err
    assert run_command(["collect", run_id, "--output", "x"]) == 2
    mark.touch()
    assert run_command(["retry", run_id]) == 0
    assert run_command(["collect", run_id, "--json"]) == 0
    assert '"cleaned": true' in capsys.readouterr().out
    with pytest.raises(LookupError):
        TreatmentRun.load(run_id)
    assert [value for _, value, _ in load_results(tmp_path / "out" / "result.pck")] == [7, 2, 30]


def test_jobs_for_a_workflow_of_ones_own_have_the_analyser(
    subject: Subject, tmp_path: Path
) -> None:
    treatment = ROITreatment(subject.data(), GLMAnalyser("glover"), tmp_path / "out")
    place = tmp_path / "place"
    place.mkdir()
    split, jobs, _, _ = prepare_treatment_jobs(
        treatment, tmp_path, tmp_path, "me", "laptop", None, None, str(place), "LABEL"
    )
    assert (split.command[0], jobs[0].command[0]) == ("pyhrf_split_roidata", "pyhrf_roi_estim")
    sent = ROITreatment.from_xml((place / "treatment.xml").read_text())
    assert sent.analyser == treatment.analyser


def test_regions_of_choice(subject: Subject, tmp_path: Path) -> None:
    data = FmriData.of(
        subject.data().bold,
        subject.data().parcellation,
        subject.data().events,
        2.0,
        regions=[30, 7],
    )
    found = ROITreatment(data, analyses.mean_signal, tmp_path / "out").run("remote_cluster")
    assert [roi.roi_id for roi, _, _ in found] == [7, 30]
    assert data.n_dropped == 0
