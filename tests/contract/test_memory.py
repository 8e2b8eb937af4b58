"""A large result is in memory once: in the worker that makes it and in the caller, whatever the mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_MEGABYTES = 300
_SCRIPT = """
import sys
from pyhrf_parallel import remote_map

def make(megabytes):
    import numpy as np
    return np.full(megabytes << 17, 1.5)

if __name__ == '__main__':
    (array,) = remote_map(make, [(int(sys.argv[2]),)], mode=sys.argv[1])
    assert array[0] == array[-1] == 1.5 and array.nbytes == int(sys.argv[2]) << 20
    array[0] = 2  # it is the caller's
"""


def peak(script: Path, mode: str, megabytes: int) -> float:
    """Return the largest memory, in MB, of the processes of a map: the caller, and its workers."""
    process = subprocess.Popen([sys.executable, script, mode, str(megabytes)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


@pytest.mark.parametrize("mode", ["local", "local_with_dumps", "remote_cluster"])
def test_a_large_result_is_in_memory_once(mode: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    assert peak(script, mode, _MEGABYTES) - peak(script, mode, 1) < 1.3 * _MEGABYTES
