"""The examples of the pages run in a directory of their own, without a configuration of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

# Scripts for Sphinx and for users: neither has doctests, and importing the example sets environment
# variables. tests/examples tests it.
collect_ignore = ["conf.py", "examples"]


@pytest.fixture(autouse=True)
def _directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYHRF_PARALLEL_CONFIG", raising=False)
