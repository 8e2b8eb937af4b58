"""The wheels that are sent to a cluster."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

from pyhrf_parallel import mapping
from pyhrf_parallel.commands.setup import wheels
from pyhrf_parallel.version import __version__


def test_wheels_hold_what_runs_here() -> None:
    files = wheels.collect_wheels() | dict([wheels.pip_wheel()])
    ours = zipfile.ZipFile(BytesIO(files[f"pyhrf_parallel-{__version__}-py3-none-any.whl"]))
    assert ours.read("pyhrf_parallel/mapping.py") == Path(mapping.__file__).read_bytes()
    soma = next(content for name, content in files.items() if name.startswith("soma_workflow"))
    names = zipfile.ZipFile(BytesIO(soma)).namelist()
    # The adapter of scheduler = drmaa imports what comes with it.
    assert {"somadrmaa/__init__.py", "somadrmaa2/__init__.py"} < set(names)
    for content in files.values():
        wheel = zipfile.ZipFile(BytesIO(content))
        record = next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        listed = [line.split(",")[0] for line in wheel.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(wheel.namelist())
