"""The example of a treatment, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "treatment.py"


def run(*options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)], capture_output=True, text=True, check=False
    )


def test_a_simulated_run(tmp_path: Path) -> None:
    done = run("--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("glm", "responses"):
        page = tmp_path / name / "report.html"
        assert f"6 regions: {page}" in done.stdout
        assert "All regions were analysed." in page.read_text()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    files = (
        "--bold",
        tmp_path / "x.nii",
        "--parcellation",
        "p.nii",
        "--events",
        "e.tsv",
        "--tr",
        2,
    )
    done = run("--output", tmp_path, *files)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'x.nii'} cannot be read")
    assert len(done.stderr.splitlines()) == 1
