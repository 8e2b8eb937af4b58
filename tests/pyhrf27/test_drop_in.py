"""``sys.modules['pyhrf.parallel'] = pyhrf_parallel``, in a process that has pyhrf's classes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PORT = Path(__file__).with_name("port")
ESTIMATE = f"""#!{sys.executable}
import pickle, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
roi, signal = pickle.load(open(options["-r"], "rb"))
with open(options["-r"].replace("roidata", "result"), "wb") as file:
    pickle.dump((roi, sum(signal) / len(signal), "ok"), file, 0)
"""
SCRIPT = """
import sys
import pyhrf, pyhrf.xmlio
import pyhrf_parallel
sys.modules["pyhrf.parallel"] = pyhrf_parallel
from pyhrf.ui.treatment import FMRITreatment
pyhrf.cfg["parallel-cluster"]["remote_path"] = sys.argv[1]
treatment = FMRITreatment(sys.argv[2], sys.argv[3])
before = dict(treatment._init_parameters)
print(treatment.run(parallel="cluster"), treatment._init_parameters == before, len(treatment.retrieved))
"""


def test_its_own_run_works(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("bin", "remote", "home", "tmp")}
    for place in places.values():
        place.mkdir()
    (places["bin"] / "pyhrf_jde_estim").write_text(ESTIMATE)
    (places["bin"] / "pyhrf_jde_estim").chmod(0o755)
    (tmp_path / "table.csv").write_text("1,2,3\n3,4,5\n")
    environment = os.environ | {
        "PYTHONPATH": f"{PORT}:{ROOT}",
        "PATH": f"{places['bin']}:{os.environ['PATH']}",
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
    }
    arguments = [places["remote"], tmp_path / "table.csv", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{3: 4.0, 2: 3.0, 1: 2.0} True 3\n"
    assert list(places["tmp"].iterdir()) == []
    assert [p for p in places["remote"].rglob("*") if p.is_file()] == []
    assert [p for p in places["home"].rglob("*") if p.is_file()] == []
    assert (tmp_path / "out" / "result.pck").exists()
