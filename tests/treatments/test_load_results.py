"""`load_results`: what results are made of is read, and nothing else is, nor is anything run."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhrf_parallel import TreatmentDataError, load_results
from pyhrf_parallel.backends import Mode
from pyhrf_parallel.treatment_jobs.region_files import PROTOCOL, merge_pickles
from pyhrf_parallel.treatments import FIRAnalyser, GLMAnalyser, ROIData, ROITreatment
from pyhrf_parallel.treatments.pickling import dumps
from tests.treatments.conftest import Subject


class Fit:
    """What an analyser of a user's may return."""

    def __init__(self, n: int) -> None:
        self.n = n


def fit(roi: ROIData) -> Fit:
    return Fit(roi.n_voxels)


def describe(roi: ROIData) -> Any:
    table = pd.DataFrame({"a": [1.5, 2.5]}, index=["x", "y"])
    return {"table": table, "column": table["a"], "n": np.int64(3), "set": {1}, "path": (None, 1j)}


class TestOurs:
    @pytest.mark.parametrize("mode", ["serial", "remote_cluster"])
    @pytest.mark.parametrize("analyser", [GLMAnalyser(), FIRAnalyser(length=8), describe])
    def test_they_are_read_as_they_were(
        self, analyser: Any, mode: Mode, subject: Subject, tmp_path: Path
    ) -> None:
        expected = ROITreatment(subject.data(), analyser, tmp_path / "out").run(mode)
        results = load_results(tmp_path / "out" / "result.pck")
        for (roi, found, report), (same, wanted, _) in zip(results, expected, strict=True):
            assert (roi.roi_id, report) == (same.roi_id, "ok")
            np.testing.assert_array_equal(roi.voxels, same.voxels)
            for one, other in zip(roi.events, same.events, strict=True):
                pd.testing.assert_frame_equal(one, other)
            if analyser is describe:
                pd.testing.assert_frame_equal(found.pop("table"), wanted.pop("table"))
                pd.testing.assert_series_equal(found.pop("column"), wanted.pop("column"))
                assert found == wanted
                continue
            for name in wanted.maps:
                np.testing.assert_array_equal(found.maps[name], wanted.maps[name])
            if wanted.responses is not None:
                pd.testing.assert_frame_equal(found.responses, wanted.responses)

    def test_a_class_of_the_users(self, subject: Subject, tmp_path: Path) -> None:
        treatment = ROITreatment(subject.data(), fit, tmp_path / "out")
        treatment.run()
        with pytest.raises(
            TreatmentDataError, match=r"test_load_results\.Fit is.*allow_pickle=True"
        ):
            load_results(treatment.result_path)
        results = load_results(treatment.result_path, allow_pickle=True)
        assert [found.n for _, found, _ in results] == [60, 40, 20]
        assert treatment.already_done()

    @pytest.mark.parametrize("protocol", range(PROTOCOL, pickle.HIGHEST_PROTOCOL + 1))
    def test_merged_regions_of_any_protocol(self, protocol: int, tmp_path: Path) -> None:
        """A later one is a pickle within a pickle, in which nothing is run either."""
        value = ("roi", np.arange(3.0), "ok")
        paths = [tmp_path / "1", tmp_path / "2"]
        for path in paths:
            path.write_bytes(dumps(value, protocol))
        merge_pickles(paths, tmp_path / "out")
        for _, found, _ in load_results(tmp_path / "out"):
            np.testing.assert_array_equal(found, value[1])
        paths[1].write_bytes(pickle.dumps(("roi", getattr, "ok"), protocol))
        merge_pickles(paths, tmp_path / "out")
        with pytest.raises(TreatmentDataError, match=r"builtins\.getattr|__builtin__\.getattr"):
            load_results(tmp_path / "out")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            load_results(tmp_path / "result.pck")


CELLS = st.lists(st.one_of(st.text(), st.none()), min_size=2, max_size=2) | st.lists(
    st.floats() | st.integers(-9, 9), min_size=2, max_size=2
)


@given(
    st.lists(CELLS, max_size=3),
    st.sampled_from([[0, 1], [1, 2], ["a", "b"], [0.5, 0.5]]),
    st.booleans(),
)
def test_tables_are_pickled_as_what_they_hold(
    columns: list[Any], index: list[Any], named: bool
) -> None:
    """So that neither another pandas nor whoever must not run anything has to know of pandas' own pickles."""
    table = pd.DataFrame({f"c{i}": each for i, each in enumerate(columns)}, index=pd.Index(index))
    if named:
        table.index.name = "name"
    content = dumps([table, table], 3)
    assert b"pandas" not in content
    again, same = pickle.loads(content)
    pd.testing.assert_frame_equal(again, table, check_index_type=False, check_column_type=False)
    assert again is same


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"when": pd.to_datetime(["2026-01-01"])}),
        pd.DataFrame({"kind": pd.Categorical(["a"])}),
        pd.DataFrame({"a": [1], "b": [2], "c": [3]}).set_index(["a", "b"]),
        pd.DataFrame({"each": [[1, 2]]}),
    ],
)
def test_other_tables_are_pickled_as_pandas_does(table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(pickle.loads(dumps(table, 5)), table)


class TestOfAnybody:
    def test_what_is_no_result_is_not_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path}/run",)

        path = tmp_path / "result.pck"
        for evil in (Evil(), getattr, pickle.Pickler, np.lib.npyio.NpzFile):
            path.write_bytes(pickle.dumps([evil], 2))
            with pytest.raises(TreatmentDataError, match="not allowed in results"):
                load_results(path)
        assert not (tmp_path / "run").exists()

    def test_arrays_of_objects_are_not_made_of_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "result.pck"
        array = b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'%s'\ntR." % (b"A" * 8)
        number = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'%s'\ntR." % (
            b"A" * 8
        )
        for content in (array, number):
            path.write_bytes(content)
            with pytest.raises(TreatmentDataError, match="not made"):
                load_results(path)

    @pytest.mark.parametrize(
        "content", [5, [5], "text", None, {"a": 1}, [(1, 2)], [("roi", {}, "ok"), 7]]
    )
    def test_something_else(self, content: object, tmp_path: Path) -> None:
        path = tmp_path / "result.pck"
        path.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(TreatmentDataError, match=r"result\.pck has no results: it holds"):
            load_results(path)

    def test_a_compressed_file(self, tmp_path: Path) -> None:
        path = tmp_path / "dump.pck.gz"
        content = gzip.compress(pickle.dumps([("roi", {"a": 1}, "ok")], 0))
        path.write_bytes(content)
        assert load_results(path) == [("roi", {"a": 1}, "ok")]
        for damaged in (content[:-9], content[:30], content[:20] + b"x" + content[21:]):
            path.write_bytes(damaged)
            with pytest.raises(TreatmentDataError, match="cannot be read as results"):
                load_results(path)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        path = tmp_path / "result.pck"
        for content in (b"", b"(", b"garbage", pickle.dumps([1] * 50, 2)[:-5]):
            path.write_bytes(content)
            with pytest.raises(TreatmentDataError, match="cannot be read as results"):
                load_results(path)
