"""pyhrf 0.5 on Python 2.7, as released: built once, in a directory that other accounts can read."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import OWN_HOME

_HOMES = (OWN_HOME, pwd.getpwuid(os.getuid()).pw_dir)
_ROOTS = (os.environ.get("PYENV_ROOT", ""), *(f"{home}/.pyenv" for home in _HOMES))


class CannotBuildError(Exception):
    """There is no Python 2.7, or pyhrf cannot be installed for it."""


def find_pyhrf27() -> Path:
    """Return the python of an environment that has pyhrf; build one if there is none."""
    given = os.environ.get("PYHRF_PARALLEL_PYHRF27")
    if given:
        return Path(given)
    place = Path(tempfile.gettempdir(), f"pyhrf_parallel_pyhrf27-{os.getuid()}")
    python = place / "env" / "bin" / "python"
    if not (place / "ready").exists():
        _build(place)
    return python


def _build(place: Path) -> None:
    interpreters = [
        found
        for root in filter(None, _ROOTS)
        for found in sorted(Path(root).glob("versions/2.7*/bin/python2.7"))
    ]
    if not interpreters:
        raise CannotBuildError("there is no Python 2.7 of pyenv's")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    # A copy: the home that it is in may be closed to the account of a cluster.
    shutil.copytree(interpreters[0].parent.parent, place / "python", symlinks=True)
    _run(sys.executable, "-m", "venv", place / "tools")
    _run(place / "tools" / "bin" / "pip", "install", "--quiet", "virtualenv<20.22")
    index = _run(
        place / "tools" / "bin" / "python", "-c",
        "from pip._internal.models.index import PyPI; print(PyPI.simple_url)",
    ).strip()  # fmt: skip
    # pip's own answer to where packages come from, for one so old that its answer is wrong by now.
    configured = _run(place / "tools" / "bin" / "pip", "config", "list")
    for line in configured.splitlines():
        if line.startswith("global.index-url="):
            index = line.partition("=")[2].strip("'\"")
    index = os.environ.get("PIP_INDEX_URL", index)
    _run(
        place / "tools" / "bin" / "virtualenv", "--quiet", "-p", place / "python" / "bin" / "python2.7",
        "--download", "--pip", "9.0.3", place / "env",
        VIRTUALENV_OVERRIDE_APP_DATA=str(place / "app-data"),
    )  # fmt: skip
    (place / "constraints.txt").write_text("nipy<0.5\n")
    settings = {"PIP_CONSTRAINT": str(place / "constraints.txt"), "PIP_INDEX_URL": index}
    _run(place / "env" / "bin" / "pip", "install", "--quiet", "pyhrf==0.5.0.post1", **settings)
    _find_own_library(place)
    (place / "ready").touch()


def _find_own_library(place: Path) -> None:
    """Let the interpreter find its library in the copy: where it was built may be closed to others."""
    python = place / "env" / "bin" / "python"
    real = python.with_name("python.real")
    shutil.copy(python.resolve(), real)
    python.unlink()
    # And its matplotlib cannot start in a home whose name is not ASCII, as that of the tests' account.
    lines = (
        "#!/bin/sh",
        f"export LD_LIBRARY_PATH={place}/python/lib HOME=.",
        f'exec {real} "$@"',
    )
    python.write_text("\n".join(lines) + "\n", encoding="ascii")
    python.chmod(0o755)


def _run(*argv: object, **settings: str) -> str:
    # pip's configuration may be in the home of whoever runs the tests.
    env = os.environ | {"HOME": str(OWN_HOME)} | settings
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, check=False, env=env
    )
    if done.returncode != 0:
        raise CannotBuildError(f"{argv[0]} ...: {done.stderr[-500:]}")
    return done.stdout
