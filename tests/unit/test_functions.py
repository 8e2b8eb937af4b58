from __future__ import annotations

import functools
import importlib.util
import marshal
import pickle
import sys
import types
from pathlib import Path

import pytest

from pyhrf_parallel import NotShippableError, dump_func, merge_default_kwargs, remote_map
from pyhrf_parallel.functions import MarshalledFunction


def plain(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


class TestDumpFunc:
    def test_it_is_the_marshalled_code(self, tmp_path: Path) -> None:
        path = tmp_path / "f\n.marshal"
        dump_func(plain, path)
        assert marshal.loads(path.read_bytes()) == plain.__code__
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_an_existing_file_stays_whole_when_it_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_text("before")
        with pytest.raises(NotShippableError):
            dump_func(len, path)
        assert path.read_text() == "before"

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            dump_func(plain, tmp_path / "absent" / "f")


class TestMergeDefaultKwargs:
    def test_given_values_win(self) -> None:
        given = {"b": 5}
        assert merge_default_kwargs(plain, given) == {"b": 5, "c": 3}
        assert given == {"b": 5}

    @pytest.mark.parametrize(
        ("func", "expected"),
        [
            (functools.partial(plain, c=9), {"b": 2, "c": 9}),
            (int, {}),
            (max, {}),
            (type, {}),
            (lambda: 1, {}),
        ],
    )
    def test_all_kinds_of_callables(self, func: object, expected: dict[str, int]) -> None:
        assert merge_default_kwargs(func, {}) == expected  # type: ignore[arg-type]


class TestMarshalledFunction:
    def test_defaults_travel(self) -> None:
        travelled = pickle.loads(pickle.dumps(MarshalledFunction(plain)))
        assert travelled(1) == 6
        assert travelled(1, 1, c=1) == 3
        assert travelled.__name__ == "plain"

    def test_another_python_is_an_error_and_no_crash(self) -> None:
        func = MarshalledFunction(plain)
        func._python = (2, 7)
        with pytest.raises(NotShippableError, match=r"Python 2\.7.*same minor version"):
            func(1)


def test_a_module_that_a_fresh_process_cannot_import_travels_by_value(tmp_path: Path) -> None:
    path = tmp_path / "not_on_the_path.py"
    path.write_text(
        "factor = 3\ndef helper(x): return x * factor\ndef triple(x): return helper(x)\n"
    )
    spec = importlib.util.spec_from_file_location("not_on_the_path", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["not_on_the_path"] = module
    try:
        spec.loader.exec_module(module)
        for mode in ("local", "local_with_dumps", "remote_cluster"):
            assert remote_map(module.triple, [(2,)], mode=mode) == [6]
    finally:
        del sys.modules["not_on_the_path"]


def test_a_module_made_at_run_time_travels_by_value() -> None:
    module = types.ModuleType("made_at_run_time")
    exec("def double(x): return 2 * x", vars(module))
    sys.modules[module.__name__] = module
    try:
        assert remote_map(vars(module)["double"], [(2,)], mode="local_with_dumps") == [4]
    finally:
        del sys.modules[module.__name__]
