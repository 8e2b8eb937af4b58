"""What all tests share: the places that they may write to, and what they need from outside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: The configuration file that pyhrf 0.5 writes by itself when it is imported.
PYHRF_CONFIG = ROOT / "tests" / "pyhrf_config.cfg"
#: Of whoever runs the tests, who have another one.
OWN_HOME = Path.home()
#: Names (comma-separated) whose absence fails a test instead of skipping it.
REQUIRED = set(filter(None, os.environ.get("PYHRF_PARALLEL_REQUIRE", "").split(",")))


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests a home: no configuration of the developer's counts, and no cache is left there."""
    home = tempfile.mkdtemp(prefix="pyhrf_parallel-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home))
    os.environ["HOME"] = home
    furnish(Path(home))


def furnish(home: Path) -> None:
    """Put into a home what users have there, if the tests are to run in such a home."""
    if os.environ.get("PYHRF_PARALLEL_TEST_HOME") == "pyhrf":
        (home / ".pyhrf").mkdir()
        shutil.copy(PYHRF_CONFIG, home / ".pyhrf" / "config.cfg")


def files_in(place: Path) -> list[str]:
    """Return what is in a place but for what `furnish` has put there."""
    return [str(path) for path in place.rglob("*") if ".pyhrf" not in path.parts]


def missing(name: str, reason: str) -> None:
    """Skip the test, or fail it where what it needs was promised."""
    if name in REQUIRED:
        pytest.fail(f"{name} is required: {reason}")
    pytest.skip(f"{name}: {reason}")


@pytest.fixture
def real_data() -> Path:
    """The directory with the real BOLD images."""
    path = Path(os.environ.get("PYHRF_PARALLEL_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "subj0_bold_session0.nii.gz").exists():
        missing("data", f"no images in {path} (set PYHRF_PARALLEL_DATA)")
    return path


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Hostile HOME, temporary and working directories that have to be empty again afterwards."""
    places = {}
    for name in ("home", "tmp", "cwd"):
        places[name] = tmp_path / f'{name} it\'s "quoted" $HOME `x`;\nnew é'
        places[name].mkdir()
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.setenv("TMPDIR", str(places["tmp"]))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(places["cwd"])
    furnish(places["home"])
    yield tmp_path
    left = [path for place in places.values() for path in files_in(place)]
    assert left == []
