from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from pyhrf_parallel import errors
from pyhrf_parallel.errors import ClusterError, RemoteException, TaskLostError


def make_failures() -> RemoteException:
    first = RemoteException(
        "Task 1 failed",
        ValueError("x"),
        index=1,
        call="foo(1)",
        remote_traceback="Traceback ...",
        host="node7",
        log_tail="last words",
    )
    first.failures = (first, TaskLostError("Task 2 was lost: killed", index=2))
    return first


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_remote_exceptions_survive_pickling(protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(make_failures(), protocol))
    assert type(copy) is RemoteException
    assert copy.args[0] == "Task 1 failed"
    assert str(copy.args[1]) == "x"
    assert copy.__cause__ is copy.args[1]
    assert (copy.index, copy.call, copy.host, copy.log_tail) == (1, "foo(1)", "node7", "last words")
    assert copy.remote_traceback == "Traceback ..."
    assert [(type(f), f.index) for f in copy.failures] == [(RemoteException, 1), (TaskLostError, 2)]
    assert copy.failures[0] is copy
    assert str(copy) == str(make_failures())


def test_every_error_survives_pickling() -> None:
    kinds: list[Any] = [
        k for _, k in inspect.getmembers(errors, inspect.isclass) if k.__module__ == errors.__name__
    ]
    assert len(kinds) >= 11
    for kind in kinds:
        copy = pickle.loads(pickle.dumps(kind("message")))
        assert type(copy) is kind
        assert "message" in str(copy)
        assert isinstance(copy, errors.ParallelError)


def test_transient_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ClusterError("busy", transient=True))).transient


def test_the_text_says_what_where_why_and_what_else() -> None:
    assert str(make_failures()).splitlines() == [
        "Task 1 failed on node7: foo(1)",
        "ValueError: x",
        "--- traceback in the worker ---",
        "Traceback ...",
        "--- end of the worker's output ---",
        "last words",
        "Also failed: 1 other task(s), index 2 (see .failures)",
    ]


def test_the_minimal_error_of_the_original() -> None:
    error = RemoteException("Task 3 failed", KeyError("k"))
    assert error.args[0] == "Task 3 failed"
    assert str(error) == "Task 3 failed\nKeyError: 'k'"
    assert error.failures == (error,)


@pytest.mark.parametrize("args", [(), ("a", "b"), ("a", "b", 3), (1,), ("a", None)])
def test_it_takes_what_the_original_takes(args: tuple[Any, ...]) -> None:
    error = RemoteException(*args)
    assert error.args == args
    assert str(error) == ("a" if args == ("a", None) else str(Exception(*args)))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (RemoteException, args, str(error))


class RegionError(RemoteException):
    """Takes other arguments, and is made as exceptions were in pyhrf's days."""

    def __init__(self, region: int, reason: str) -> None:
        Exception.__init__(self, f"region {region}: {reason}")
        self.region = region


def test_a_class_of_a_users_travels() -> None:
    copy = pickle.loads(pickle.dumps(RegionError(3, "empty")))
    assert type(copy) is RegionError
    assert (copy.region, str(copy), copy.index) == (3, "region 3: empty", None)


def test_a_cause_that_cannot_be_shown_does_not_hide_the_rest() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise KeyError("no message")

    error = RemoteException("Task 3 failed", BrokenError(), index=3, call="fit(3)")
    assert str(error) == "Task 3 failed: fit(3)\nBrokenError, whose message cannot be shown"
