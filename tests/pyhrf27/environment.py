"""pyhrf 0.5 on Python 2.7, as released: built once, where nobody else can have made anything before."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import OWN_HOME, ROOT

_HOMES = (OWN_HOME, pwd.getpwuid(os.getuid()).pw_dir)
#: Root's alone to make things in, and open to the account of a cluster of the tests.
_OF_ROOT = Path("/var/cache/pyhrf_parallel-tests")
_ROOTS = (os.environ.get("PYENV_ROOT", ""), *(f"{home}/.pyenv" for home in _HOMES))


class CannotBuildError(Exception):
    """There is no Python 2.7, or pyhrf cannot be installed for it."""


def find_pyhrf27() -> Path:
    """Return the python of an environment that has pyhrf; build one if there is none."""
    given = os.environ.get("PYHRF_PARALLEL_PYHRF27")
    if given:
        return Path(given)
    place = cache_directory() / "pyhrf27"
    with _alone(place):
        if not (place / "ready").exists():
            _build(place)
    return place / "env" / "bin" / "python"


def cache_directory() -> Path:
    """Make the directory of what is kept between two runs of the tests; return it.

    Only root runs a cluster, whose account has to read it: a checkout may be closed to that one.

    Raises
    ------
    CannotBuildError
        If others may have put something there.
    """
    place = _OF_ROOT if os.getuid() == 0 else ROOT / ".venv-tests"
    with _readable():
        place.mkdir(exist_ok=True)
    check_own(place)
    return place


def check_own(place: Path) -> None:
    """Refuse a directory in which anybody but this account and root can put or replace things.

    Those above are looked at as well, up to the checkout: who can write there can change the tests.
    """
    for directory in (place, *place.parents):
        if directory == ROOT:
            break
        found = directory.lstat()
        if found.st_uid not in (0, os.getuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CannotBuildError(
                f"{directory} belongs to another account, or others may write to it: "
                "nothing that is in it is run"
            )


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let nobody else build there meanwhile."""
    with place.with_name(f"{place.name}.lock").open("a") as lock, _readable():
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _readable() -> Iterator[None]:
    """Let others read what is made meanwhile, and nobody else write to it."""
    mask = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(mask)


def _build(place: Path) -> None:
    interpreters = [
        found
        for root in filter(None, _ROOTS)
        for found in sorted(Path(root).glob("versions/2.7*/bin/python2.7"))
    ]
    if not interpreters:
        raise CannotBuildError("there is no Python 2.7 of pyenv's")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
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
    lines = (
        "#!/bin/sh",
        f"export LD_LIBRARY_PATH={place}/python/lib",
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
