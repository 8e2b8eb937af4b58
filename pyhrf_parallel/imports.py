"""What code and sources import, found without running them."""

from __future__ import annotations

import ast
import dis
import importlib.machinery
import threading
import types
from collections.abc import Iterator
from pathlib import Path

# Imports in these may never run, or fail without harm.
_CONDITIONAL = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.Try)
_PARSING = threading.Lock()  # CPython 3.11 counts the depth of all threads' sources together


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


def imported(spec: importlib.machinery.ModuleSpec) -> Iterator[tuple[str, bool]]:
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
