"""What functions need on a cluster: modules of the user's own, which travel with them, and installed distributions.

A module is the user's own if it belongs neither to the standard library nor to an installed distribution: it lies
beside the script, in the working directory, on ``PYTHONPATH``, or is installed in editable mode.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import sys
import sysconfig
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pyhrf_parallel.errors import ConfigurationError, NotShippableError
from pyhrf_parallel.imports import imported

if TYPE_CHECKING:
    from pyhrf_parallel.tasks import Ship

#: Bytes of own modules that travel at most.
LIMIT = 50e6
_LISTED = 5  # files, in errors
_OURS = __name__.partition(".")[0]
#: What modules of this package import, which does not change.
_OF_OURS: dict[str, tuple[tuple[str, bool], ...]] = {}
_SKIPPED = {"__pycache__", "node_modules"}
_INSTALLED = {"site-packages", "dist-packages"}
_LIBRARY = {
    form for key in ("stdlib", "platstdlib") for path in [Path(sysconfig.get_path(key))]
    for form in (path, path.resolve())
}  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """What a function needs, besides Python and this package.

    Attributes
    ----------
    files : dict of str to Path
        The files of the user's own modules, by their paths relative to the directory from which these are
        imported. Of a package, they are all its files, data included.
    installed : set of str
        The top-level names of installed modules.
    """

    files: dict[str, Path] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)

    def distributions(self) -> dict[str, str]:
        """Return the distributions that have the installed modules, with their versions here."""
        if not self.installed:
            return {}
        import importlib.metadata  # slow, and not needed for maps on this machine

        homes = _homes()
        names = {name for top in self.installed for name in homes.get(top, ())}
        return {name: importlib.metadata.version(name) for name in sorted(names)}

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files, in bytes."""
        return {name: path.stat().st_size for name, path in sorted(self.files.items())}

    def check_size(self) -> None:
        """Refuse too many bytes of files.

        Raises
        ------
        NotShippableError
            If they are more than `LIMIT`; the message names the largest files.
        """
        sizes = self.sizes()
        total = sum(sizes.values())
        if total <= LIMIT:
            return
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LISTED]
        told = ", ".join(f"{self.files[name]} ({size / 1e6:.1f} MB)" for name, size in largest)
        raise NotShippableError(
            f"The modules that the function needs are {total / 1e6:.0f} MB, and {LIMIT / 1e6:.0f} MB may be sent with a "
            f"run; the largest files are {told}. Move data out of the package, or install it on the cluster and give "
            "ship=False"
        )


def find_needs(names: Iterable[str], ship: Ship = "auto") -> Needs:
    """Find what modules need, and the modules that they import.

    Parameters
    ----------
    names : iterable of str
        Full names of modules.
    ship : 'auto', False, or sequence of modules, names and paths
        False for nothing; what is named here is sent in any case.

    Raises
    ------
    ConfigurationError
        If there is no such module or path in `ship`.
    """
    if ship is False:
        return Needs()
    search = _Search()
    waiting = dict.fromkeys(names, True)  # and whether they are needed in any case
    for item in [] if ship == "auto" else ship:
        _add(search.take(item), waiting)
    seen: dict[str, bool] = {}
    while waiting:
        name, is_certain = waiting.popitem()
        if name in seen and seen[name] >= is_certain:
            continue
        seen[name] = is_certain
        _add(search.look_up(name, is_certain=is_certain), waiting, is_certain=is_certain)
    return search.needs


def _add(
    found: Iterable[tuple[str, bool]], waiting: dict[str, bool], *, is_certain: bool = True
) -> None:
    """Add imports to the modules to look up; what is needed in any case once stays so."""
    for name, is_unconditional in found:
        waiting[name] = waiting.get(name, False) or (is_certain and is_unconditional)


class _Search:
    """Enters modules into needs, and tells what they import."""

    def __init__(self) -> None:
        self.needs = Needs()
        self._specs: dict[str, importlib.machinery.ModuleSpec | None] = {}
        # By the names of top-level modules, whose files are entered once.
        self._own: dict[str, bool] = {}

    def take(self, item: types.ModuleType | str | os.PathLike[str]) -> Iterable[tuple[str, bool]]:
        """Enter a module that `ship` names; return what it imports."""
        if isinstance(item, types.ModuleType):
            item = item.__name__
        is_name = isinstance(item, str) and os.sep not in item and not item.endswith(".py")
        path = Path(item).absolute()
        spec = self._find(os.fspath(item).partition(".")[0]) if is_name else _spec_of(path)
        if spec is None:
            raise ConfigurationError(
                f"ship: there is no module {os.fspath(item)!r}"
                if is_name
                else f"ship: {path} is not a file of Python, or a package"
            )
        self.needs.files.update(_files(spec))
        return imported(spec)

    def look_up(self, name: str, *, is_certain: bool) -> Iterable[tuple[str, bool]]:
        """Enter a module; return what it imports."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top == "__main__" or self._find(top) is None:
            return ()
        spec = self._find(name)
        if top == _OURS:  # is there already
            if spec is not None and name not in _OF_OURS:
                _OF_OURS[name] = tuple(imported(spec))
            return _OF_OURS.get(name, ())
        if not self._is_own(top):
            self.needs.installed.update({top} if is_certain else ())
            return ()
        return imported(spec) if spec else ()  # else it is a name in a module

    def _is_own(self, top: str) -> bool:
        if top not in self._own:
            spec = self._find(top)
            self._own[top] = spec is not None and _is_own(spec)
            if spec is not None and self._own[top]:
                self.needs.files.update(_files(spec))
        return self._own[top]

    def _find(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """Find a module without importing it, or a package of it; None if there is none."""
        if name not in self._specs:
            parent = name.rpartition(".")[0]
            found = self._find(parent) if parent else None
            places = found.submodule_search_locations if found else None
            is_lost = bool(parent) and places is None
            self._specs[name] = None if is_lost else _find_spec(name, places)
        return self._specs[name]


def _spec_of(path: Path) -> importlib.machinery.ModuleSpec | None:
    """Return the module in a file, or the package in a directory; None if it is neither."""
    if path.is_dir():
        return importlib.util.spec_from_file_location(
            path.name, path / "__init__.py", submodule_search_locations=[str(path)]
        )
    return importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None


def pack(files: Mapping[str, Path]) -> bytes:
    """Return an archive of files; its bytes depend on their names, modes and content only."""
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            info = archive.gettarinfo(files[name], name)
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            with files[name].open("rb") as file:
                archive.addfile(info, file)
    return zlib.compress(buffer.getvalue())


@cache
def _homes() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level name, which takes some tenths of a second to find."""
    import importlib.metadata

    return importlib.metadata.packages_distributions()


def _find_spec(name: str, places: Iterable[str] | None) -> importlib.machinery.ModuleSpec | None:
    """Ask all finders for a module: in these directories, or at the top level."""
    path = None if places is None else list(places)
    for finder in sys.meta_path:
        with suppress(Exception):  # of a finder that somebody has added
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec
    return None


def _is_own(spec: importlib.machinery.ModuleSpec) -> bool:
    """Whether a top-level module is not in an installed distribution."""
    roots = _roots(spec)
    return bool(roots) and not any(_is_installed(root, spec.name) for root in roots)


def _roots(spec: importlib.machinery.ModuleSpec) -> list[Path]:
    """Return the directories from which a top-level module is imported."""
    if spec.submodule_search_locations is not None:
        return [Path(path).resolve().parent for path in spec.submodule_search_locations]
    return [Path(spec.origin).resolve().parent] if spec.has_location and spec.origin else []


def _is_installed(root: Path, name: str) -> bool:
    """Whether a directory belongs to Python, or a distribution in it has that module, as ``pip --target`` leaves it."""
    if is_library(root):
        return True
    for record in root.glob("*.dist-info/RECORD"):
        lines = record.read_text(errors="replace").splitlines()
        if any(line.startswith((f"{name}/", f"{name}.")) for line in lines):
            return True
    return False


def is_library(path: Path) -> bool:
    """Whether a file or directory belongs to Python, or lies where packages are installed."""
    return not _INSTALLED.isdisjoint(path.parts) or any(map(path.is_relative_to, _LIBRARY))


def _files(spec: importlib.machinery.ModuleSpec) -> Iterator[tuple[str, Path]]:
    """Yield the files of a top-level module: all of a package, and of one without ``__init__.py`` the sources."""
    if spec.submodule_search_locations is None:
        assert spec.origin is not None  # noqa: S101
        yield Path(spec.origin).name, Path(spec.origin)
        return
    for location in map(Path, spec.submodule_search_locations):
        for directory, below, names in os.walk(location):
            below[:] = [each for each in below if each not in _SKIPPED and not each.startswith(".")]
            for name in names:
                path = Path(directory, name)
                is_source = path.suffix == ".py"
                if path.is_file() and path.suffix != ".pyc" and (spec.origin or is_source):
                    yield str(PurePosixPath(spec.name, path.relative_to(location))), path
