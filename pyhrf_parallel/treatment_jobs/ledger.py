"""Which files of a directory are an analysis's own: those may be replaced, and no others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.files import checksum

PROVENANCE = "provenance.json"
_AUTHOR = "pyhrf_parallel"

#: How the names of outputs end that are replaced as a whole; lists of results have any other name.
_OUTPUTS = (".nii.gz", ".nii", ".gii", ".tsv", ".json", ".html")


class Ledger:
    """A file that records how results were made, and which files belong to them.

    A file belongs to the results if it is listed with its present checksum: a name alone does not tell who has
    written the file.

    Parameters
    ----------
    path : Path
        The file itself, in JSON.
    result : Path
        The list of results, which is replaced, but never removed.
    others : iterable of Path
        Other ledgers, which may be missing. Those that list the same `result` count, until this one has results.
    """

    def __init__(self, path: Path, result: Path, others: Iterable[Path] = ()) -> None:
        self._path = path
        self._result = result
        self._told = _read(path)
        found = {other: _read(other) for other in others if other != path}
        self._others = {p: told for p, told in found.items() if str(result) in _files(p, told)}
        self._noted: dict[str, str] = {}  # by this very analysis

    @property
    def path(self) -> Path:
        """The file itself."""
        return self._path

    @property
    def earlier(self) -> dict[str, Any]:
        """The record of the analysis that has left the result; empty if there is none."""
        if self._result.is_file():
            digest = checksum(self._result)
            for path, told in {self._path: self._told, **self._others}.items():
                if digest in _files(path, told).get(str(self._result), []):
                    return told
        return {}

    def check(self, paths: Iterable[Path], inputs: Iterable[str | Path] = ()) -> None:
        """Check that files may be written.

        Parameters
        ----------
        paths : iterable of Path
            The files, besides the ledger itself and the result.
        inputs : iterable of path
            The files that are analysed.

        Raises
        ------
        TreatmentError
            If one would replace an input, or a file that is not as an earlier analysis has left it.
        """
        read = {os.path.realpath(path) for path in inputs}
        for path in [self._path, self._result, *paths]:
            if os.path.realpath(path) in read:
                raise TreatmentError(
                    f"the results would replace {path}, which is analysed: take another directory for them"
                )
            if self.is_foreign(path):
                raise TreatmentError(
                    f"the results would replace {path}, which {self._why(path)}: move it away, or take another "
                    "directory or result_dump_file for them"
                )
        for path in map(Path, self._own()):
            if os.path.realpath(path) in read:
                raise TreatmentError(
                    f"{path} is analysed, and belongs to the earlier results in {self._path.parent}, which "
                    "would be replaced: take another directory for the new ones"
                )

    def is_foreign(self, path: Path) -> bool:
        """Return whether there is a file that must stay as it is."""
        if not os.path.lexists(path):
            return False
        if path == self._path:
            return not self._told
        return not path.is_file() or checksum(path) not in self.replaceable(path)

    def replaceable(self, path: Path) -> list[str]:
        """Return the SHA-256 checksums with which a file belongs to earlier results; the file may be missing."""
        return self._own().get(str(path), [])

    def _why(self, path: Path) -> str:
        """Say why a file is foreign."""
        if self.replaceable(path):
            return "has been changed since an analysis wrote it"
        if path.name.endswith(PROVENANCE) and _is_of_old_version(path):
            return (
                "tells of results of an earlier version of this library, which did not list their files: "
                "they are not replaced, since they may have been changed"
            )
        return "is not a known result of an earlier analysis"

    def note(self, files: Mapping[Path, str], identity: Mapping[str, Any] | None) -> None:
        """List files just before they get their names, so that they are known even if this process is killed.

        Parameters
        ----------
        files : dict of Path to str
            Their SHA-256 checksums.
        identity : dict, optional
            Their analysis, if it is known.
        """
        listed = self._own()
        for path, digest in files.items():
            # Until then, the earlier file is there.
            listed[str(path)] = [*listed.get(str(path), []), digest]
            self._noted[str(path)] = digest
        told = self._told or {"identity": None}
        self._write(told | {"unfinished": identity or {}}, listed)

    def finish(self, identity: Mapping[str, Any] | None, told: Mapping[str, Any]) -> None:
        """Record how the listed files were made, and remove other files of earlier results."""
        lists: dict[str, list[str]] = {}
        for path, digests in self._own().items():
            if path in self._noted:
                continue
            if not path.endswith(_OUTPUTS):  # a list of results under another name, which stays
                lists[path] = digests
            elif Path(path).parent == self._path.parent and not self.is_foreign(Path(path)):
                Path(path).unlink(missing_ok=True)
        content = {k: v for k, v in told.items() if k != "unfinished"} | {"identity": identity}
        self._write(content, lists | {path: [digest] for path, digest in self._noted.items()})
        for other, known in self._others.items():
            is_beside = other.parent == self._path.parent
            if is_beside or set(_files(other, known)) <= {str(self._result)}:
                other.unlink(missing_ok=True)
        self._others = {}

    def _own(self) -> dict[str, list[str]]:
        """Return the checksums of files of earlier results, by their paths."""
        own: dict[str, list[str]] = {}
        for ledger, told in {**self._others, self._path: self._told}.items():
            for path, digests in _files(ledger, told).items():
                own[path] = list(dict.fromkeys([*own.get(path, []), *digests]))
        return own

    def _write(self, told: Mapping[str, Any], files: Mapping[str, list[str]]) -> None:
        directory = self._path.parent
        directory.mkdir(parents=True, exist_ok=True)
        names = {
            os.path.relpath(path, directory) if Path(path).is_relative_to(directory) else path: (
                digests[0] if len(digests) == 1 else digests
            )
            for path, digests in files.items()
        }
        content = {"written_by": _AUTHOR} | dict(told) | {"files": names}
        self._told = content
        text = json.dumps(content, indent=2)
        write(self._path, lambda part: part.write_text(text, encoding="utf-8"), len(text))


def result_ledger(result: Path, outputs: Iterable[str | Path] = ()) -> Ledger:
    """Return the ledger of a list of results that comes without other files; it is beside the list.

    Parameters
    ----------
    result : Path
        The list.
    outputs : iterable of path
        Directories that earlier analyses of the same treatment may have written other files to.
    """
    others = [Path(directory) / PROVENANCE for directory in (result.parent, *outputs)]
    return Ledger(result.with_name(f"{result.name}.{PROVENANCE}"), result, dict.fromkeys(others))


Note = Callable[[Mapping[Path, str]], None]


def write(path: Path, save: Callable[[Path], object], size: int, note: Note | None = None) -> Path:
    """Save a file, which appears under its final name only when complete.

    Parameters
    ----------
    path : Path
        The file.
    save : callable
        Saves it to the path given, which has the same suffixes.
    size : int
        Its approximate size in bytes, for errors.
    note : callable, optional
        Lists its checksum before it gets its final name.

    Raises
    ------
    TreatmentError
        If it cannot be written, as on a full disk, with its size and the free space.
    """
    part = path.with_name(f".part-{os.getpid()}{''.join(path.suffixes[-2:])}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(part)
        if note is not None:
            note({path: checksum(part)})
        part.replace(path)
    except OSError as error:
        free = ""
        with suppress(OSError):
            part.unlink(missing_ok=True)
            free = f", and {shutil.disk_usage(path.parent).free / 1e6:.3g} MB are free there"
        raise TreatmentError(
            f"{path} cannot be written: {error.strerror or error} (it has about {size / 1e6:.3g} MB{free})"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(content, dict) and content.get("written_by") == _AUTHOR
    return content if is_ours and isinstance(content.get("files"), dict) else {}


def _is_of_old_version(path: Path) -> bool:
    """Return whether a file is the provenance of an early version 0.1.0, which listed no files."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        versions = content.get("versions") if isinstance(content, dict) else None
        return isinstance(versions, dict) and _AUTHOR in versions
    return False


def _files(path: Path, told: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the checksums in a ledger by paths; a file that was being replaced has several."""
    return {
        str(path.parent / name): [
            d for d in (listed if isinstance(listed, list) else [listed]) if d
        ]
        for name, listed in told.get("files", {}).items()
    }
