"""Send functions to other processes: by name, by value, or as a marshalled code object."""

from __future__ import annotations

import builtins
import inspect
import marshal
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyhrf_parallel.errors import NotShippableError

_by_value_lock = threading.RLock()  # re-entrant: a __getstate__ that is pickled may itself map


class MarshalledFunction:
    """A function that travels as its bare code object and needs no module on the other side.

    Parameters
    ----------
    func : function
        A plain Python function. It must import in its own body what it uses, as the global names of its
        module do not travel with it.

    Raises
    ------
    NotShippableError
        If it is a closure, or has no code object.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        code = _code_of(func)
        if code.co_freevars:
            raise NotShippableError(
                f"{func.__name__} is a closure over {', '.join(code.co_freevars)}, which a code object "
                "does not carry; pass the values as arguments, or use remote_map"
            )
        self.__name__: str = func.__name__
        self._code = marshal.dumps(code)
        self._python = sys.version_info[:2]
        self._defaults = (func.__defaults__, func.__kwdefaults__)
        self._function: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the rebuilt function, which does not pickle."""
        return self.__dict__ | {"_function": None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, after rebuilding it from its code object."""
        if self._function is None:
            self._function = self._rebuild()
        return self._function(*args, **kwargs)

    def _rebuild(self) -> Callable[..., Any]:
        if sys.version_info[:2] != self._python:
            here, there = (".".join(map(str, v)) for v in (sys.version_info[:2], self._python))
            raise NotShippableError(
                f"{self.__name__} was marshalled by Python {there}, and code objects cannot be read by "
                f"Python {here}; use the same minor version on both sides, or remote_map"
            )
        scope = {"__builtins__": builtins, "__name__": "pyhrf_parallel.marshalled"}
        function = types.FunctionType(marshal.loads(self._code), scope, self.__name__)  # noqa: S302
        function.__defaults__, function.__kwdefaults__ = self._defaults
        return function


def dump_func(func: Callable[..., Any], fn: str | os.PathLike[str]) -> None:
    """Dump the code of a function to a file, as `marshal` writes it.

    Parameters
    ----------
    func : function
        A plain Python function.
    fn : path
        The file; one of that name is replaced, in one step.

    Raises
    ------
    NotShippableError
        For something that has no code object (a builtin, a partial, a callable instance).

    Examples
    --------
    >>> import marshal, pathlib, tempfile, types
    >>> def double(x): return 2 * x
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     dump_func(double, f"{directory}/double.marshal")
    ...     code = marshal.loads(pathlib.Path(directory, "double.marshal").read_bytes())
    >>> types.FunctionType(code, {})(21)
    42
    """
    from pyhrf_parallel.files import write_then_rename  # a seventh of the import of remote_map

    write_then_rename(Path(fn), marshal.dumps(_code_of(func)))


def merge_default_kwargs(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of a function's parameters to named arguments.

    Parameters
    ----------
    func : callable
        The function with the defaults. If its signature is unknown, as of some builtins, there are none.
    kwargs : dict
        Named arguments, which take precedence over the defaults.

    Returns
    -------
    dict

    Examples
    --------
    >>> def foo(a, b=2, *, c=3): return a + b + c
    >>> merge_default_kwargs(foo, {'c': 5})
    {'b': 2, 'c': 5}
    """
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return dict(kwargs)
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | dict(kwargs)


def _code_of(func: object) -> types.CodeType:
    code = getattr(func, "__code__", None)
    if not isinstance(func, types.FunctionType) or not isinstance(code, types.CodeType):
        raise NotShippableError(
            f"{func!r} has no code object to marshal ({type(func).__name__}): only functions written "
            "with def or lambda do; use remote_map, which sends anything that pickles"
        )
    return code


@contextmanager
def travelling_by_value(func: Callable[..., Any]) -> Iterator[None]:
    """Make cloudpickle send `func` by value if a new process could not import its module."""
    from cloudpickle import list_registry_pickle_by_value as registered
    from cloudpickle import register_pickle_by_value, unregister_pickle_by_value

    target = inspect.unwrap(getattr(func, "func", func))  # the function of a partial
    module = sys.modules.get(getattr(target, "__module__", None) or type(target).__module__)
    # The process has one registry, and maps may run in several threads.
    with _by_value_lock:
        if module is None or is_importable(module) or module.__name__ in registered():
            yield
            return
        register_pickle_by_value(module)
        try:
            yield
        finally:
            unregister_pickle_by_value(module)


def is_importable(module: types.ModuleType) -> bool:
    """Return whether a new process with the same sys.path would import this very module."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if name == "__main__":  # cloudpickle itself sends its functions by value
        return True
    if file is None:  # built in, or made at run time
        return module.__spec__ is not None
    parent = sys.modules.get(name.rpartition(".")[0])
    if parent is not None and not is_importable(parent):
        return False
    for finder in sys.meta_path:
        with suppress(ImportError, ValueError):
            found = finder.find_spec(name, getattr(parent, "__path__", None))
            if found is not None:
                return found.origin is None or os.path.realpath(found.origin) == os.path.realpath(
                    file
                )
    return False
