"""The real pyhrf on Slurm: its own configuration, its own commands, its own results."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.pyhrf27 import PyhrfTreatment
from tests.pyhrf27.conftest import python27, vem, xml_files  # noqa: F401

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
    assert "2 regions; 35 files are in" in capsys.readouterr().out
    different = [
        path.name
        for path in (tmp_path / "serial").iterdir()
        if (out / path.name).read_bytes() != path.read_bytes()
    ]
    assert different == ["jde_vem_analysis_duration.nii"]
