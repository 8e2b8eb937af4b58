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
    """The file that says how results were made, and which files belong to them.

    Parameters
    ----------
    path : Path
        The file itself: JSON.
    result : Path
        The list of results, which is replaced, but never removed.
    also : Path, optional
        Another ledger, whose analysis ends when this one has results: of the same `result`.
    """

    def __init__(self, path: Path, result: Path, also: Path | None = None) -> None:
        self._path = path
        self._result = result
        self._earlier = _read(path)
        other = None if also is None else _read(also)
        if also is not None and other is not None and str(result) in _files(also, other):
            self._also: Path | None = also
            self._other = other
        else:
            self._also, self._other = None, {}

    @property
    def path(self) -> Path:
        """The file itself."""
        return self._path

    @property
    def earlier(self) -> dict[str, Any]:
        """What is known of the analysis that has left the result; empty if there is none."""
        for told in (self._earlier, self._other):
            if told:
                return told
        return {}

    def check(
        self, names: Iterable[str], inputs: Iterable[str], *, has_result: bool = False
    ) -> None:
        """Check that files may be written.

        Parameters
        ----------
        names : iterable of str
            Of files in the directory of the ledger; the ledger itself and the result are others.
        inputs : iterable of str
            The files that are analysed.
        has_result : bool
            Whether the result has been brought here since this was checked.

        Raises
        ------
        TreatmentError
            If one would replace an input, or a file that no earlier analysis has left here as it is.
        """
        read = {os.path.realpath(path) for path in inputs}
        wanted = [self._path.parent / name for name in names]
        for path in [self._path, *[self._result] * (not has_result), *wanted]:
            if os.path.realpath(path) in read:
                raise TreatmentError(
                    f"the results would replace {path}, which is analysed: take another output_dir"
                )
            if self.is_foreign(path):
                known = str(path) in self._own()
                why = (
                    "has been changed since an analysis has written it"
                    if known
                    else ("is no result of an earlier analysis here")
                )
                raise TreatmentError(
                    f"the results would replace {path}, which {why}: move it away, or take another "
                    "output_dir or result_dump_file"
                )
        for path in map(Path, self._own()):
            if os.path.realpath(path) in read:
                raise TreatmentError(
                    f"{path} is analysed, and belongs to the earlier results in {self._path.parent}, which "
                    "would be replaced: take another output_dir"
                )

    def is_foreign(self, path: Path) -> bool:
        """Tell whether there is a file that must stay as it is."""
        if not os.path.lexists(path):
            return False
        if path == self._path:
            return not self._earlier
        own = self._own()
        if str(path) not in own:
            return True
        digest = own[str(path)]
        return digest is not None and (not path.is_file() or checksum(path) != digest)

    def claim(self, paths: Iterable[Path], identity: Mapping[str, Any]) -> None:
        """Note, before files are written, that they are going to be: whatever happens, they are known."""
        files = self._own() | dict.fromkeys(map(str, paths))
        told = self._earlier or {"identity": None}
        self._earlier = told | {"unfinished": dict(identity)}
        self._write(self._earlier, files)

    def finish(
        self, paths: Iterable[Path], identity: Mapping[str, Any], told: Mapping[str, Any]
    ) -> None:
        """Note what was written and how; remove what earlier results have besides it."""
        kept = {str(path): checksum(path) for path in paths}
        lists: dict[str, str | None] = {}
        for path, digest in self._own().items():
            if path in kept:
                continue
            is_changed = digest is not None and Path(path).is_file() and checksum(path) != digest
            is_beside = Path(path).parent == self._path.parent
            if not path.endswith(_OUTPUTS):  # a list of results that was given another name to stay
                lists[path] = digest
            elif is_beside and not is_changed:
                Path(path).unlink(missing_ok=True)
        self._earlier = dict(told) | {"identity": dict(identity)}
        self._write(self._earlier, lists | kept)
        if self._also is not None:
            self._also.unlink(missing_ok=True)

    def _own(self) -> dict[str, str | None]:
        """Return the checksums of the files of earlier results, by their paths."""
        own = _files(self._also, self._other) if self._also is not None else {}
        return own | _files(self._path, self._earlier)

    def _write(self, told: Mapping[str, Any], files: Mapping[str, str | None]) -> None:
        place = self._path.parent
        place.mkdir(parents=True, exist_ok=True)
        names = {
            os.path.relpath(path, place) if Path(path).is_relative_to(place) else path: digest
            for path, digest in files.items()
        }
        content = {"written_by": _AUTHOR} | dict(told) | {"files": names}
        self._earlier = content
        text = json.dumps(content, indent=2)
        write(self._path, lambda part: part.write_text(text, encoding="utf-8"), len(text))


def write(path: Path, save: Callable[[Path], object], size: int) -> Path:
    """Save under a temporary name of the same kind first: a file with its real name is complete.

    Raises
    ------
    TreatmentError
        If it cannot be written, as on a full disk: saying how many bytes it has, about, and are free.
    """
    part = path.with_name(f".part-{os.getpid()}{''.join(path.suffixes[-2:])}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(part)
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


def _files(path: Path, told: Mapping[str, Any]) -> dict[str, str | None]:
    return {str(path.parent / name): digest for name, digest in told.get("files", {}).items()}
