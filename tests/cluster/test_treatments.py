"""Treatments on a cluster: real images, the same results, failures by region."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyhrf_parallel import TreatmentError
from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROIData, ROITreatment, load_results
from tests.conftest import ROOT

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.cluster]


def subject(place: Path) -> FmriData:
    return FmriData.of(
        place / "subj0_bold_session0.nii.gz", place / "subj0_parcellation.nii.gz",
        place / "paradigm_loc_av.csv", tr=2.4,
    )  # fmt: skip


def test_the_same_in_every_bit_as_in_a_loop(real_data: Path, tmp_path: Path) -> None:
    treatment = ROITreatment(subject(real_data), GLMAnalyser(), tmp_path / "cluster")
    found = treatment.run("cluster")
    assert treatment.already_done()
    # In a process of its own, with one thread as in the jobs.
    script = f"""
from tests.cluster.test_treatments import *
ROITreatment(subject(Path({str(real_data)!r})), GLMAnalyser(), {str(tmp_path / "loop")!r}).run()
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    expected = load_results(tmp_path / "loop" / "result.pck")
    for (roi, one, _), (same, two, _) in zip(found, expected, strict=True):
        assert roi.roi_id == same.roi_id
        assert one.maps.keys() == two.maps.keys()
        for name in one.maps:
            assert np.array_equal(one.maps[name], two.maps[name]), name


def test_a_region_whose_job_is_killed(real_data: Path, tmp_path: Path) -> None:
    def mean_or_death(roi: ROIData) -> float:
        if roi.roi_id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(roi.signals[0].mean())

    treatment = ROITreatment(subject(real_data), mean_or_death, tmp_path / "out")
    with pytest.raises(TreatmentError, match=r"region 1 \(632 voxels\)"):
        treatment.run("cluster")
    (_, mean, report), (_, nothing, _) = load_results(treatment.result_path)
    assert (report, nothing) == ("ok", None)
    assert mean > 0
