"""Describing an analyser: its name, its parameters, and a checksum of its code and of all that the code uses.

Two analysers with the same description do the same; it is the same in another process.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd

from pyhrf_parallel.needs import is_library

_DEPTH = 8
_OURS = "pyhrf_parallel."
#: Values of modules that count. Others, such as loggers and open files, do not change a result.
_CONSTANTS = (str, bytes, int, float, complex, Path, list, tuple, set, frozenset, dict)
_TABLES = (np.generic, np.ndarray, pd.DataFrame, pd.Series)


@dataclasses.dataclass
class _Used:
    """All that some code uses, by name: other code as text, values as JSON."""

    own: str  # the module whose code counts, besides the user's others
    found: dict[str, Any] = dataclasses.field(default_factory=dict)

    def follows(self, module: str) -> bool:
        """Whether code of a module counts."""
        return module == self.own or _is_users(module)

    def prefix(self, module: str) -> str:
        """Return the prefix of names of a module; none for its own, whose name changes if a script is imported."""
        return "" if module == self.own else f"{module}."


def describe(value: Any, depth: int = _DEPTH, used: _Used | None = None) -> dict[str, Any]:
    """Describe an analyser, or another callable.

    Parameters
    ----------
    value : callable
        A function, a method, a class, a partial or an object that can be called.
    depth : int
        How many levels of what it contains are looked at.
    used : _Used, optional
        Where to note its code. If it is not given, the code's checksum is a part of the description.
    """
    parameters: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        inner = describe(value.func, depth, used)
        items = {f"argument {i}": item for i, item in enumerate(value.args)} | value.keywords
        parameters = {name: _plain(item, depth, used) for name, item in items.items()}
        return inner | {"parameters": inner["parameters"] | parameters}
    if inspect.ismethod(value):
        inner = describe(value.__self__, depth, used)
        return inner | {"name": value.__qualname__}
    if not inspect.isfunction(value) and callable(getattr(value, "__wrapped__", None)):
        return describe(value.__wrapped__, depth, used)  # functools.cache and the like
    is_code = inspect.isroutine(value) or inspect.isclass(value)
    code = value if is_code else type(value)
    if inspect.isfunction(value):
        parameters = _values_of(value, depth, used)
    elif not is_code:
        state = getattr(value, "__dict__", {})
        if dataclasses.is_dataclass(value):
            state = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        parameters = {str(name): _plain(item, depth, used) for name, item in state.items()}
    module = getattr(code, "__module__", "") or ""
    name = getattr(code, "__qualname__", type(value).__qualname__)
    described: dict[str, Any] = {"name": name, "parameters": parameters}
    if used is None:
        source = None if module.startswith(_OURS) else _checksum(code)
        return described | {"module": module, "source": source}
    _note(code, used)
    return described


def _values_of(function: Any, depth: int, used: _Used | None) -> dict[str, Any]:
    """Return the values that belong to a function besides its code: closure and defaults."""
    names = function.__code__.co_freevars
    parameters = {}
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            parameters[name] = _plain(cell.cell_contents, depth, used)
        except ValueError:  # not set yet
            parameters[name] = None
    defaults = function.__defaults__ or ()
    parameters |= {f"default {i}": _plain(value, depth, used) for i, value in enumerate(defaults)}
    named = function.__kwdefaults__ or {}
    return parameters | {
        f"default {name}": _plain(value, depth, used) for name, value in named.items()
    }


def _checksum(code: Any) -> str:
    """Return the checksum of a function or class and of all that it uses in the user's modules."""
    used = _Used(getattr(code, "__module__", "") or "")
    _note(code, used)
    return hashlib.sha256(json.dumps(sorted(used.found.items())).encode()).hexdigest()


def _note(code: Any, used: _Used) -> None:
    """Note a function or class and all that it uses."""
    if isinstance(code, FunctionType):  # whose own names are those of the function that it wraps
        module, name = code.__globals__.get("__name__", ""), code.__code__.co_qualname
    else:
        module, name = getattr(code, "__module__", "") or "", getattr(code, "__qualname__", "")
    name = f"{used.prefix(module)}{name}"
    if name in used.found:
        return
    used.found[name] = _text(code) if used.follows(module) else ""
    if not used.follows(module):
        return
    if inspect.isclass(code):
        for base in code.__bases__:
            _note(base, used)
    for function in _functions(code):
        scope = function.__globals__
        for needed in sorted(_global_names(function.__code__)):
            if needed in scope and not needed.startswith("__"):
                _note_value(f"{used.prefix(module)}{needed} =", scope[needed], function, used)


def _note_value(name: str, value: Any, function: FunctionType, used: _Used) -> None:
    """Note the value of a global name of a function."""
    if isinstance(value, ModuleType):
        if _is_users(value.__name__):
            for attribute in sorted({n for c in _within(function.__code__) for n in c.co_names}):
                found = getattr(value, attribute, value)
                if not isinstance(found, ModuleType):
                    _note_value(f"{value.__name__}.{attribute} =", found, function, used)
        return
    is_value = value is None or isinstance(value, (*_CONSTANTS, *_TABLES)) or _has_state(value)
    if name not in used.found and (callable(value) or is_value):
        used.found[name] = ""  # it may contain itself
        used.found[name] = _plain(value, _DEPTH, used)


def _has_state(value: Any) -> bool:
    """Whether a value is an object of a user's class or a dataclass, described by its attributes."""
    return dataclasses.is_dataclass(value) or _is_users(type(value).__module__)


def _functions(code: Any) -> Iterator[FunctionType]:
    """Yield a function; of a class, its methods and those of classes within it."""
    if isinstance(code, FunctionType):
        yield code
    elif inspect.isclass(code):
        for member in vars(code).values():
            wrapped = [
                getattr(member, part, None)
                for part in ("__func__", "fget", "fset", "func", "__wrapped__")
            ]
            for found in (member, *wrapped):
                is_inner = inspect.isclass(found) and found.__qualname__.startswith(
                    f"{code.__qualname__}."
                )
                if isinstance(found, FunctionType) or is_inner:
                    yield from _functions(found)


def _within(code: CodeType) -> Iterator[CodeType]:
    """Yield code, and the functions, classes and comprehensions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


def _global_names(code: CodeType) -> set[str]:
    """Return the global names that code loads."""
    return {
        instruction.argval
        for each in _within(code)
        for instruction in dis.get_instructions(each)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _is_users(module: str) -> bool:
    """Whether a module is a script, a notebook or a file of the user's, not part of an installed package."""
    if module == "__main__":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or f"{module}.".startswith(_OURS):
        return False
    return not is_library(Path(file))


def _text(code: Any) -> str:
    try:
        return inspect.getsource(getattr(code, "__code__", code))
    except (OSError, TypeError):  # made by exec, or built in
        return _bytecode(getattr(code, "__code__", None))


def _bytecode(code: CodeType | None) -> str:
    if code is None:
        return ""
    constants = [
        _bytecode(constant) if isinstance(constant, CodeType) else _plain(constant, _DEPTH)
        for constant in code.co_consts
    ]
    return f"{code.co_code!r}{code.co_names}{constants}"


def _plain(value: Any, depth: int, used: _Used | None = None) -> Any:  # noqa: PLR0911  (a line for each kind)
    """Return a value as JSON, or its checksum: the same in every process."""
    if depth == 0:  # perhaps it contains itself
        return type(value).__qualname__
    depth -= 1
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.generic)):
        return float(value) if isinstance(value, float) and np.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth, used) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth, used) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item, depth, used)) for item in value)
    if isinstance(value, Path):
        return str(value)
    if callable(value) or _has_state(value):
        return describe(value, depth, used)
    try:
        content = pickle.dumps(value, 4)
    except Exception:  # of a class that only a script knows, or of something that is open
        return type(value).__qualname__
    return f"{type(value).__qualname__} {hashlib.sha256(content).hexdigest()}"
