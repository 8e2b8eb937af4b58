"""What is remembered on this machine of runs on clusters: a directory for each, with a manifest."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pyhrf_parallel.account import home
from pyhrf_parallel.errors import ConfigurationError, RunNotFoundError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.places import check_place, make_private

_MANIFEST = "manifest.json"
_ADVICE = "or set XDG_STATE_HOME to a directory of your own"


@dataclass(frozen=True)
class Manifest:
    """What is known of a run wherever it is looked at from.

    Attributes
    ----------
    run_id : str
        Its name.
    function : str
        Module and name of the mapped function.
    tasks : int
        How many calls.
    created : str
        When it was submitted, ISO 8601 with the zone.
    directory : str
        Its place on the cluster.
    settings : dict
        The configuration that it was submitted with.
    options : dict
        `on_error`, `timeout` and `retries`.
    versions : dict
        Of Python and this package, where it was submitted.
    submitted_by : str
        ``user@host``.
    calls : list of str
        A short repr of each call, for error messages.
    treatments : list of dict
        For a run of treatments, what `pyhrf_parallel.treatment_jobs.subject.Subject` has.
    here : bool
        Whether it runs on this machine.
    """

    run_id: str
    function: str
    tasks: int
    created: str
    directory: str
    settings: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, str]
    submitted_by: str
    calls: list[str] = field(default_factory=list, repr=False)
    treatments: list[dict[str, Any]] = field(default_factory=list, repr=False)
    here: bool = False


def new_run_id() -> str:
    """Return a name for a run; names sort by age."""
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"


def state_directory() -> Path:
    """Return where this package keeps what outlives a process."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # to be ignored, as its specification says
        state = home() / ".local" / "state"
    return state / "pyhrf_parallel"


def runs_directory() -> Path:
    """Return where runs are remembered on this machine."""
    return state_directory() / "runs"


def prepare_memory() -> None:
    """Make the place where runs are remembered, for this account alone.

    Raises
    ------
    ConfigurationError
        If others could put runs of theirs there.
    """
    place = runs_directory()
    make_private(place, _ADVICE)
    for directory in (place.parent, place):
        directory.chmod(0o700)


def read_remembered(run_id: str, name: str) -> bytes:
    """Return a file that is remembered of a run, if this account has written it.

    Raises
    ------
    ConfigurationError
        If others could have.
    """
    path = runs_directory() / run_id / name
    check_place(path, _ADVICE)
    return path.read_bytes()


def _run_directories() -> list[Path]:
    place = runs_directory()
    if not place.exists():
        return []
    check_place(place, _ADVICE)
    return sorted(p.parent for p in place.glob(f"*/{_MANIFEST}"))


def load_manifest(run_id: str) -> Manifest:
    """Return what is remembered of a run.

    Raises
    ------
    RunNotFoundError
        If there is none of that name here, or its manifest cannot be read.
    """
    names = [path.name for path in _run_directories()]
    if run_id not in names:
        known = ", ".join(names) or "none"
        raise RunNotFoundError(f"There is no run {run_id!r} in {runs_directory()}; known: {known}")
    return _read_manifest(run_id)


def list_runs() -> list[Manifest]:
    """Return all runs that this account has submitted from here and not cleaned, oldest first."""
    return [_read_manifest(path.name) for path in _run_directories()]


def _read_manifest(run_id: str) -> Manifest:
    try:
        return Manifest(**json.loads(read_remembered(run_id, _MANIFEST)))
    except ConfigurationError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise RunNotFoundError(
            f"{runs_directory() / run_id / _MANIFEST} is damaged, or of another version of pyhrf_parallel: {error}; remove its directory "
            "if the run is of no use any more"
        ) from error


def forget(run_id: str) -> None:
    """Remove what is remembered of a run."""
    directory = runs_directory() / run_id
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):  # the last one of them
        directory.parent.rmdir()
        directory.parent.parent.rmdir()


def remember(manifest: Manifest, files: Mapping[str, bytes] | None = None) -> None:
    """Keep a manifest, and other files with it, for other processes too."""
    prepare_memory()
    directory = runs_directory() / manifest.run_id
    directory.mkdir(mode=0o700)
    for name, content in (files or {}).items():
        write_then_rename(directory / name, content)
    write_then_rename(directory / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
