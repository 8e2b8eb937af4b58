"""Where results come from: which analysis of which data. Two with the same identity give the same results."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyhrf_parallel.files import checksum
from pyhrf_parallel.treatments.fmri_data import FmriData

Identity = dict[str, Any]
_DEPTH = 8
_OURS = "pyhrf_parallel.treatments."


def identify(data: FmriData, analyser: Callable[..., Any]) -> Identity:
    """Return what makes an analysis this one: the content of its files, its analyser, all parameters.

    It can be written as JSON, and is the same in another process.
    """
    inputs = {role: [_checksum(path) for path in paths] for role, paths in _roles(data).items()}
    found = {"analyser": describe(analyser), "tr_seconds": data.tr, "inputs": inputs}
    identity: Identity = json.loads(json.dumps(found))  # as it is read again
    return identity


def input_checksums(data: FmriData, identity: Identity) -> dict[str, str]:
    """Return the SHA-256 of each file that was analysed, by its path."""
    return {
        path: digest
        for role, paths in _roles(data).items()
        for path, digest in zip(paths, identity["inputs"][role], strict=True)
    }


def differences(earlier: Identity, now: Identity, data: FmriData) -> list[str]:
    """Say in what another analysis differs from this one; nothing if they are the same."""
    told = []
    was, own = earlier.get("analyser", {}), now["analyser"]
    if was.get("name") != own["name"]:
        told.append(f"the analyser was {was.get('name')}, and is {own['name']}")
    else:
        if was.get("source") != own["source"]:
            told.append(f"the source of {own['name']} is another")
        before, parameters = was.get("parameters", {}), own["parameters"]
        told += [
            f"{name} was {before.get(name)!r}, and is {parameters.get(name)!r}"
            for name in sorted({*before, *parameters})
            if before.get(name) != parameters.get(name)
        ]
    if earlier.get("tr_seconds") != now["tr_seconds"]:
        told.append(f"the TR was {earlier.get('tr_seconds')} s, and is {now['tr_seconds']} s")
    for role, paths in _roles(data).items():
        digests, found = earlier.get("inputs", {}).get(role, []), now["inputs"][role]
        if len(digests) != len(found):
            told.append(f"{len(digests)} files of {role} were analysed, and there are {len(found)}")
        elif digests != found:
            changed = [p for p, a, b in zip(paths, digests, found, strict=True) if a != b]
            told.append(f"{', '.join(changed)} had another content")
    return told


def name_of(analyser: Any) -> str:
    """Return how people know an analyser; no address in memory is part of it."""
    if dataclasses.is_dataclass(analyser):
        return repr(analyser)
    described = describe(analyser)
    parameters = ", ".join(f"{key}={value!r}" for key, value in described["parameters"].items())
    module = f"{described['module']}." if described["module"] else ""
    return f"{module}{described['name']}" + (f"({parameters})" if parameters else "")


def describe(value: Any, depth: int = _DEPTH) -> dict[str, Any]:
    """Describe an analyser: its names, a checksum of its source, and what else it depends on."""
    parameters: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        inner = describe(value.func, depth)
        parameters = {f"argument {i}": _plain(item, depth) for i, item in enumerate(value.args)}
        parameters |= {name: _plain(item, depth) for name, item in value.keywords.items()}
        return inner | {"parameters": inner["parameters"] | parameters}
    if inspect.ismethod(value):
        inner = describe(value.__self__, depth)
        return inner | {"name": value.__qualname__}
    is_code = inspect.isroutine(value) or inspect.isclass(value)
    source = value if is_code else type(value)
    if inspect.isfunction(value):
        parameters = _of_function(value, depth)
    elif not is_code:
        state = getattr(value, "__dict__", {})
        if dataclasses.is_dataclass(value):
            state = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        parameters = {str(name): _plain(item, depth) for name, item in state.items()}
    module = getattr(source, "__module__", "") or ""
    return {
        "module": module,
        "name": getattr(source, "__qualname__", type(value).__qualname__),
        "source": None if module.startswith(_OURS) else _source(source),
        "parameters": parameters,
    }


def _of_function(function: Any, depth: int) -> dict[str, Any]:
    """Return the values that a function has, besides its source."""
    names = function.__code__.co_freevars
    parameters = {}
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            parameters[name] = _plain(cell.cell_contents, depth)
        except ValueError:  # not set yet
            parameters[name] = None
    defaults = function.__defaults__ or ()
    parameters |= {f"default {i}": _plain(value, depth) for i, value in enumerate(defaults)}
    named = function.__kwdefaults__ or {}
    return parameters | {f"default {name}": _plain(value, depth) for name, value in named.items()}


def _source(code: Any) -> str:
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError):  # made by exec, or built in
        code_object = getattr(code, "__code__", None)
        text = "" if code_object is None else f"{code_object.co_code!r}{code_object.co_names}"
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, depth: int) -> Any:  # noqa: PLR0911  (a line for each kind)
    """Return a value as JSON has it, or a checksum of it: the same in every process."""
    if depth == 0:  # perhaps it contains itself
        return type(value).__qualname__
    depth -= 1
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.generic)):
        return float(value) if isinstance(value, float) and np.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item, depth)) for item in value)
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return describe(value, depth)
    try:
        content = pickle.dumps(value, 4)
    except Exception:  # of a class that only a script knows, or of something that is open
        return type(value).__qualname__
    return f"{type(value).__qualname__} {hashlib.sha256(content).hexdigest()}"


def _roles(data: FmriData) -> dict[str, list[str]]:
    return {
        "bold": list(data.bold),
        "parcellation": [data.parcellation],
        "events": list(data.events),
        "confounds": list(data.confounds),
    }


def _checksum(path: str) -> str:
    status = Path(path).stat()
    return _checksum_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=256)  # several analyses of the same files
def _checksum_of(path: str, *_status: int) -> str:
    return checksum(path)
