"""Small treatments, and a HOME in which nothing may be left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from docs.examples.own_treatment import TableTreatment
from pyhrf_parallel import TreatmentRun, submit_treatments
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.treatment_jobs.graph import TreatmentPreview
from pyhrf_parallel.treatment_jobs.outcome import raise_failures
from tests.conftest import ROOT

SCRIPT = ROOT / "docs" / "examples" / "own_treatment.py"
ESTIMATE = [sys.executable, str(SCRIPT), "estimate"]
SPLIT = [sys.executable, str(SCRIPT), "split"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty HOME, and a temporary directory; afterwards nothing may be left there or running."""
    place = tmp_path / 'a "home" é $HOME `x`'
    (place / "tmp").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    yield place
    assert [str(p) for p in place.rglob("*") if p.is_file()] == []
    assert list((place / "tmp").iterdir()) == []
    assert processes_in(place) == []


def processes_in(place: Path) -> list[int]:
    """Return the processes that work in a directory."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(place) in word for word in arguments):
            found.append(process.pid)
    return found


def table(place: Path, regions: int = 3, name: str = "signals.csv") -> TableTreatment:
    """Return a treatment whose regions have the means 1, 2, ..."""
    place.mkdir(exist_ok=True)
    signals = np.arange(1, regions + 1) + np.array([[-1.0], [0.0], [1.0]])
    np.savetxt(place / name, signals, delimiter=",")
    return TableTreatment(str(place / name))


def means(results: list[Any]) -> list[float]:
    """Return what was found."""
    return [found["mean"] for _, found, _ in results]


def run_here(
    treatments: dict[str, Any], results: Path, *, return_all: bool = False, on_error: str = "raise", **options: Any
) -> Any:  # fmt: skip
    """Run treatments of tables on this machine, wait, and return the results of the last one."""
    given: dict[str, Any] = {
        "local_result_paths": {name: results / name for name in treatments},
        "exec_cmd": ESTIMATE, "split_cmd": SPLIT, "label": "LABEL", "make_outputs": False,
    }  # fmt: skip
    submitted: TreatmentRun | TreatmentPreview = submit_treatments(treatments, **given | options)
    return (
        submitted
        if isinstance(submitted, TreatmentPreview)
        else finish(submitted, treatments, return_all=return_all, on_error=on_error)
    )


def finish(
    run: TreatmentRun, treatments: dict[str, Any], *, return_all: bool = False, on_error: str = "raise"
) -> Any:  # fmt: skip
    """Wait for a run, and return the results of its last treatment, or of all."""
    with run:
        outcomes = run.finish(keep_failed=on_error == "raise")
    for name, outcome in outcomes.items():
        outcome.write_outputs(treatments[name])
    raise_failures(outcomes.values(), only_problems=on_error == "return")
    found = {name: outcome.results for name, outcome in outcomes.items()}
    return found if return_all else list(found.values())[-1]


def script(path: Path, body: str) -> list[str]:
    """Return a command that does something before it analyses a region, whose number is NUMBER."""
    path.write_text(
        "import os, signal, subprocess, sys, time\n"
        "region = sys.argv[sys.argv.index('-r') + 1]\n"
        "number = int(region[8:12])\n"
        f"{body}\n"
        f"sys.exit(subprocess.run({ESTIMATE!r} + sys.argv[1:]).returncode)\n"
    )
    return [sys.executable, str(path)]


def kept(told: str) -> str:
    """Return the run that an error says to have been kept."""
    assert "The run was kept: pyhrf-parallel retry " in told
    return told.partition("pyhrf-parallel retry ")[2].partition(",")[0]


def clean(told: str) -> None:
    """Remove the run that an error says to have been kept."""
    assert run_command(["clean", "--yes", kept(told)]) == 0


def files(place: Path) -> list[str]:
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
