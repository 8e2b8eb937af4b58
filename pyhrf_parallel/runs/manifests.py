"""What this machine knows of its runs: a directory for each, with a manifest."""

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
from typing import Any, Self

from pyhrf_parallel.account import home
from pyhrf_parallel.errors import ConfigurationError, RunNotFoundError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.places import check_place, make_private
from pyhrf_parallel.tasks import Options, Work

_MANIFEST = "manifest.json"
_ADVICE = "or set XDG_STATE_HOME to a directory of your own"


@dataclass(frozen=True)
class Manifest:
    """What is known of a run without connecting to it.

    Attributes
    ----------
    run_id : str
        Its id.
    function : str
        Module and name of the mapped function.
    tasks : int
        The number of tasks.
    created : str
        When it was submitted, in ISO 8601 with time zone.
    directory : str
        Its directory, on the cluster or on this machine.
    settings : dict
        The configuration that it was submitted with.
    options : dict
        `on_error`, `timeout` and `retries`.
    versions : dict
        The versions of Python and of this package that submitted it.
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


class RememberedWork(Work):
    """The tasks of a run that another process submitted, of which only the text is known."""

    calls: list[str]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Rebuild from a manifest."""
        options = Options(None, **manifest.options)
        blank: list[Any] = [()] * manifest.tasks
        work = cls(RememberedWork, blank, [{}] * manifest.tasks, options)
        object.__setattr__(work, "calls", manifest.calls)
        return work

    def describe(self, index: int) -> str:
        """Return the text of a call; empty if it was not kept."""
        return self.calls[index] if index < len(self.calls) else ""


def new_run_id() -> str:
    """Return a new id for a run; ids sort by age."""
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"


def state_directory() -> Path:
    """Return the directory in which this package keeps the state of runs."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # to be ignored, says the specification
        state = home() / ".local" / "state"
    return state / "pyhrf_parallel"


def runs_directory() -> Path:
    """Return the directory of all manifests on this machine."""
    return state_directory() / "runs"


def prepare_memory() -> None:
    """Make the directory of all manifests, private to this account.

    Raises
    ------
    ConfigurationError
        If others could write to it.
    """
    place = runs_directory()
    make_private(place, _ADVICE)
    for directory in (place.parent, place):
        directory.chmod(0o700)


def read_remembered(run_id: str, name: str) -> bytes:
    """Return the content of a file kept beside a manifest.

    Raises
    ------
    ConfigurationError
        If another account could have written it.
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
    """Return the manifest of a run.

    Raises
    ------
    RunNotFoundError
        If there is no run of that name on this machine, or its manifest cannot be read.
    """
    names = [path.name for path in _run_directories()]
    if run_id not in names:
        known = ", ".join(names) or "none"
        raise RunNotFoundError(f"There is no run {run_id!r} in {runs_directory()}; known: {known}")
    return _read_manifest(run_id)


def list_runs() -> list[Manifest]:
    """Return the manifests of all runs that this account submitted from here and has not cleaned, oldest first."""
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
    """Remove the manifest of a run."""
    directory = runs_directory() / run_id
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):  # if it was the last one
        directory.parent.rmdir()
        directory.parent.parent.rmdir()


def remember(manifest: Manifest, files: Mapping[str, bytes] | None = None) -> None:
    """Keep a manifest, with other files beside it."""
    prepare_memory()
    directory = runs_directory() / manifest.run_id
    directory.mkdir(mode=0o700)
    for name, content in (files or {}).items():
        write_then_rename(directory / name, content)
    write_then_rename(directory / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
