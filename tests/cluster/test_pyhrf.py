"""The real pyhrf on Slurm: its own configuration, its own commands, its own results."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from pyhrf_parallel import TreatmentError, load_results, submit_treatments
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.pyhrf27 import PyhrfTreatment
from tests.cluster.one_node import OneNode
from tests.pyhrf27.conftest import crashing, python27, vem, xml_files  # noqa: F401
from tests.treatment_jobs.conftest import clean, finish, kept

pytestmark = [
    pytest.mark.usefixtures("configured"),
    pytest.mark.cluster,
    pytest.mark.pyhrf27,
    pytest.mark.timeout(900),  # it may have to be built
    pytest.mark.parametrize("scheduler", ["slurm"], indirect=True),
]


def test_every_byte_is_pyhrfs(
    vem: Path,  # noqa: F811
    python27: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    treatment = PyhrfTreatment.from_xml(vem)
    treatment.set_init_param("output_dir", str(tmp_path / "serial"))
    (tmp_path / "serial.xml").write_text(treatment.to_xml())
    (tmp_path / "serial").mkdir()
    command = [python27.with_name("pyhrf_jde_estim"), "-c", tmp_path / "serial.xml"]
    home = {"HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(
        list(map(str, command)), check=True, cwd=tmp_path, env=home, stdout=subprocess.DEVNULL
    )
    assert run_command(["doctor", "--no-job", "--python27", str(python27)]) == 0
    assert "pyhrf 0.5.0" in capsys.readouterr().out
    assert run_command(["doctor", "--no-job", "--python27", "/usr/bin/python3"]) == 1
    assert "/usr/bin/python3 has no pyhrf" in capsys.readouterr().out
    out = tmp_path / "out"
    argv = ["jde", str(vem), "--output", str(out), "--cluster", "--python", str(python27)]
    assert run_command(argv) == 0, capsys.readouterr().err
    assert "2 regions; 36 files are in" in capsys.readouterr().out
    different = [
        path.name
        for path in (tmp_path / "serial").iterdir()
        if (out / path.name).read_bytes() != path.read_bytes()
    ]
    assert different == ["jde_vem_analysis_duration.nii"]


def test_a_region_that_crashes_keeps_its_run(
    crashing: Path,  # noqa: F811
    python27: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    argv = ["jde", str(crashing), "--output", str(out), "--cluster", "--python", str(python27)]
    assert run_command(argv) == 1
    said = capsys.readouterr()
    assert "2 regions, 1 failed or not run; " in said.out
    run_id = kept(said.err)
    assert run_command(["runs", "--status"]) == 0
    assert "done: 1 of 2 tasks returned, 1 failed" in capsys.readouterr().out
    assert run_command(["retry", run_id]) == 0
    assert run_command(["collect", run_id]) == 1
    clean(capsys.readouterr().out)
    assert [report == "ok" for *_, report in load_results(out / "result.pck")] == [True, False]


def test_a_region_that_crashes_and_a_result_sent_back(
    crashing: Path,  # noqa: F811
    python27: Path,  # noqa: F811
    tmp_path: Path,
    address: str,
    cluster: OneNode,
) -> None:
    """The files that it needs to run again stay on the cluster."""
    text = crashing.read_text()
    dump = '<result_dump_file pickled_type="c__builtin__##str##p0##.">dump.pck.gz<'
    start, stop = text.index("<result_dump_file"), text.index("</result_dump_file")
    crashing.write_text(text[:start] + dump + text[stop + 1 :])
    treatment = PyhrfTreatment.from_xml(crashing, str(python27))
    treatment.set_init_param("make_outputs", False)
    place = tmp_path / "results"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(TreatmentError, match="region 1 ") as caught:
        run = submit_treatments(
            {"one": treatment}, {"one": place}, label="JDE", result_transfer="scp", local_host=address,
            local_user=cluster.user,
        )  # fmt: skip
        finish(run, {"one": treatment})
    run_id = kept(str(caught.value))
    assert run_command(["retry", run_id]) == 0
    assert run_command(["collect", run_id]) == 1
    clean(str(caught.value))
    assert {path.name for path in place.iterdir()} == {
        "dump.pck.gz", "dump.pck.gz.provenance.json",
    }  # fmt: skip
    with gzip.open(place / "dump.pck.gz") as file:
        assert file.read(1) == b"("  # a pickle, compressed where it was merged
    assert [report == "ok" for *_, report in load_results(place / "dump.pck.gz")] == [True, False]


def test_a_python_without_pyhrf(
    vem: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Found there before anything is sent."""
    argv = ["jde", str(vem), "--output", str(tmp_path / "out"), "--cluster", "--python"]
    assert run_command([*argv, "/usr/bin/python3"]) == 1
    assert "/usr/bin/python3 is Python 3" in capsys.readouterr().err
    assert run_command([*argv, "/no/python2.7"]) == 1
    assert "/no/python2.7" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run_command(["runs"]) == 0
    assert "There are no runs" in capsys.readouterr().out
