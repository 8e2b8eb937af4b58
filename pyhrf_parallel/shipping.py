"""Writing payload files, and errors about what cannot be pickled."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import types
import weakref
import zlib
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle

from pyhrf_parallel.errors import NotShippableError, TransferError
from pyhrf_parallel.files import working_directory
from pyhrf_parallel.functions import travelling_by_value
from pyhrf_parallel.imports import imports_of
from pyhrf_parallel.needs import Needs, find_needs, pack
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker.payload import MAGIC, TAIL, map_array

#: Arrays of at least so many bytes are written as they are in memory (joblib's own threshold).
LARGE = 1 << 20
_ALIGNMENT = 64  # of the arrays, in bytes
_BLOCK = 2048  # tasks that are pickled together
# Pickled by the name of their module, unless cloudpickle reduces them.
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
# Arguments of these types can be pickled many at a time, unseen: nothing in them can go wrong.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


def write_payload(
    path: Path, work: Work, *, large: int | None = LARGE, for_here: bool = True
) -> Needs:
    """Write the function and the arguments of all tasks to one file, with the user's own modules that they need.

    Parameters
    ----------
    path : Path
        The file to write, in a private directory.
    work : Work
        The function, its arguments and options.
    large : int or None
        Smallest size in bytes of arrays that workers map; None for none.
    for_here : bool
        Whether the workers run on this machine and find modules and files where this process does.
        Elsewhere, the same paths may belong to somebody else.

    Returns
    -------
    Needs
        What the tasks need where they run, if that is not here.

    Raises
    ------
    NotShippableError
        If something cannot be pickled; the message names argument and task.
    """
    with path.open("xb") as file, writing(file):
        os.fchmod(file.fileno(), 0o600)
        file.write(MAGIC)
        shipper = _Shipper(file, large, notes_modules=not for_here)
        function = _segment(file, shipper.function(work.func))
        blocks = [(first, *_segment(file, block)) for first, block in _blocks(work, shipper)]
        needs = find_needs(shipper.modules, work.options.ship)
        needs.check_size()
        contents = {
            "python": sys.version_info[:2],
            "tasks": len(work),
            "function": function,
            "blocks": blocks,
            "code": _segment(file, pack(needs.files)) if needs.files else None,
            "sys_path": _absolute(sys.path) if for_here else [],
            "cwd": working_directory() if for_here else "~",
            "timeout": work.options.timeout,
            "retries": work.options.retries,
        }
        place = _segment(file, pickle.dumps(contents, 5))
        file.write(TAIL.pack(*place))
        return needs


@contextmanager
def writing(file: io.BufferedWriter) -> Iterator[None]:
    """Name the file in errors of writing it, and say what to do."""
    try:
        yield
        file.flush()
    except OSError as error:
        path = os.fspath(file.name)
        free = shutil.disk_usage(os.path.dirname(path)).free / 1e6  # noqa: PTH120  (text)
        raise TransferError(
            f"The function and the arguments could not be written to {path}: {error.strerror or error} "
            f"({free:,.0f} MB are free there); make room, or set TMPDIR to a directory that has more",
            path=path,
            reason=error.strerror or str(error),
        ) from error


def _absolute(entries: list[str]) -> list[str]:
    """Return entries of ``sys.path`` as absolute paths, for a process with another working directory."""
    here = working_directory()
    if not here:  # nothing is found in a directory that has been removed
        entries = [entry for entry in entries if os.path.isabs(entry)]  # noqa: PTH117  (texts)
    return [os.path.normpath(os.path.join(here, entry)) for entry in entries]  # noqa: PTH118


def _segment(file: io.BufferedWriter, content: bytes) -> tuple[int, int, int]:
    offset = file.tell()
    file.write(content)
    return offset, len(content), zlib.crc32(content)


def _blocks(work: Work, shipper: _Shipper) -> Iterator[tuple[int, bytes]]:
    """Pickle the arguments: of each task alone, or of many at once where nothing can go wrong."""
    values = chain(
        chain.from_iterable(work.largs), *(kwargs.values() for kwargs in work.lkwargs if kwargs)
    )
    if not set(map(type, values)) <= _PLAIN:
        for index in range(len(work)):
            yield index, shipper.call(work, index)
        return
    for first in range(0, len(work), _BLOCK):
        part = slice(first, first + _BLOCK)
        # Plain ones: what the caller's own kind of tuple or dict can do need not pickle.
        plain = list(map(tuple, work.largs[part])), list(map(dict, work.lkwargs[part]))
        yield first, pickle.dumps(plain, 5)


class _Shipper:
    """Pickles functions and arguments, putting large arrays aside in the payload file.

    Parameters
    ----------
    file : file
        The payload file.
    large : int or None
        Arrays of at least this many bytes are put aside.
    notes_modules : bool
        Whether to note the modules that functions and arguments need.
    """

    def __init__(
        self, file: io.BufferedWriter, large: int | None, *, notes_modules: bool = False
    ) -> None:
        self.notes_modules = notes_modules
        self._file = file
        self._large = large
        #: Names of modules that what was pickled needs.
        self.modules: set[str] = set()
        self._placed: dict[tuple[Any, ...], tuple[weakref.ref[Any], tuple[Any, ...]]] = {}

    def function(self, func: Callable[..., Any]) -> bytes:
        """Pickle the function."""
        try:
            with travelling_by_value(func):
                return self._dumps(func)
        except (NotShippableError, TransferError):
            raise
        except Exception as error:
            raise NotShippableError(
                f"The function {func!r} cannot be sent to a worker: {_reason(error)}"
            ) from error

    def call(self, work: Work, index: int) -> bytes:
        """Pickle the arguments of one task."""
        args, kwargs = tuple(work.largs[index]), dict(work.lkwargs[index])
        try:
            return self._dumps(([args], [kwargs]))
        except TransferError:
            raise
        except Exception as error:
            name, value = self._culprit(args, kwargs)
            raise NotShippableError(
                f"Argument {name} of task {index}, {work.describe(index)}, cannot be sent to a worker: "
                f"{_reason(error)}. Pass what it is made from ({type(value).__name__} objects do not "
                "pickle), or make it in the function"
            ) from error

    def _culprit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, object]:
        named = [(str(position), value) for position, value in enumerate(args)]
        for name, value in named + [(repr(key), value) for key, value in kwargs.items()]:
            try:
                self._dumps(value)
            except Exception:
                return name, value
        return "list", args

    def _dumps(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer, self).dump(value)
        return buffer.getvalue()

    def note(self, obj: Any, *, by_name: bool) -> None:
        """Note the modules that an object needs; functions and classes may travel by name."""
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
        elif isinstance(obj, types.CodeType):
            self.modules |= imports_of(obj)
        elif by_name and isinstance(obj, _NAMED):
            self.modules.add(obj.__module__ or "")

    def put_aside(self, array: Any) -> tuple[Any, ...] | None:
        """Write a large array to the payload file; return how to load it, or None to pickle it."""
        if self._large is None or array.nbytes < self._large or array.dtype.hasobject:
            return None
        address = array.__array_interface__["data"][0]
        key = (address, array.shape, array.strides, array.dtype)
        alive, placed = self._placed.get(key, (None, ()))
        # An array made while pickling (by a property, __getstate__) may leave its address to another.
        if alive is None or alive() is None:
            with writing(self._file):
                placed = _place_array(self._file, array)
            self._placed[key] = (weakref.ref(array), placed)
        return placed


def _reduce_code(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
    """Reduce a code object with its file name, so that tracebacks show its lines."""
    rebuild, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    # cloudpickle from 3.1.3 on leaves the name out.
    named = (code.co_filename if part == "<dynamic-code>" else part for part in arguments)
    return rebuild, tuple(named)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table: ClassVar = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, file: io.BytesIO, shipper: _Shipper) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._shipper = shipper

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        # By name: numpy is not imported where nobody has an array. Subclasses keep their own pickling.
        if kind.__module__ == "numpy" and kind.__name__ in ("ndarray", "memmap"):
            placed = self._shipper.put_aside(obj)
            if placed is not None:
                return map_array, placed
        reduced = super().reducer_override(obj)
        if self._shipper.notes_modules:
            self._shipper.note(obj, by_name=reduced is NotImplemented)
        return reduced


def _reason(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"


def _place_array(file: io.BufferedWriter, array: Any) -> tuple[Any, ...]:
    """Write the memory of an array; return the arguments with which `map_array` maps it."""
    import numpy as np

    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = np.ascontiguousarray(array.T if order == "F" else array).reshape(-1).view(np.uint8)
    file.write(bytes(-file.tell() % _ALIGNMENT))
    offset = file.tell()
    file.write(flat.data)
    return offset, array.dtype, array.shape, order
