"""`load_results`: reading results of treatments, ours and pyhrf's, without running code of their files."""

from __future__ import annotations

import importlib
import io
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pyhrf_parallel.compressing import unpacked
from pyhrf_parallel.errors import TreatmentDataError

_PARTS = 3  # of a result: the region, what was found, and 'ok' or a traceback
_OF_PYHRF = ("pyhrf.", "nibabel.")


class StandIn:
    """A stand-in for an object of pyhrf or nibabel, with the name of its class and its attributes.

    Attributes
    ----------
    class_name : str
        ``module.name`` of the class.
    content : object
        What it was as a list or dict, if its class was derived from these.
    """

    class_name = ""
    content: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments
        self.__dict__.update(named)

    def __setstate__(self, state: Any) -> None:
        """Take the attributes over."""
        if isinstance(state, tuple) and len(state) == 2:  # noqa: PLR2004  (with slots)
            state = {**(state[0] or {}), **(state[1] or {})}
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __repr__(self) -> str:
        """Name the class, and what the object has."""
        return f"<{self.class_name}: {', '.join(vars(self))}>"


def _rebuild(kind: Any, _base: Any, content: Any) -> StandIn:
    """Stand in for an object of a class that is derived from a built-in one."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn)):
        raise TreatmentDataError(f"{kind!r} is not rebuilt")
    made = kind()
    if content is not None:
        made.content = content
    return made


class _ArrayKind:
    """Stands for numpy's array class, which makes an array of any bytes if it is called."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TreatmentDataError("an array is not made like that")


def _array(kind: Any, _shape: Any, _type: Any) -> Any:
    """Return an empty array, whose state follows."""
    if kind is not _ArrayKind:
        raise TreatmentDataError(f"{kind!r} is not an array")
    from numpy._core.multiarray import _reconstruct

    return _reconstruct(np.ndarray, (0,), b"b")


def _array_of_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """Return an array of a later protocol."""
    _check_numbers(dtype)
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    _check_numbers(dtype)
    data = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(data, dtype)[0]


def _check_numbers(dtype: Any) -> None:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise TreatmentDataError("a number is not made of objects")


def _bytes(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes that an earlier protocol writes as a text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TreatmentDataError("bytes are not made like that")
    return text.encode("latin1")


_OURS = {
    "pyhrf_parallel.treatments.region_data": ("Estimates", "ROIData"),
    "pyhrf_parallel.treatments.pickling": ("make_series", "make_table"),
}
_KNOWN: dict[tuple[str, str], Any] = {
    (f"numpy.{core}.{module}", name): found
    for core in ("core", "_core")
    for module, name, found in (
        ("multiarray", "_reconstruct", _array),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _array_of_bytes),
    )
} | {
    ("numpy", "ndarray"): _ArrayKind,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("copy_reg", "_reconstructor"): _rebuild,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "long"): int,
    ("__builtin__", "unicode"): str,
}
_PLAIN = (
    object, list, dict, set, frozenset, tuple, slice, range, int, float, complex, bool, str, bytes,
    bytearray,
)  # fmt: skip
_KNOWN |= {
    (module, kind.__name__): kind for module in ("__builtin__", "builtins") for kind in _PLAIN
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function to use for a name; refuse names that are not known."""
        if name in _OURS.get(module, ()):
            return getattr(importlib.import_module(module), name)
        if (module, name) in {("pickle", "loads"), ("_pickle", "loads")}:  # merged of regions
            return _read
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module.startswith(_OF_PYHRF) or module == "pyhrf":
            return type(name, (StandIn,), {"class_name": f"{module}.{name}"})
        raise TreatmentDataError(
            f"{module}.{name} is not allowed in results; load_results(path, allow_pickle=True) "
            "reads it, but runs any code in the file: use it only if you trust whoever wrote the file"
        )


def _read(content: bytes) -> Any:
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()


def load_results(
    path: str | os.PathLike[str], *, allow_pickle: bool = False
) -> list[tuple[Any, Any, str]]:
    """Read the results of a treatment, ours or pyhrf's.

    The file may come from anybody: no code of it is run. Only arrays, tables, plain values, `ROIData` and
    `Estimates` are read. Objects of pyhrf, which need not be installed, become a `StandIn`.

    Parameters
    ----------
    path : path
        A ``result.pck``, of one region or merged, compressed or not.
    allow_pickle : bool
        Whether to unpickle anything, such as objects of a class of your own. This runs any code in the file.

    Returns
    -------
    list of (ROIData or StandIn, object, str)
        For each region its data, what was found, and ``'ok'`` or the traceback of its analysis.

    Raises
    ------
    TreatmentDataError
        If the file is damaged, or has anything else in it.
    """
    return parse_results(Path(path).read_bytes(), os.fspath(path), allow_pickle=allow_pickle)


def parse_results(
    content: bytes, name: str = "the file", *, allow_pickle: bool = False
) -> list[tuple[Any, Any, str]]:
    """Read the content of a file of results; see `load_results`.

    Parameters
    ----------
    content : bytes
        The content.
    name : str
        The file, for errors.
    allow_pickle : bool
        See `load_results`.
    """
    read: Callable[[bytes], Any] = pickle.loads if allow_pickle else _read
    try:
        value = read(unpacked(content))
    except TreatmentDataError as error:
        raise TreatmentDataError(f"{name}: {error}") from None
    except Exception as error:  # whatever a damaged pickle makes of its reader
        raise TreatmentDataError(
            f"{name} cannot be read as results: {type(error).__name__}: {error}"
        ) from error
    results = value if isinstance(value, list) else [value]
    for result in results:
        if not isinstance(result, (list, tuple)) or len(result) != _PARTS:
            raise TreatmentDataError(
                f"{name} has no results: it holds {result!r:.60}, and not (region, found, report)"
            )
    return results
