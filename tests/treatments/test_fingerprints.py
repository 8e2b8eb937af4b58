"""What makes an analyser this one: a change in anything that its results depend on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel.treatments.fingerprints import describe

#: Two analysers that use others, and what is in a module beside theirs.
MINE = """
import functools
import logging
from os import environ
import numpy as np
import pandas as pd
import beside

logger = logging.getLogger("mine")
LEVEL = 3

def smooth(seed):
    return seed

STEPS = [smooth]

class Settings:
    def __init__(self):
        self.names = {"face", "house", "word"}

SETTINGS = Settings()
TABLE = pd.DataFrame({"weight": [1, 2]})

def offset(by):
    def decorate(func):
        @functools.wraps(func)
        def shifted(*args):
            return func(*args) + by * 11
        return shifted
    return decorate

@offset(by=LEVEL - 2)
@functools.cache
def double(x, order=9):
    return 2 * x

class Base:
    def less(self, y):
        return y - 7

class Scaling(Base):
    factor = 5

    @property
    def scale(self):
        return lambda x: [self.factor * self.less(v) for v in x]

def fit(roi):
    logger.info(environ, SETTINGS, TABLE)
    return [double(beside.more(v)) + LEVEL for v in Scaling().scale(roi.data)] + [f(0) for f in STEPS]

class Fit:
    def __call__(self, roi):
        return fit(roi) if np.any(roi.data) else None
"""
BESIDE = "def more(x):\n    return x + 1\n"


def described(place: Path, name: str, mine: str = MINE, beside: str = BESIDE) -> Any:
    """Describe an analyser of a module that is written to a new directory."""
    place.mkdir()
    (place / "mine.py").write_text(mine)
    (place / "beside.py").write_text(beside)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        try:
            found = getattr(importlib.import_module("mine"), name)
            description = describe(found() if name == "Fit" else found)
        finally:
            for module in ("mine", "beside"):
                sys.modules.pop(module, None)
    return description


@pytest.mark.parametrize(
    ("now", "becomes"),
    [
        pytest.param("LEVEL = 3", "LEVEL = 4", id="constant"),
        pytest.param("STEPS = [smooth]", "STEPS = [smooth, smooth]", id="list of functions"),
        pytest.param("return seed", "return seed + 1", id="function in a list"),
        pytest.param("return 2 * x", "return 3 * x", id="function"),
        pytest.param("order=9", "order=8", id="default"),
        pytest.param("return x + 1", "return x + 2", id="module beside it"),
        pytest.param("factor = 5", "factor = 6", id="class"),
        pytest.param("y - 7", "y - 8", id="base class"),
        pytest.param("by * 11", "by * 12", id="decorator"),
        pytest.param("LEVEL - 2", "LEVEL - 1", id="what a decorator is given"),
        pytest.param('"word"', '"tool"', id="attribute of an object"),
        pytest.param("[1, 2]", "[1, 3]", id="table"),
    ],
)
@pytest.mark.parametrize("name", ["fit", "Fit"])
def test_what_it_uses_is_a_part_of_it(name: str, now: str, becomes: str, tmp_path: Path) -> None:
    changed = MINE.replace(now, becomes), BESIDE.replace(now, becomes)
    assert described(tmp_path / "now", name) != described(tmp_path / "then", name, *changed)


@pytest.mark.parametrize("name", ["fit", "Fit"])
def test_what_it_does_not_use_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = described(tmp_path / "before", name)
    monkeypatch.setenv("SOMETHING", "else")
    text = f"# A comment.\n{MINE}\nUNUSED = 1\ndef unused():\n    pass\n"
    assert described(tmp_path / "after", name, text, BESIDE + "\nUNUSED = 1\n") == before


def test_it_is_the_same_as_a_script_in_another_process(tmp_path: Path) -> None:
    expected = described(tmp_path / "here", "fit")
    script = tmp_path / "here" / "script.py"
    script.write_text(
        f"{MINE}\nimport json\nfrom pyhrf_parallel.treatments.fingerprints import describe\n"
        "print(json.dumps(describe(fit)['source']))\n"
    )
    for seed in "12":
        done = subprocess.run(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
        assert json.loads(done.stdout) == expected["source"]


def test_code_without_a_file() -> None:
    def made(text: str) -> Any:
        scope: dict[str, Any] = {"__name__": "made"}
        exec(text, scope)
        return describe(scope["fit"])

    text = "LEVEL = 1\ndef fit(roi):\n    return [LEVEL * v in {1, 2, 3} for v in roi]\n"
    assert made(text) == made(text)
    assert made(text) != made(text.replace("LEVEL = 1", "LEVEL = 2"))
    assert made(text) != made(text.replace("{1, 2, 3}", "{1, 2, 4}"))


def test_the_users_own_are_used_and_not_installed_ones() -> None:
    import nilearn.masking

    def fit(roi: Any) -> Any:
        return nilearn.masking.unmask(roi, json)

    assert json.dumps(describe(fit))
