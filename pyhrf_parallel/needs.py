"""What functions need on a cluster: modules of the user's own, which travel with them, and installed distributions.

A module is the user's own if it belongs neither to the standard library nor to an installed distribution: it lies
beside the script, in the working directory, on ``PYTHONPATH``, or is installed in editable mode.
"""

from __future__ import annotations

import ast
import dis
import importlib.machinery
import importlib.util
import io
import os
import sys
import sysconfig
import threading
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pyhrf_parallel.errors import ConfigurationError, NotShippableError

if TYPE_CHECKING:
    from pyhrf_parallel.tasks import Ship

#: Bytes of own modules that travel at most.
LIMIT = 50e6
_LISTED = 5  # files, in errors
_OURS = __name__.partition(".")[0]
_SKIPPED = {"__pycache__", "node_modules"}
# Imports in these may never run, or fail without harm.
_CONDITIONAL = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.Try)
_INSTALLED = {"site-packages", "dist-packages"}
_PARSING = threading.Lock()  # CPython 3.11 counts the depth of all threads' sources together


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
    _find_spec.cache_clear()  # sys.path may have changed
    needs = Needs()
    if ship is False:
        return needs
    waiting = dict.fromkeys(names, True)  # and whether they are needed in any case
    for spec in [] if ship == "auto" else map(_named, ship):
        needs.files.update(_files(spec))
        waiting.update(_imported(spec))
    seen: dict[str, bool] = {}
    while waiting:
        name, is_certain = waiting.popitem()
        if name in seen and seen[name] >= is_certain:
            continue
        seen[name] = is_certain
        for needed, is_unconditional in _look_up(name, needs, is_certain=is_certain):
            waiting[needed] = waiting.get(needed, False) or (is_certain and is_unconditional)
    return needs


def _look_up(name: str, needs: Needs, *, is_certain: bool) -> Iterable[tuple[str, bool]]:
    """Enter a module into the needs; return what it imports."""
    top, spec = _find_spec(name.partition(".")[0]), _find_spec(name)
    if top is None or top.name in sys.stdlib_module_names or top.name == "__main__":
        return ()
    if top.name == _OURS:  # is there already
        return _imported(spec) if spec else ()
    if not _is_own(top):
        needs.installed.update({top.name} if is_certain else ())
        return ()
    if spec is None:  # a name in a module
        return ()
    if f"{top.name}/__init__.py" not in needs.files:
        needs.files.update(_files(top))
    return _imported(spec)


def _named(item: types.ModuleType | str | os.PathLike[str]) -> importlib.machinery.ModuleSpec:
    """Find a module that `ship` names."""
    if isinstance(item, types.ModuleType):
        item = item.__name__
    is_name = isinstance(item, str) and os.sep not in item and not item.endswith(".py")
    path = Path(item).absolute()
    found: importlib.machinery.ModuleSpec | None = None
    if is_name:
        found = _find_spec(os.fspath(item).partition(".")[0])
    elif path.is_dir():
        init = path / "__init__.py"
        found = importlib.util.spec_from_file_location(
            path.name, init, submodule_search_locations=[str(path)]
        )
    elif path.is_file():
        found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None:
        raise ConfigurationError(
            f"ship: there is no module {os.fspath(item)!r}"
            if is_name
            else f"ship: {path} is not a file of Python, or a package"
        )
    return found


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


def imports_of(code: types.CodeType) -> set[str]:
    """Return the names of the modules that code imports, also within its functions."""
    names: set[str] = set()
    previous: list[object] = [None, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and previous[0] == 0:  # not relative
            needed = previous[1] if isinstance(previous[1], tuple) else ()
            names |= {instruction.argval, *(f"{instruction.argval}.{name}" for name in needed)}
        previous = [previous[1], instruction.argval]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= imports_of(constant)
    return names


def _imported(spec: importlib.machinery.ModuleSpec) -> Iterator[tuple[str, bool]]:
    """Yield the names that the source of a module imports, and whether it does so in any case; and its packages."""
    if not spec.origin or not spec.origin.endswith(".py"):
        return
    package = spec.name if spec.submodule_search_locations is not None else spec.parent or ""
    if "." in spec.name:
        yield spec.name.rpartition(".")[0], True
    try:
        with _PARSING:
            tree = ast.parse(Path(spec.origin).read_bytes())
    except (SyntaxError, OSError):  # told where it is imported
        return
    for node, is_certain in _statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_certain) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (base := _absolute(node, package)):
            yield base, is_certain
            yield from ((f"{base}.{alias.name}", is_certain) for alias in node.names)


def _statements(node: ast.AST, *, is_certain: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the parts of a source, and whether they run when it is imported: not in functions, nor if that may fail."""
    for child in ast.iter_child_nodes(node):
        yield child, is_certain
        yield from _statements(child, is_certain=is_certain and not isinstance(child, _CONDITIONAL))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the full name of the module from which a statement imports."""
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


@cache
def _homes() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level name, which takes some tenths of a second to find."""
    import importlib.metadata

    return importlib.metadata.packages_distributions()


@cache
def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module without importing it, or a package of it; None if there is none."""
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        found = _find_spec(parent)
        if found is None or found.submodule_search_locations is None:
            return None
        path = list(found.submodule_search_locations)
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
    library = {Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")}
    if not _INSTALLED.isdisjoint(root.parts) or root in library:
        return True
    for record in root.glob("*.dist-info/RECORD"):
        lines = record.read_text(errors="replace").splitlines()
        if any(line.startswith((f"{name}/", f"{name}.")) for line in lines):
            return True
    return False


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
