"""Containers: an account without a name, without a home, or with one that it may not enter."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyhrf_parallel.backends import MODES, Mode
from tests.conftest import ROOT

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_SCRIPT = """
import sys
from pyhrf_parallel import remote_map
print(remote_map(abs, [(-1,), (-2,)], mode=sys.argv[1], n_jobs=2))
"""
_HOMES: dict[str, dict[str, str]] = {
    "none": {},
    "closed": {"HOME": "{closed}/home"},
    "absent": {"HOME": "/nonexistent"},
}


def _as_another(place: Path) -> tuple[list[str], str]:
    """Return a command that runs Python as an unknown account, and its PYTHONPATH; nothing for none."""
    python = Path("/usr/bin/python3")  # one that others may run
    setpriv = shutil.which("setpriv")
    if os.getuid() or not setpriv or python.resolve().name != VERSION:
        return [], ""
    for module in ("joblib", "cloudpickle", "tqdm", "six", "soma_workflow", "pyhrf_parallel"):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        found = Path(spec.origin)
        if found.name == "__init__.py":
            shutil.copytree(found.parent, place / module)
        else:
            shutil.copy(found, place)
    return [setpriv, "--reuid=54321", "--regid=54321", "--clear-groups", str(python)], str(place)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others may enter; another pytest would close that of `tmp_path` when it starts."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("home", _HOMES)
@pytest.mark.parametrize("mode", MODES)
def test_an_account_without_a_home(mode: Mode, home: str, open_path: Path) -> None:
    closed, temporary, packages = (open_path / name for name in ("closed", "tmp", "packages"))
    for place in (closed, closed / "home", temporary, packages):
        place.mkdir()
    closed.chmod(0)
    command, path = _as_another(packages)
    if command:
        os.chown(temporary, 54321, 54321)
    environment = {name: value.format(closed=closed) for name, value in _HOMES[home].items()}
    environment |= {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(temporary),
        "PYTHONPATH": path or str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [*(command or [sys.executable]), "-c", _SCRIPT, mode],
        env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    closed.chmod(0o700)
    assert (done.stdout, done.stderr) == ("[1, 2]\n", "")
    assert list(temporary.iterdir()) == []
