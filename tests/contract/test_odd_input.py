"""Arguments, options and surroundings that are legitimate and rare."""

from __future__ import annotations

import fractions
import os
import subprocess
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyhrf_parallel import ConfigurationError, TransferError, remote_map
from pyhrf_parallel.backends import MODES, Mode
from tests.contract import cases
from tests.scripts import Script

WORKER_MODES = [mode for mode in MODES if mode != "serial"]
every_mode = pytest.mark.parametrize("mode", MODES)
worker_mode = pytest.mark.parametrize("mode", WORKER_MODES)


@every_mode
@pytest.mark.usefixtures("nothing_left")
def test_named_arguments_in_any_mapping(mode: Mode) -> None:
    class Settings(dict[str, Any]):
        """Of a script: it does not pickle by name."""

        def __init__(self, *, a: int) -> None:
            super().__init__(a=a)
            self.lock = object

    lkwargs = [
        defaultdict(lambda: 0, a=1),
        types.MappingProxyType({"a": 2}),
        Settings(a=3),
        {"a": 4},
    ]
    assert remote_map(cases.add, None, lkwargs, mode=mode) == [3, 4, 5, 6]


@worker_mode
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "timeout", [np.float32(30), fractions.Fraction(30), 1e10, np.int64(30)], ids=repr
)
def test_numbers_of_any_kind(mode: Mode, timeout: Any) -> None:
    options: dict[str, Any] = {"timeout": timeout, "retries": np.int64(1), "n_jobs": np.int8(2)}
    assert remote_map(abs, [(-1,), (-2,)], mode=mode, **options) == [1, 2]


def test_no_processes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"nb_procs: '0' is not accepted"):
        remote_map(abs, [(1,)], mode="local", config={"parallel-local": {"nb_procs": 0}})
    with pytest.raises(ConfigurationError, match="n_jobs"):
        remote_map(abs, [(1,)], mode="local", n_jobs=0)


def test_the_temporary_folder_of_joblib_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not" / "there"
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(folder))
    assert remote_map(abs, [(-1,)], mode="local") == [1]
    assert list(folder.iterdir()) == []


MAPS_WHILE_IT_IS_PICKLED = """
import sys
from pyhrf_parallel import remote_map

class Model:
    def __call__(self, x):
        return x * self.factor
    def __getstate__(self):
        (factor,) = remote_map(lambda: 3, mode=sys.argv[1])
        return {"factor": factor}

print(remote_map(Model(), [(1,), (2,)], mode=sys.argv[1]))
"""


@worker_mode
def test_a_map_while_a_function_is_pickled(script: Script, mode: Mode) -> None:
    assert script.run(MAPS_WHILE_IT_IS_PICKLED, mode) == ("[3, 6]\n", "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A TMPDIR of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", place], check=False
        ).returncode
    ):
        pytest.skip("only root can make a small file system")
    yield place
    subprocess.run(["umount", place], check=True)


@worker_mode
@pytest.mark.parametrize(
    "argument", [np.zeros(1_000_000), b"x" * 8_000_000], ids=["array", "pickle"]
)
def test_a_full_disk(
    mode: Mode, argument: object, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(TransferError, match=r"No space left on device \(\d MB are free") as caught:
        remote_map(len, [(argument,)], mode=mode)
    assert str(small_disk) in str(caught.value)
    assert "set TMPDIR" in str(caught.value)
    assert list(small_disk.iterdir()) == []


FILLED = """
import os, sys, tempfile
from pathlib import Path
from pyhrf_parallel import ParallelError, remote_map

place = Path(tempfile.gettempdir())
with (place / "fill").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
    file.truncate(file.tell() - int(sys.argv[2]))
try:
    remote_map(abs, [(-1,), (-2,)], mode=sys.argv[1], n_jobs=2, timeout=30)
except (ParallelError, OSError) as error:
    print("told")
"""


@worker_mode
@pytest.mark.parametrize("free", [0, 4096, 8192])
def test_the_last_bytes_of_a_disk(script: Script, mode: Mode, free: int, small_disk: Path) -> None:
    script.environment["TMPDIR"] = str(small_disk)
    out, _ = script.run(FILLED, mode, str(free))
    assert out in ("told\n", "")  # and it is not killed by a signal
