"""What a type checker knows of the public functions: mypy checks this file, and pytest that it is true."""

from __future__ import annotations

from typing import assert_type

import pytest

from pyhrf_parallel import (
    ArgumentError,
    ConfigurationError,
    MapRun,
    RemoteException,
    remote_map,
    remote_map_marshal,
    submit_map,
)
from pyhrf_parallel.backends import (
    MODES,
    Backend,
    Mode,
    local,
    local_with_dumps,
    remote_cluster,
    serial,
)
from pyhrf_parallel.runs.preview import Preview
from pyhrf_parallel.tasks import OnError

BACKENDS: list[Backend] = [serial, local, local_with_dumps, remote_cluster]


def text_of(number: int) -> str:
    return str(10 // number)


def test_a_mode_is_a_module_of_its_name() -> None:
    assert tuple(backend.__name__.rpartition(".")[2] for backend in BACKENDS) == MODES  # type: ignore[attr-defined]


class TestOfAMap:
    def test_results_are_what_the_function_returns(self) -> None:
        assert assert_type(remote_map(text_of, [(1,)]), list[str]) == ["10"]
        assert assert_type(remote_map_marshal(text_of, [(1,)], mode="serial"), list[str]) == ["10"]
        mode: Mode = "serial"
        assert assert_type(remote_map(text_of, [(1,)], mode=mode, on_error="raise"), list[str])

    @pytest.mark.parametrize("on_error", ["return"])
    def test_with_failures_in_their_places(self, on_error: OnError) -> None:
        for results in (
            remote_map(text_of, [(1,), (0,)], on_error="return"),
            remote_map(text_of, [(1,), (0,)], on_error=on_error),
            remote_map_marshal(text_of, [(1,), (0,)], mode="serial", on_error="return"),
        ):
            ten, failure = assert_type(results, list[str | RemoteException])
            assert ten == "10"
            assert isinstance(failure, RemoteException)

    def test_the_objects_that_submit_map_returns(self) -> None:
        assert_type(submit_map(text_of, [(1,)], dry_run=True, n_jobs=2), Preview)

        def submit() -> MapRun:  # checked and not run
            return assert_type(submit_map(text_of, [(1,)], resources={"mem": "4G"}), MapRun)

        assert callable(submit)


class TestOfAMistake:
    """Each is an error for mypy, which complains of a comment that is not needed, and one when it runs."""

    def test_in_a_mode(self) -> None:
        with pytest.raises(ConfigurationError):
            remote_map(text_of, [(1,)], mode="cluster")  # type: ignore[call-overload]

    def test_in_on_error(self) -> None:
        with pytest.raises(ConfigurationError):
            remote_map(text_of, [(1,)], on_error="ignore")  # type: ignore[call-overload]

    def test_in_a_resource(self) -> None:
        with pytest.raises(ConfigurationError, match="'memory'; accepted: mem, "):
            remote_map(text_of, [(1,)], resources={"memory": "4G"})  # type: ignore[call-overload]

    def test_in_the_name_of_an_option(self) -> None:
        with pytest.raises(ArgumentError, match=r"'njobs'; accepted: on_error, .*n_jobs"):
            submit_map(text_of, [(1,)], njobs=2)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="njobs"):
            remote_map_marshal(text_of, [(1,)], njobs=2)  # type: ignore[call-overload]
