"""Results whose name asks for compression."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest

from pyhrf_parallel import load_results
from pyhrf_parallel.backends import Mode
from pyhrf_parallel.treatments import ROITreatment
from tests.treatments.analyses import mean_signal
from tests.treatments.conftest import Subject


@pytest.mark.parametrize("mode", ["serial", "remote_cluster"])
def test_they_are_compressed_and_read(mode: Mode, subject: Subject, tmp_path: Path) -> None:
    treatment = ROITreatment(
        subject.data(),
        mean_signal,
        tmp_path / "out",
        result_dump_file=tmp_path / "out" / "dump.pck.gz",
    )
    treatment.run(mode)
    with gzip.open(tmp_path / "out" / "dump.pck.gz") as file:
        assert len(pickle.load(file)) == 3
    assert [report for *_, report in load_results(treatment.result_path)] == ["ok"] * 3
    assert treatment.already_done()
