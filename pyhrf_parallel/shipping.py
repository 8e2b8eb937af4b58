"""Pickling what goes to a worker, and saying what cannot go there."""

from __future__ import annotations

import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle

from pyhrf_parallel.errors import NotShippableError
from pyhrf_parallel.functions import travelling_by_value
from pyhrf_parallel.payloads import map_array, place_array
from pyhrf_parallel.tasks import Work


class Shipper:
    """Pickles functions and arguments, putting large arrays aside in the payload file.

    Parameters
    ----------
    file : file
        The payload file.
    large : int or None
        Arrays of at least so many bytes are put aside.
    """

    def __init__(self, file: io.BufferedWriter, large: int | None) -> None:
        self._file = file
        self._large = large
        self._placed: dict[tuple[Any, ...], tuple[weakref.ref[Any], tuple[Any, ...]]] = {}

    def function(self, func: Callable[..., Any]) -> bytes:
        """Pickle the function."""
        try:
            with travelling_by_value(func):
                return self._dumps(func)
        except NotShippableError:
            raise
        except Exception as error:
            raise NotShippableError(
                f"The function {func!r} cannot be sent to a worker: {_reason(error)}"
            ) from error

    def call(self, work: Work, index: int) -> bytes:
        """Pickle the arguments of one task."""
        args, kwargs = tuple(work.largs[index]), dict(work.lkwargs[index])
        try:
            return self._dumps([(args, kwargs)])
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

    def put_aside(self, array: Any) -> tuple[Any, ...] | None:
        """Return how to get a large array back from the payload file, or None to pickle it."""
        if self._large is None or array.nbytes < self._large or array.dtype.hasobject:
            return None
        address = array.__array_interface__["data"][0]
        key = (address, array.shape, array.strides, array.dtype)
        alive, placed = self._placed.get(key, (None, ()))
        # An array made while pickling (by a property, __getstate__) may leave its address to another.
        if alive is None or alive() is None:
            placed = place_array(self._file, array)
            self._placed[key] = (weakref.ref(array), placed)
        return placed


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  (untyped)
    def __init__(self, file: io.BytesIO, shipper: Shipper) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._shipper = shipper

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        # By name: numpy is not imported where nobody has an array. Subclasses keep their own pickling.
        if kind.__module__ == "numpy" and kind.__name__ in ("ndarray", "memmap"):
            placed = self._shipper.put_aside(obj)
            if placed is not None:
                return map_array, placed
        return super().reducer_override(obj)


def _reason(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"
