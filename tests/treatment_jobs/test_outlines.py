"""What is known of a result without building anything of it."""

from __future__ import annotations

import collections
import os
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel import TreatmentError
from pyhrf_parallel.treatment_jobs.region_files import crash_report, read_outline


class Found(dict[str, int]):
    """A class of a script's."""


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


FOUND = [
    np.arange(5), np.float64(3), np.array(["a", None], object), pd.DataFrame({"a": [1, 2]}), Found(b=2), {1, 2},
    collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), slice(1, 2), collections.deque([1]),
    ValueError("x"), b"bytes.", bytearray(b"more."), range(4), None, 3.5, "a. b",
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("found", FOUND, ids=lambda found: type(found).__name__)
def test_whole_and_cut(found: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "result.pck"
    for report in ("ok", "Traceback\nValueError: bad."):
        content = cloudpickle.dumps((found, {"found": found}, report), protocol)
        path.write_bytes(content)
        assert crash_report(read_outline(path)) == ("" if report == "ok" else report)
        for length in range(0, len(content) - 1, 5):
            path.write_bytes(content[:length])
            with pytest.raises(TreatmentError, match=r"result\.pck is not complete"):
                read_outline(path)


def test_what_only_a_script_knows(tmp_path: Path) -> None:
    def local(x: int) -> int:
        return x

    path = tmp_path / "result.pck"
    path.write_bytes(cloudpickle.dumps((local, type("Own", (), {})(), "bad"), 2))
    assert crash_report(read_outline(path)) == "bad"


def test_nothing_is_called(tmp_path: Path) -> None:
    path = tmp_path / "result.pck"
    path.write_bytes(cloudpickle.dumps((Evil(tmp_path / "made"), None, "ok")))
    assert read_outline(path)[2] == "ok"
    assert not (tmp_path / "made").exists()
