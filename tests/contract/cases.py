"""Functions that the contract suite maps; workers import them by name."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a process for each task: what it imports is waited for
    import numpy as np


def add(a: float, b: float = 2) -> float:
    return a + b


def identity(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


@functools.lru_cache
def remembered(x: int) -> int:
    return x + 1


class Custom(Exception):  # noqa: N818
    """Does not survive a plain pickle: its __init__ takes other arguments than `args`."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code


def fail_at(i: int, *bad: int) -> int:
    if i in bad:
        raise ValueError(f"bad {i}")
    return i


def fail_custom(i: int) -> int:
    raise Custom(i, detail="custom")


def fail_chained(i: int) -> None:
    try:
        dict[int, int]()[i]
    except KeyError as error:
        raise RuntimeError("outer") from error


def return_exception(i: int) -> Exception:
    return ValueError(i)


def return_unpicklable(i: int) -> Any:
    return i if i != 1 else (x for x in range(3))


def exit_at(i: int, bad: int, code: int = 3) -> int:
    if i == bad:
        print("last words", flush=True)
        os._exit(code)
    time.sleep(0.01)
    return i


def sys_exit(i: int) -> int:
    sys.exit(i)


def kill_at(i: int, bad: int, signum: int = signal.SIGKILL) -> int:
    if i == bad:
        os.kill(os.getpid(), signum)
        time.sleep(30)
    time.sleep(0.01)
    return i


def count_and_exit(directory: str, i: int, bad: int, survive_from: int = 99) -> int:
    """Note each start of task `i` as a file; die in task `bad` until it was started so often."""
    place = Path(directory)
    starts = len(list(place.glob(f"{i}-*")))
    (place / f"{i}-{time.time_ns()}").touch()
    if i == bad and starts < survive_from:
        time.sleep(0.1)
        os._exit(1)
    return i


def sleep_at(i: int, bad: int, seconds: float = 30) -> int:
    if i == bad:
        time.sleep(seconds)
    return i


class LateForTheSecond:
    """A function of which the second process to load it has to wait; the first task fails."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__ = state
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep(2)

    def __call__(self, i: int) -> None:
        if i == 0:
            time.sleep(0.7)
            raise ValueError(i)
        time.sleep(200)


def meet(directory: Path, i: int) -> None:
    """Fail as soon as the second task runs, which does not end."""
    if i:
        (directory / "began").touch()
        time.sleep(300)
    while not (directory / "began").exists():
        time.sleep(0.05)
    raise ValueError(i)


def stubborn(i: int, bad: int) -> int:
    """Run too long without a chance to be interrupted from Python."""
    if i == bad:
        try:
            time.sleep(30)
        except BaseException:
            time.sleep(30)
    return i


def with_child(i: int) -> int:
    return int(
        subprocess.run(
            [sys.executable, "-c", f"print({i})"], capture_output=True, check=True
        ).stdout
    )


def talk(i: int) -> int:
    print("to stdout", i)
    print("to stderr", i, file=sys.stderr)
    warnings.warn("to warnings", stacklevel=1)
    return i


def pixel(image: np.ndarray[Any, Any], i: int, *, scale: float = 1) -> float:
    return float(image[i, i] * scale)


def describe_array(image: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return type(image), image.dtype, image.shape, image.flags.f_contiguous, image.tobytes()


def change_in_place(image: np.ndarray[Any, Any], i: int) -> float:
    before = float(image[0, 0])
    image[0, 0] = -1
    return before


class Callable:
    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, x: int) -> int:
        return x + self.offset

    def method(self, x: int) -> int:
        return x * self.offset

    @classmethod
    def build(cls, x: int) -> int:
        return cls(x).offset

    @staticmethod
    def static(x: int) -> int:
        return -x


def nested(i: int) -> list[int]:
    from pyhrf_parallel import remote_map

    return [int(total) for total in remote_map(add, [(i,), (i + 1,)], mode="local", n_jobs=2)]


def where() -> tuple[int, int]:
    return os.getpid(), os.getppid()


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")
