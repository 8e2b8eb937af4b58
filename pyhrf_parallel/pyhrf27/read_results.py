"""The results of pyhrf for users of Python 3: known classes as plain stand-ins, and nothing else."""

from __future__ import annotations

import codecs
import io
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pyhrf_parallel.compressing import unpacked
from pyhrf_parallel.errors import TreatmentDataError

_PARTS = 3  # of a result: the region, what was found, and 'ok' or a traceback
_PREFIXES = ("pyhrf.", "nibabel.")


class StandIn:
    """What was an object of pyhrf or nibabel: its class's name, and its attributes.

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
        raise TreatmentDataError(f"{kind!r} is no array")
    from numpy._core.multiarray import _reconstruct

    return _reconstruct(np.ndarray, (0,), b"b")


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise TreatmentDataError("a number is not made of objects")
    data = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(data, dtype)[0]


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _ArrayKind,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("copy_reg", "_reconstructor"): _rebuild,
    ("_codecs", "encode"): codecs.encode,
    ("__builtin__", "object"): object,
    ("__builtin__", "list"): list,
    ("__builtin__", "dict"): dict,
    ("__builtin__", "set"): set,
    ("__builtin__", "tuple"): tuple,
    ("__builtin__", "slice"): slice,
    ("__builtin__", "int"): int,
    ("__builtin__", "long"): int,
    ("__builtin__", "float"): float,
    ("__builtin__", "complex"): complex,
    ("__builtin__", "bool"): bool,
    ("__builtin__", "str"): str,
    ("__builtin__", "unicode"): str,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class; refuse all that is not known."""
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module.startswith(_PREFIXES) or module == "pyhrf":
            return type(name, (StandIn,), {"class_name": f"{module}.{name}"})
        raise TreatmentDataError(f"{module}.{name} is nothing that results of pyhrf are made of")


def load_results(path: str | os.PathLike[str]) -> list[tuple[Any, Any, str]]:
    """Read what pyhrf has found, without pyhrf.

    Nothing but numpy's arrays and plain values is built: objects of pyhrf become a `StandIn`.

    Parameters
    ----------
    path : path
        A ``result.pck``, of one region or merged, or ``.pck.gz``; pyhrf's own or one of this package.

    Returns
    -------
    list of (StandIn, object, str)
        For each region its data, what was found, and ``'ok'`` or the traceback of its analysis.

    Raises
    ------
    TreatmentDataError
        If the file is damaged, or has anything else in it.
    """
    try:
        content = unpacked(Path(path).read_bytes())
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except TreatmentDataError as error:
        raise TreatmentDataError(f"{path}: {error}") from None
    except Exception as error:  # whatever a damaged pickle makes of its reader
        raise TreatmentDataError(f"{path} is no result of pyhrf: {error}") from error
    results = value if isinstance(value, list) else [value]
    for result in results:
        if not isinstance(result, (list, tuple)) or len(result) != _PARTS:
            raise TreatmentDataError(
                f"{path} is no result of pyhrf: it holds {result!r:.60}, and not (region, found, report)"
            )
    return results
