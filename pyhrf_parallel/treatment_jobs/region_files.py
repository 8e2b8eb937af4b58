"""The files of a treatment where its jobs run: their names, and the results of regions, which are joined.

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

#: The treatment, its merged result, the archive of files for people.
CONFIG, RESULT, ARCHIVE = "treatment.xml", "result.pck", "outputs.tar"
#: The home of programs that write settings and caches to a user's home.
HOME = ".home"
#: The pickle protocol of region results: pickles of this protocol can be joined.
PROTOCOL = 3
#: The report of a region whose analysis has succeeded.
OK = "ok"

_PROTO = 0x80  # the opcode that the protocol follows
_LONG = 1 << 32  # a longer text has a length of eight bytes

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
        If the file is not named as the data of a region.
    """
    if not data_name.startswith(_DATA):
        raise ValueError(f"{data_name} is not named as the data of a region, {_DATA}0001.pck")
    return _RESULT + data_name.removeprefix(_DATA)


def result_path(data_file: str | os.PathLike[str]) -> Path:
    """Return the path of a region's result, which is beside its data."""
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
    """Return the last line of a traceback, which says what happened."""
    return report.strip().rpartition("\n")[2] or "no reason given"


def _forget(*_: object, **__: object) -> None:
    pass


class _Forgetful(type):
    """The type of a class that is its own instance: a pickle may ask for either."""

    def __call__(cls, *_: object, **__: object) -> type:
        return cls

    __setitem__ = _forget


class _Anything(metaclass=_Forgetful):
    """Stands in for every object in a pickle, and ignores whatever is done with it."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return cls

    __setstate__ = append = extend = add = update = staticmethod(_forget)


class _Outline(pickle.Unpickler):
    """Reads plain values of a pickle; imports and calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        return _read_outline if (module, name) == ("pickle", "loads") else _Anything

    def persistent_load(self, _id: object) -> Any:
        return _Anything


def _read_outline(content: bytes) -> Any:
    return _Outline(io.BytesIO(content), encoding="latin1").load()


def read_outline(path: str | os.PathLike[str]) -> Any:
    """Return the plain values of a pickle of Python 2 or 3, with stand-ins for all others.

    Raises
    ------
    TreatmentError
        If it ends too early: its writer was killed, or the disk was full.
    """
    content = Path(path).read_bytes()
    try:
        return _read_outline(unpacked(content))
    except (EOFError, pickle.UnpicklingError) as error:
        raise TreatmentError(f"the result {path} is not complete: {error}") from error
    except Exception:  # whatever a class wants to be asked for
        return None


def merge_pickles(paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Join pickles to one pickle, of the list of their values, without unpickling them.

    Parameters
    ----------
    paths : sequence of paths
        Pickles of any protocol.
    output : path
        Replaced when all is written.

    Raises
    ------
    TreatmentError
        If one is missing or damaged; then `output` is not changed.
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
    """Copy a pickle without its last opcode."""
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
    """Write a program that calls `pickle.loads`: later protocols number their memo from 0, and cannot be joined."""
    n_bytes = len(content)
    file.write(b"cpickle\nloads\n")
    file.write(
        b"B" + n_bytes.to_bytes(4, "little")
        if n_bytes < _LONG
        else b"\x8e" + n_bytes.to_bytes(8, "little")
    )
    file.write(content)
    file.write(b"\x85R")  # a tuple of it; the call
