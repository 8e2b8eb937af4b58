"""Treatments on a cluster: real images, the same results, failures by region, both ways back."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pyhrf_parallel import (
    ClusterError,
    TransferError,
    TreatmentError,
    TreatmentRun,
    load_results,
    prepare_treatment_jobs,
    run_soma_workflow,
    submit_treatments,
)
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROIData, ROITreatment
from tests.cluster.one_node import OneNode, run, wait_for
from tests.conftest import ROOT
from tests.treatment_jobs.conftest import clean, finish

pytestmark = [
    pytest.mark.usefixtures("configured", "imaging"),
    pytest.mark.cluster,
    pytest.mark.xdist_group("imaging"),  # one cluster gets these packages, and no other
]
slurm_only = pytest.mark.parametrize("scheduler", ["slurm"], indirect=True)
once = pytest.mark.parametrize("scheduler", ["local_basic"], indirect=True)


def subject(place: Path) -> FmriData:
    return FmriData.of(
        place / "subj0_bold_session0.nii.gz", place / "subj0_parcellation.nii.gz",
        place / "paradigm_loc_av.csv", tr=2.4,
    )  # fmt: skip


def find_mean() -> Callable[[ROIData], float]:
    """Return an analyser that travels by value: this module is not on the cluster."""

    def mean_signal(roi: ROIData) -> float:
        return float(roi.signals[0].mean())

    return mean_signal


mean_signal = find_mean()


@pytest.fixture
def two_subjects(real_data: Path, tmp_path: Path) -> dict[str, ROITreatment]:
    """Two whose files have the same names."""
    found = {}
    for name in ("sub-01", "sub-02"):
        place = tmp_path / name / "it's `here`"
        shutil.copytree(real_data, place)
        found[name] = ROITreatment(subject(place), mean_signal, tmp_path / "out" / name)
    path = tmp_path / "sub-02" / "it's `here`" / "subj0_bold_session0.nii.gz"
    image = nib.load(path)
    doubled = nib.Nifti1Image(2 * image.get_fdata(dtype=np.float32), image.affine, image.header)
    doubled.set_data_dtype(np.float32)
    nib.save(doubled, path)
    return found


def run_all(
    treatments: dict[str, Any], out: Path, *, return_all: bool = False, **options: Any
) -> Any:
    given: dict[str, Any] = {
        "local_result_paths": {name: out / name for name in treatments},
        "label": "LABEL",
        "make_outputs": False,
        "result_transfer": "sftp",
    }
    return finish(
        submit_treatments(treatments, **given | options), treatments, return_all=return_all
    )


class TestResults:
    def test_the_same_in_every_bit_as_in_a_loop(self, real_data: Path, tmp_path: Path) -> None:
        treatment = ROITreatment(subject(real_data), GLMAnalyser(), tmp_path / "cluster")
        found = treatment.run("remote_cluster")
        assert treatment.already_done()
        assert {span.name for span in treatment.timeline} == {
            "roi_split", "region 1", "region 2", "merge_results",
        }  # fmt: skip
        # In a process of its own, with one thread as in the jobs.
        script = f"""
from tests.cluster.test_treatments import *
ROITreatment(subject(Path({str(real_data)!r})), GLMAnalyser(), {str(tmp_path / "loop")!r}).run()
"""
        # Nor does a job know which kernels somebody has chosen for OpenBLAS here.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment)
        expected = load_results(tmp_path / "loop" / "result.pck")
        for (roi, one, _), (same, two, _) in zip(found, expected, strict=True):
            assert roi.roi_id == same.roi_id
            assert one.maps.keys() == two.maps.keys()
            for name in one.maps:
                assert np.array_equal(one.maps[name], two.maps[name]), name

    @slurm_only
    def test_two_subjects_at_once(
        self, two_subjects: dict[str, ROITreatment], tmp_path: Path
    ) -> None:
        found = run_all(two_subjects, tmp_path / "results", return_all=True)
        one, two = ([value for _, value, _ in found[name]] for name in two_subjects)
        assert two == pytest.approx([2 * value for value in one], rel=1e-5)
        assert (tmp_path / "results" / "sub-02" / "result.pck").exists()

    @slurm_only
    def test_one_job_for_each_region_and_its_command(self, real_data: Path, tmp_path: Path) -> None:
        treatment = ROITreatment(subject(real_data), GLMAnalyser(), tmp_path / "out")
        found = run_all(
            {"one": treatment},
            tmp_path,
            rois_per_job=1,
            exec_cmd="pyhrf_roi_estim",
            make_outputs=True,
        )
        assert [roi.roi_id for roi, _, _ in found] == [2, 1]
        assert (tmp_path / "out" / "report.html").exists()

    @once
    def test_runs_of_the_same_name(self, real_data: Path, tmp_path: Path, cluster: OneNode) -> None:
        """Two files that only their directories tell apart."""
        for run_name in ("run-1", "run-2"):
            (tmp_path / run_name).mkdir()
            shutil.copy(real_data / "subj0_bold_session0.nii.gz", tmp_path / run_name)
        data = FmriData.of(
            [tmp_path / name / "subj0_bold_session0.nii.gz" for name in ("run-1", "run-2")],
            real_data / "subj0_parcellation.nii.gz",
            [real_data / "paradigm_loc_av.csv"] * 2,
            tr=2.4,
        )
        found = ROITreatment(data, lambda roi: len(roi.signals), tmp_path / "out").run(
            "remote_cluster"
        )
        assert [value for _, value, _ in found] == [2, 2]

    @once
    def test_a_directory_of_the_callers_choice(
        self, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        treatment = ROITreatment(subject(real_data), mean_signal, tmp_path / "out")
        place = cluster.home / "scratch `x` $HOME"
        place.mkdir()
        (place / "result.pck").write_text("mine")
        cluster.own(place)
        found = run_soma_workflow(
            {"one": treatment}, None, None, "the cluster", "onenode", None, {"one": place},
            {"one": tmp_path / "one"}, "LABEL", True,
        )  # fmt: skip
        assert [value > 0 for _, value, _ in found] == [True, True]
        assert [path.name for path in place.iterdir()] == ["result.pck"]
        shutil.rmtree(place)


class TestWayBack:
    @pytest.mark.parametrize("asked", ["scp", "auto"])
    @slurm_only
    def test_by_a_job(
        self, asked: str, address: str, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        treatment = ROITreatment(subject(real_data), mean_signal, tmp_path / "out")
        place = tmp_path / "re sults `x` $HOME 'é\""
        place.mkdir()
        place.chmod(0o777)  # this machine's account is another one here than the cluster's
        found = run_all(
            {"one": treatment}, tmp_path, local_result_paths={"one": place}, result_transfer=asked,
            local_host=address, local_user=cluster.user,
        )  # fmt: skip
        assert [value > 0 for _, value, _ in found] == [True, True]
        result = place / "result.pck"
        assert {*place.iterdir()} == {result, place / "result.pck.provenance.json"}
        # It was that account that brought it.
        assert result.stat().st_uid != os.getuid()

    @slurm_only
    def test_what_has_failed_is_sent_when_it_was_run_again(
        self, address: str, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        (tmp_path / "broken").touch()

        def mean_if_mended(roi: ROIData) -> float:
            if roi.roi_id == 1 and (tmp_path / "broken").exists():
                raise ValueError("not yet")
            return float(roi.signals[0].mean())

        treatment = ROITreatment(subject(real_data), mean_if_mended, tmp_path / "out")
        place = tmp_path / "results"
        place.mkdir()
        place.chmod(0o777)
        with submit_treatments(
            {"one": treatment}, {"one": place}, result_transfer="scp", local_host=address,
            local_user=cluster.user,
        ) as run:  # fmt: skip
            with pytest.raises(TreatmentError, match="not yet"):
                run.result()
            assert [report == "ok" for _, _, report in load_results(place / "result.pck")] == [
                True,
                False,
            ]
            (tmp_path / "broken").unlink()
            run.retry()
            found = run.result()["one"]
            assert [value > 0 for _, value, _ in found] == [True, True]
            assert {"scp_result", "clean_files"} <= {s.name for s in run.collect()["one"].timeline}
            # Everybody may write there.
            mark = tmp_path / "executed"
            (place / "result.pck").write_bytes(f"cos\nsystem\n(Vtouch {mark}\ntR.".encode())
            with pytest.raises(TreatmentError, match="somebody has changed it"):
                run.result()
            assert not mark.exists()
            run.clean()

    @slurm_only
    @pytest.mark.parametrize("way_on", ["collect", "retry"])
    def test_a_file_that_appears_while_it_runs_stays(
        self, way_on: str, address: str, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        place = tmp_path / "re sults `x` $HOME 'é\""
        place.mkdir()
        place.chmod(0o777)
        result = place / "result.pck"

        def mean_beside_another(roi: ROIData) -> float:
            if not (place / "mine").exists():
                (place / "mine").touch()
                result.write_text("mine")
            return float(roi.signals[0].mean())

        treatment = ROITreatment(subject(real_data), mean_beside_another, tmp_path / "out")
        with submit_treatments(
            {"one": treatment}, {"one": place}, result_transfer="scp", local_host=address,
            local_user=cluster.user,
        ) as run:  # fmt: skip
            with pytest.raises(TreatmentError) as caught:
                run.result()
            assert f"would replace {result}, which is not a known result of an earlier" in str(
                caught.value
            )
            assert "until then the result is kept on onenode, in /" in str(caught.value)
            sent = hashlib.sha256(b"mine").hexdigest()
            logs = "".join(run.logs().values())
            assert f"{result} is a file of 4 bytes, SHA-256 {sent}, and not the result" in logs
            assert result.read_text() == "mine"
            assert {*place.iterdir()} == {result, place / "mine"}
            result.rename(place / "moved away")
            if way_on == "retry":
                run.retry()
            assert [value > 0 for _, value, _ in run.result()["one"]] == [True, True]
            assert (result.stat().st_uid != os.getuid()) == (way_on == "retry")  # who brought it
            run.clean()

    @slurm_only
    def test_earlier_results_are_replaced(
        self, address: str, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        place = tmp_path / "results"
        place.mkdir()
        place.chmod(0o777)

        def of_way(way: str) -> ROITreatment:
            def labelled(roi: ROIData) -> tuple[str, int]:
                return way, roi.roi_id

            return ROITreatment(subject(real_data), labelled, tmp_path / "out")

        for number, way in enumerate(("sftp", "scp", "scp")):
            treatment = of_way(f"{way} {number}")
            run_all(
                {"one": treatment}, tmp_path, local_result_paths={"one": place},
                result_transfer=way, local_host=address, local_user=cluster.user,
            )  # fmt: skip
        assert {*place.iterdir()} == {
            place / "result.pck",
            place / "result.pck.provenance.json",
        }
        found = [value for _, value, _ in load_results(place / "result.pck")]
        assert found == [("scp 2", 2), ("scp 2", 1)]

    @once
    def test_a_job_that_could_not(self, real_data: Path, tmp_path: Path, cluster: OneNode) -> None:
        treatment = ROITreatment(subject(real_data), mean_signal, tmp_path / "out")
        with pytest.raises(TransferError, match=r"cannot log in to me@nowhere\.invalid"):
            run_all(
                {"one": treatment}, tmp_path, result_transfer="scp", local_host="nowhere.invalid",
                local_user="me",
            )  # fmt: skip
        found = run_all(
            {"one": treatment}, tmp_path, result_transfer="auto", local_host="nowhere.invalid"
        )
        assert len(found) == 2


class TestFaults:
    def test_a_region_whose_job_is_killed(self, real_data: Path, tmp_path: Path) -> None:
        def mean_or_death(roi: ROIData) -> float:
            if roi.roi_id == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return float(roi.signals[0].mean())

        treatment = ROITreatment(subject(real_data), mean_or_death, tmp_path / "out")
        with pytest.raises(TreatmentError, match=r"region 1 \(632 voxels\)") as caught:
            treatment.run("remote_cluster")
        clean(str(caught.value))
        (_, mean, report), (_, nothing, _) = load_results(treatment.result_path)
        assert (report, nothing) == ("ok", None)
        assert mean > 0

    @slurm_only
    def test_a_region_that_needs_more_memory(self, real_data: Path, tmp_path: Path) -> None:
        def greedy(roi: ROIData) -> int:
            block = bytearray(500 << 20 if roi.roi_id == 1 else 1)
            block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
            time.sleep(4 if roi.roi_id == 1 else 0)  # Slurm looks once a second
            return len(block)

        treatment = ROITreatment(subject(real_data), greedy, tmp_path / "out")
        with pytest.raises(TreatmentError, match=r"region 1 .*more memory than it") as caught:
            treatment.run("remote_cluster", resources={"mem": "450M"})
        clean(str(caught.value))
        found = treatment.run(
            "remote_cluster", resources={"mem": "450M"}, retries=1, retry_failed=True
        )
        assert [value for _, value, _ in found] == [1, 500 << 20]

    @once
    def test_a_split_that_fails(self, real_data: Path, tmp_path: Path) -> None:
        treatment = ROITreatment(subject(real_data), mean_signal, tmp_path / "out")
        with pytest.raises(TreatmentError, match=r"job roi_split failed") as caught:
            run_all({"one": treatment}, tmp_path, split_cmd="false")
        assert "2 of 2 regions failed or were not run" in str(caught.value)
        assert not (tmp_path / "one" / "result.pck").exists()

    @once
    def test_no_room_for_the_merged_result(
        self, real_data: Path, tmp_path: Path, cluster: OneNode, capfd: pytest.CaptureFixture[str]
    ) -> None:
        disk = cluster.base / "small disk"
        disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=9m,mode=755", "tmpfs", disk], check=True
        )
        cluster.own(disk)

        def bulky(roi: ROIData) -> bytes:
            return os.urandom(2_500_000)

        try:
            treatment = ROITreatment(subject(real_data), bulky, tmp_path / "out")
            with pytest.raises(TreatmentError, match=r"job merge_results failed") as caught:
                run_all({"one": treatment}, tmp_path, remote_paths={"one": disk})
            assert "No space left on device" in str(caught.value)
            subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
            assert run_command(["retry", "last"]) == 0
            assert run_command(["collect", "last"]) == 0
            results = load_results(tmp_path / "one" / "result.pck")
            assert [len(found) for _, found, _ in results] == [2_500_000] * 2
            assert list(disk.iterdir()) == []
        finally:
            wait_for(lambda: not cluster.processes(), 15, "the end of what runs there")
            subprocess.run(["umount", disk], check=True)
            disk.rmdir()

    @slurm_only
    def test_a_killed_client(
        self, real_data: Path, tmp_path: Path, client_home: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        script = f"""
import time
from tests.cluster.test_treatments import *
def slow(roi):
    time.sleep(2)
    return mean_signal(roi)
ROITreatment(subject(Path({str(real_data)!r})), GLMAnalyser(), {str(tmp_path / "out")!r}).run('remote_cluster')
"""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        client = subprocess.Popen([sys.executable, "-c", script], env=environment)
        runs = client_home / ".local" / "state" / "pyhrf_parallel" / "runs"
        wait_for(lambda: bool(list(runs.glob("*/manifest.json"))), 60, "a manifest")
        client.kill()
        client.wait()
        for left in (client_home / "tmp").iterdir():  # a killed process cannot clean up here
            shutil.rmtree(left)
        assert run_command(["runs", "--status"]) == 0
        assert "treatment out" in capfd.readouterr().out
        assert run_command(["collect", "last"]) == 0
        assert "out: 2 regions, 0 failed" in capfd.readouterr().out
        assert {"report.html", "result.pck", "audio_z.nii.gz"} <= {
            path.name for path in (tmp_path / "out").iterdir()
        }

    @slurm_only
    def test_a_run_that_is_cancelled(
        self, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        def slow(roi: ROIData) -> None:
            time.sleep(100)

        treatment = ROITreatment(subject(real_data), slow, tmp_path / "out")
        with treatment.submit() as run:
            wait_for(
                lambda: "running" in [j.status for j in run.status().jobs], 60, "a running job"
            )
            assert run_command(["cancel", run.run_id]) == 0
            wait_for(lambda: cluster.jobs() == [], 20, "the end of all jobs")
            with pytest.raises(CancelledError, match=f"retry {run.run_id}"):
                TreatmentRun.load(run.run_id).result()
            run.clean()

    @once
    def test_a_disk_too_small_for_the_data(
        self, real_data: Path, tmp_path: Path, cluster: OneNode
    ) -> None:
        disk = cluster.base / "tiny disk"
        disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", disk], check=True
        )
        cluster.own(disk)
        try:
            treatment = ROITreatment(subject(real_data), mean_signal, tmp_path / "out")
            with pytest.raises(ClusterError, match=r"1 MB free in .*data, with their regions, is"):
                run_all({"one": treatment}, tmp_path, remote_paths={"one": disk})
        finally:
            subprocess.run(["umount", disk], check=True)
            disk.rmdir()


@once
def test_jobs_for_a_workflow_of_ones_own(real_data: Path, tmp_path: Path, cluster: OneNode) -> None:
    """What is sent, and the words that are run there: by hand, through SSH."""
    treatment = ROITreatment(subject(real_data), GLMAnalyser(), tmp_path / "out")
    place = cluster.home / "my jobs"
    place.mkdir()
    cluster.own(place)
    split, jobs, _, _ = prepare_treatment_jobs(
        treatment, tmp_path, tmp_path, "me", "laptop", "onenode", None, str(place), "LABEL",
    )  # fmt: skip
    binaries = cluster.python.parent
    for job in (split, *jobs[:3]):
        words = [str(binaries / job.command[0]), *job.command[1:]]
        done = subprocess.run(
            ["setpriv", f"--reuid={cluster.user}", "--clear-groups", *words],
            cwd=job.working_directory, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(load_results(place / "result.pck")) == 2
    run("rm", "-rf", place)
