from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from pyhrf_parallel import errors
from pyhrf_parallel.errors import RemoteException, SubmissionError, TaskLostError


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
    assert pickle.loads(pickle.dumps(SubmissionError("busy", transient=True))).transient


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
