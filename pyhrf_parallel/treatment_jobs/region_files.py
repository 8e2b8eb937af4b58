"""Files of a treatment where it runs: their names, the results of regions in them, and joining these.

Standard library only.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pyhrf_parallel.compressing import unpacked
from pyhrf_parallel.errors import TreatmentError

#: The treatment, its merged result, what was made of that for people.
CONFIG, RESULT, ARCHIVE = "treatment.xml", "result.pck", "outputs.tar"
#: Where programs of a treatment may leave what others leave in a user's home.
HOME = ".home"
#: The pickle protocol of region results: programs of it can be joined.
PROTOCOL = 3
#: The report of a region whose analysis has succeeded.
OK = "ok"

_PROTO = 0x80  # the opcode that the protocol follows
_LONG = 1 << 32  # bytes that need eight for their number

_DATA, _RESULT = "roidata_", "result_"
_PARTS = 3  # of a region's result: the region, what was found, and a report


def data_name(roi_id: int) -> str:
    """Return the name of the file with the data of a region."""
    return f"{_DATA}{roi_id:04d}.pck"


def result_name(data_name: str) -> str:
    """Return the name of the file with the result of a region.

    Raises
    ------
    ValueError
        If its data have no name that says so.
    """
    if not data_name.startswith(_DATA):
        raise ValueError(f"{data_name} is not named as the data of a region, {_DATA}0001.pck")
    return _RESULT + data_name.removeprefix(_DATA)


def result_path(data_file: str | os.PathLike[str]) -> Path:
    """Return where the result of a region goes: beside its data."""
    path = Path(data_file).absolute()
    return path.with_name(result_name(path.name))


def failed_result(region: Any, report: str) -> tuple[Any, None, str]:
    """Return the result of a region that has failed, as pyhrf has it.

    Parameters
    ----------
    region : object
        The region; None if the result of its analysis was lost.
    report : str
        The traceback, or whatever is known instead.
    """
    return region, None, report


def crash_report(result: Any) -> str:
    """Return the report in the result of a region that has failed; empty if it has not."""
    if isinstance(result, (tuple, list)) and len(result) == _PARTS and result[2] != OK:
        return str(result[2])
    return ""


def last_line(report: str) -> str:
    """Return the line of a traceback that says what happened."""
    return report.strip().rpartition("\n")[2] or "no reason given"


def _forget(*_: object, **__: object) -> None:
    pass


class _Forgetful(type):
    """Of a class that is its own only instance: a pickle may ask for either."""

    def __call__(cls, *_: object, **__: object) -> type:
        return cls

    __setitem__ = _forget


class _Anything(metaclass=_Forgetful):
    """Takes the place of every object in a pickle: whatever is done with it is forgotten."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return cls

    __setstate__ = append = extend = add = update = staticmethod(_forget)


class _Outline(pickle.Unpickler):
    """Reads plain values, and imports and calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        return _read_outline if (module, name) == ("pickle", "loads") else _Anything

    def persistent_load(self, _id: object) -> Any:
        return _Anything


def _read_outline(content: bytes) -> Any:
    return _Outline(io.BytesIO(content), encoding="latin1").load()


def read_outline(path: str | os.PathLike[str]) -> Any:
    """Return the plain values of a pickle of Python 2 or 3, with a blank in the place of all others.

    Raises
    ------
    TreatmentError
        If it ends too early: whoever wrote it was stopped, or had no space.
    """
    content = Path(path).read_bytes()
    try:
        return _read_outline(unpacked(content))
    except (EOFError, pickle.UnpicklingError) as error:
        raise TreatmentError(f"the result {path} is not complete: {error}") from error
    except Exception:  # whatever a class wants to be asked for
        return None


def merge_pickles(paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Write one pickle of a list of what several pickles hold, without unpickling them.

    Parameters
    ----------
    paths : sequence of paths
        Pickles of any protocol.
    output : path
        Replaced when all is written.

    Raises
    ------
    TreatmentError
        If one is missing or damaged; `output` is as it was then.
    """
    target = Path(output)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(b"(")  # a mark; then all values; then the list of all since the mark
            for path in paths:
                _copy_program(Path(path), file)
            file.write(b"l.")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _copy_program(path: Path, file: BinaryIO) -> None:
    """Copy a pickle without its end."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TreatmentError(f"the result {path} cannot be read: {error.strerror}") from error
    if not content.endswith(b"."):
        raise TreatmentError(f"the result {path} is not complete ({len(content)} bytes)")
    if content[0] == _PROTO and content[1] > PROTOCOL:
        _call_loads(content, file)
    else:
        file.write(memoryview(content)[:-1])


def _call_loads(content: bytes, file: BinaryIO) -> None:
    """Write a program that loads a pickle: one of a later protocol counts what it remembers, from 0 on."""
    n_bytes = len(content)
    file.write(b"cpickle\nloads\n")
    file.write(
        b"B" + n_bytes.to_bytes(4, "little")
        if n_bytes < _LONG
        else b"\x8e" + n_bytes.to_bytes(8, "little")
    )
    file.write(content)
    file.write(b"\x85R")  # a tuple of it; the call
