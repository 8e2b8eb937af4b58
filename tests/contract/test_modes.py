"""One suite for every mode: whatever the mode, `remote_map` keeps its promises."""

from __future__ import annotations

import functools
import operator
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyhrf_parallel import (
    ArgumentError,
    ConfigurationError,
    NotShippableError,
    RemoteException,
    TaskLostError,
    remote_map,
    remote_map_marshal,
)
from pyhrf_parallel.backends import MODES, Mode
from tests.contract import cases

WORKER_MODES = [mode for mode in MODES if mode != "serial"]
ORIGINAL = {"serial", "local"}  # modes that raise the function's own exception

pytestmark = pytest.mark.usefixtures("nothing_left")
every_mode = pytest.mark.parametrize("mode", MODES)
worker_mode = pytest.mark.parametrize("mode", WORKER_MODES)


def numbers(n: int) -> list[tuple[int]]:
    return [(i,) for i in range(n)]


@every_mode
class TestResults:
    def test_the_documented_example(self, mode: Mode) -> None:
        assert remote_map(cases.add, [(2,), (3,)], [{"b": 5}, {"b": 7}], mode) == [7, 10]

    def test_order_is_that_of_the_arguments(self, mode: Mode) -> None:
        assert remote_map(cases.sleep_at, [(i, 0, 0.2) for i in range(6)], mode=mode) == [*range(6)]

    def test_without_arguments_there_is_one_call(self, mode: Mode) -> None:
        assert remote_map(cases.identity, mode=mode) == [((), {})]

    def test_no_tasks(self, mode: Mode) -> None:
        assert remote_map(cases.add, [], mode=mode) == []
        assert remote_map(cases.add, [], [], mode=mode) == []
        assert remote_map(cases.add, None, [], mode=mode) == []

    def test_one_list_given(self, mode: Mode) -> None:
        assert remote_map(cases.add, None, [{"a": 1}, {"a": 2, "b": 3}], mode=mode) == [3, 5]

    def test_default_given_positionally(self, mode: Mode) -> None:
        assert remote_map(cases.add, [(1, 5)], mode=mode) == [6]

    def test_arguments_pass_untouched(self, mode: Mode) -> None:
        args = (1, "é\n'", b"\0", None, [1, {2}], {"k": (1,)}, 1.5, 10**40, cases.Callable)
        assert remote_map(cases.identity, [args], [{"a b": 1}], mode=mode) == [(args, {"a b": 1})]

    def test_lists_and_generators_of_arguments(self, mode: Mode) -> None:
        assert remote_map(cases.add, ([i] for i in range(3)), mode=mode) == [2, 3, 4]

    def test_a_returned_exception_is_a_value(self, mode: Mode) -> None:
        results = remote_map(cases.return_exception, numbers(2), mode=mode)
        assert [type(r) for r in results] == [ValueError, ValueError]
        assert results[1].args == (1,)

    def test_returned_arrays(self, mode: Mode) -> None:
        results = remote_map(np.arange, numbers(3), mode=mode)
        assert [r.tolist() for r in results] == [[], [0], [0, 1]]

    def test_many_tiny_tasks(self, mode: Mode) -> None:
        n = 60 if mode == "local_with_dumps" else 5000
        assert remote_map(operator.neg, numbers(n), mode=mode) == [-i for i in range(n)]

    def test_uneven_tasks_of_many_workers(self, mode: Mode) -> None:
        delays = [(0.2 if i == 3 else 0.001,) for i in range(10)]
        assert remote_map(time.sleep, delays, mode=mode, n_jobs=4) == [None] * 10

    @pytest.mark.parametrize("n_jobs", [1, 3, -1])
    def test_n_jobs(self, mode: Mode, n_jobs: int) -> None:
        assert remote_map(cases.add, numbers(4), mode=mode, n_jobs=n_jobs) == [2, 3, 4, 5]


def make_closure(offset: int) -> Any:
    return lambda x: x + offset


@every_mode
@pytest.mark.parametrize(
    ("func", "arg", "expected"),
    [
        pytest.param(len, "abc", 3, id="builtin"),
        pytest.param(functools.partial(cases.add, b=40), 2, 42, id="partial"),
        pytest.param(lambda x: x * 2, 4, 8, id="lambda"),
        pytest.param(make_closure(5), 1, 6, id="closure"),
        pytest.param(cases.Callable(3), 1, 4, id="callable instance"),
        pytest.param(cases.Callable(3).method, 2, 6, id="bound method"),
        pytest.param(cases.Callable.build, 2, 2, id="class method"),
        pytest.param(cases.Callable.static, 2, -2, id="static method"),
        pytest.param(str, 2, "2", id="class"),
        pytest.param("abc".__contains__, "b", True, id="method of a builtin"),
        pytest.param(np.sqrt, 4.0, 2.0, id="ufunc"),
        pytest.param(cases.remembered, 1, 2, id="decorated"),
    ],
)
def test_functions_of_all_kinds_travel(mode: Mode, func: Any, arg: Any, expected: Any) -> None:
    assert remote_map(func, [(arg,)], mode=mode) == [expected]


@every_mode
class TestFailures:
    def test_the_first_failing_index_decides(self, mode: Mode) -> None:
        with pytest.raises((ValueError, RemoteException)) as caught:
            remote_map(cases.fail_at, [(i, 4, 7) for i in range(10)], mode=mode, n_jobs=2)
        error = caught.value
        if mode in ORIGINAL:
            assert type(error) is ValueError
            assert str(error) == "bad 4"
            assert "Task 4 of 10" in error.__notes__[0]
            assert "fail_at(4, 4, 7)" in error.__notes__[0]
            return
        assert isinstance(error, RemoteException)
        message, cause = error.args
        assert message == "Task 4 failed"
        assert (type(cause), str(cause)) == (ValueError, "bad 4")
        assert error.__cause__ is cause
        assert error.index == 4
        assert error.call == "fail_at(4, 4, 7)"
        assert error.host
        assert 'raise ValueError(f"bad {i}")' in error.remote_traceback
        assert "in _run_calls" not in error.remote_traceback
        assert error.failures[0] is error
        assert {f.index for f in error.failures} <= {4, 7}
        for part in ("Task 4 failed", "bad 4", "fail_at(4, 4, 7)"):
            assert part in str(error)

    def test_return_leaves_failures_in_their_places(self, mode: Mode) -> None:
        results: list[Any] = remote_map(
            cases.fail_at, [(i, 1, 3) for i in range(5)], mode=mode, on_error="return"
        )
        assert [r if isinstance(r, int) else None for r in results] == [0, None, 2, None, 4]
        assert [results[i].index for i in (1, 3)] == [1, 3]
        assert str(results[3].__cause__) == "bad 3"

    def test_exceptions_with_an_init_of_their_own(self, mode: Mode) -> None:
        result: Any
        (result,) = remote_map(cases.fail_custom, [(7,)], mode=mode, on_error="return")
        assert type(result.__cause__) is cases.Custom
        assert result.__cause__.code == 7
        assert str(result.__cause__) == "code 7: custom"

    def test_the_chain_of_causes_is_in_the_traceback(self, mode: Mode) -> None:
        result: Any
        (result,) = remote_map(cases.fail_chained, [(7,)], mode=mode, on_error="return")
        assert "KeyError: 7" in result.remote_traceback
        assert "RuntimeError: outer" in result.remote_traceback

    def test_the_next_call_works(self, mode: Mode) -> None:
        for _ in range(2):
            with pytest.raises((ValueError, RemoteException)):
                remote_map(cases.fail_at, [(0, 0)], mode=mode)
            assert remote_map(cases.add, numbers(2), mode=mode) == [2, 3]

    def test_wrong_arguments_of_one_call(self, mode: Mode) -> None:
        results = remote_map(cases.add, [(1,), (1, 2, 3)], mode=mode, on_error="return")
        assert results[0] == 3
        assert isinstance(results[1], RemoteException)
        assert isinstance(results[1].__cause__, TypeError)


def for_tasks(directory: Path) -> Path:
    """Make a directory that tasks can write to: on a cluster they run in another account."""
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@worker_mode
class TestLostTasks:
    """A task whose process dies costs nothing but itself."""

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_exit(self, mode: Mode, n_jobs: int) -> None:
        results = remote_map(
            cases.exit_at, [(i, 7) for i in range(20)], mode=mode, on_error="return", n_jobs=n_jobs
        )
        lost = results.pop(7)
        assert results == [i for i in range(20) if i != 7]
        assert isinstance(lost, TaskLostError)
        assert (lost.index, lost.call) == (7, "exit_at(7, 7)")
        assert "Task 7 was lost" in str(lost)
        assert "3" in lost.args[0]
        if mode != "local":
            assert "last words" in lost.log_tail

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
    def test_signal(self, mode: Mode, signum: int) -> None:
        results = remote_map(
            cases.kill_at,
            [(i, 7, signum) for i in range(12)],
            mode=mode,
            on_error="return",
            n_jobs=2,
        )
        lost = results.pop(7)
        assert results == [i for i in range(12) if i != 7]
        assert isinstance(lost, TaskLostError)
        assert signal.Signals(signum).name in str(lost)

    def test_several(self, mode: Mode) -> None:
        def die(i: int) -> int:
            import os

            return os._exit(i) if i % 3 == 1 else i

        results = remote_map(die, numbers(8), mode=mode, on_error="return", n_jobs=2)
        assert [i for i, r in enumerate(results) if isinstance(r, TaskLostError)] == [1, 4, 7]
        assert [r for r in results if isinstance(r, int)] == [0, 2, 3, 5, 6]

    def test_raise_and_the_next_call_works(self, mode: Mode) -> None:
        with pytest.raises(TaskLostError) as caught:
            remote_map(cases.exit_at, [(i, 2) for i in range(6)], mode=mode)
        assert caught.value.index == 2
        assert remote_map(cases.add, [(1,)], mode=mode) == [3]

    def test_it_is_tried_once_without_retries(self, mode: Mode, tmp_path: Path) -> None:
        place = for_tasks(tmp_path / "starts")
        remote_map(
            cases.count_and_exit,
            [(str(place), i, 2) for i in range(4)],
            mode=mode,
            on_error="return",
            n_jobs=2,
        )
        assert len(list(place.glob("2-*"))) == 1

    def test_retries(self, mode: Mode, tmp_path: Path) -> None:
        for retries, survives in ((2, True), (1, False)):
            place = for_tasks(tmp_path / f"starts-{retries}")
            calls = [(str(place), i, 2, 2) for i in range(4)]
            results = remote_map(
                cases.count_and_exit, calls, mode=mode, on_error="return", retries=retries
            )
            assert len(list(place.glob("2-*"))) == retries + 1
            assert isinstance(results[2], TaskLostError) is not survives
            assert [results[i] for i in (0, 1, 3)] == [0, 1, 3]

    def test_sys_exit_is_a_failure_and_no_exit_of_the_script(self, mode: Mode) -> None:
        with pytest.raises(RemoteException) as caught:
            remote_map(cases.sys_exit, [(4,)], mode=mode)
        assert isinstance(caught.value.__cause__, SystemExit)


@worker_mode
class TestTimeout:
    def test_a_task_over_it_is_stopped_and_fails(self, mode: Mode) -> None:
        began = time.monotonic()
        calls = [(i, 2, 200) for i in range(6)]
        results = remote_map(cases.sleep_at, calls, mode=mode, timeout=0.5, on_error="return")
        assert time.monotonic() - began < 100
        failed = results.pop(2)
        assert results == [0, 1, 3, 4, 5]
        assert isinstance(failed, RemoteException)
        assert isinstance(failed.__cause__, TimeoutError)
        assert "timeout=0.5 s" in str(failed)

    def test_a_task_that_cannot_be_interrupted(self, mode: Mode) -> None:
        results = remote_map(
            cases.stubborn, [(i, 2) for i in range(6)], mode=mode, timeout=0.5, on_error="return"
        )
        failed = results.pop(2)
        assert results == [0, 1, 3, 4, 5]
        assert isinstance(failed, RemoteException)
        assert isinstance(failed.__cause__, TimeoutError)

    def test_raise(self, mode: Mode) -> None:
        with pytest.raises((TimeoutError, RemoteException)) as caught:
            remote_map(cases.sleep_at, [(0, 0)], mode=mode, timeout=0.3)
        assert isinstance(caught.value, TimeoutError) is (mode in ORIGINAL)

    def test_it_is_for_each_task_and_not_for_all(self, mode: Mode) -> None:
        calls = [(0.5,)] * 4
        assert remote_map(time.sleep, calls, mode=mode, timeout=1.9, n_jobs=1) == [None] * 4


@worker_mode
class TestWorkers:
    def test_other_tasks_are_not_waited_for(self, mode: Mode) -> None:
        began = time.monotonic()
        with pytest.raises((ValueError, RemoteException)):
            remote_map(
                lambda i: time.sleep(200) if i else int("x"), numbers(2), mode=mode, n_jobs=2
            )
        assert time.monotonic() - began < 100

    def test_a_worker_that_begins_after_the_failure_is_not_waited_for(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        began = time.monotonic()
        func = cases.LateForTheSecond(str(tmp_path / "marker"))
        with pytest.raises((ValueError, RemoteException)):
            remote_map(func, numbers(2), mode=mode, n_jobs=2)
        assert time.monotonic() - began < 100

    def test_a_result_that_cannot_travel(self, mode: Mode) -> None:
        results = remote_map(cases.return_unpicklable, numbers(3), mode=mode, on_error="return")
        assert (results[0], results[2]) == (0, 2)
        assert "generator" in str(results[1])
        assert "cannot travel back" in str(results[1])

    @pytest.mark.parametrize("where", ["func", "argument", "named argument"])
    def test_what_cannot_travel_is_refused_before_anything_runs(
        self, mode: Mode, where: str, tmp_path: Path
    ) -> None:
        lock = threading.Lock()
        calls = [(str(tmp_path), i, 99) for i in range(3)]
        named: list[dict[str, Any]] = [{}, {}, {}]
        func: Any = cases.count_and_exit
        if where == "func":
            func = functools.partial(func, lock=lock)
        elif where == "argument":
            calls[2] = (*calls[2], lock)  # type: ignore[assignment]
        else:
            named[2] = {"survive_from": lock}
        with pytest.raises(NotShippableError, match="lock") as caught:
            remote_map(func, calls, named, mode=mode)
        if where != "func":
            name = "3" if where == "argument" else "'survive_from'"
            assert f"Argument {name} of task 2" in str(caught.value)
        assert list(tmp_path.glob("?-*")) == []

    def test_a_large_array_shared_by_all_tasks(self, mode: Mode) -> None:
        image = np.arange(600_000.0).reshape(1000, 600)
        calls = [(image, i) for i in range(5)]
        assert remote_map(cases.pixel, calls, [{"scale": 2}] * 5, mode=mode) == [
            1202.0 * i for i in range(5)
        ]

    @pytest.mark.parametrize(
        "image",
        [
            np.asfortranarray(np.arange(300_000.0).reshape(3, -1)),
            np.arange(900_000, dtype=">i4").reshape(3, -1)[:, ::2],
            np.array(["é", None, 3] * 100_000, dtype=object),
            np.zeros(100_000, dtype=[("onset", "f8"), ("name", "U4")]),
            np.arange(0, 400_000).astype("M8[s]"),
            np.broadcast_to(np.float64(3), (1000, 1000)),
        ],
        ids=["fortran", "strided", "object", "structured", "datetime", "broadcast"],
    )
    def test_arrays_of_all_kinds(self, mode: Mode, image: np.ndarray[Any, Any]) -> None:
        ((kind, dtype, shape, fortran, content),) = remote_map(
            cases.describe_array, [(image,)], mode=mode
        )
        assert (kind, dtype, shape) == (np.ndarray, image.dtype, image.shape)
        if image.dtype != object:
            assert content == image.tobytes()
        if image.flags.f_contiguous:
            assert fortran

    def test_changing_an_array_in_place_stays_in_the_task(self, mode: Mode) -> None:
        image = np.ones((1000, 600))
        results = remote_map(cases.change_in_place, [(image, i) for i in range(4)], mode=mode)
        assert results == [1.0] * 4
        assert image[0, 0] == 1

    def test_a_large_array_in_a_closure(self, mode: Mode) -> None:
        image = np.ones((1000, 600))
        assert remote_map(lambda i: image[i].sum(), numbers(2), mode=mode) == [600.0, 600.0]

    def test_tasks_may_start_processes(self, mode: Mode) -> None:
        assert remote_map(cases.with_child, numbers(3), mode=mode) == [0, 1, 2]

    def test_two_maps_at_once(self, mode: Mode) -> None:
        results: dict[int, list[Any]] = {}

        def one(offset: int) -> None:
            results[offset] = remote_map(
                cases.exit_at, [(i, 99) for i in range(offset, offset + 12)], mode=mode, n_jobs=2
            )

        threads = [threading.Thread(target=one, args=(offset,)) for offset in (0, 12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {0: [*range(12)], 12: [*range(12, 24)]}

    def test_nothing_on_stdout(self, mode: Mode, capfd: pytest.CaptureFixture[str]) -> None:
        assert remote_map(cases.add, numbers(3), mode=mode) == [2, 3, 4]
        assert capfd.readouterr() == ("", "")

    def test_what_a_failed_task_wrote_is_in_the_error(self, mode: Mode) -> None:
        def speak(i: int) -> None:
            print("said", i)
            raise ValueError(i)

        (failed,) = remote_map(speak, [(5,)], mode=mode, on_error="return")
        assert failed is not None
        if mode != "local":  # joblib's processes write to this one's terminal
            assert "said 5" in failed.log_tail

    def test_workers_run_this_interpreter_elsewhere(self, mode: Mode) -> None:
        import os

        ((pid, executable),) = remote_map(
            lambda: (__import__("os").getpid(), sys.executable), mode=mode
        )
        assert pid != os.getpid()
        assert executable == sys.executable

    def test_nested_maps(self, mode: Mode) -> None:
        assert remote_map(cases.nested, numbers(2), mode=mode, n_jobs=2) == [[2, 3], [3, 4]]


@every_mode
class TestWrongUse:
    @pytest.mark.parametrize(
        ("func", "largs", "lkwargs", "error", "match"),
        [
            (3, [(1,)], None, ArgumentError, "func must be callable"),
            (len, [1, 2], None, ArgumentError, r"largs\[0\].*\[\(x,\) for x in items\]"),
            (len, [("a",), "b"], None, ArgumentError, r"largs\[1\]"),
            (len, "ab", None, ArgumentError, "largs must be a list"),
            (len, 3, None, ArgumentError, "largs must be a list"),
            (len, None, [("a", 1)], ArgumentError, r"lkwargs\[0\] must be a dict"),
            (len, None, {"a": 1}, ArgumentError, "lkwargs must be a list"),
            (len, [(1,)], [{}, {}], ArgumentError, "1 items.*has 2"),
        ],
    )
    def test_arguments(
        self, mode: Mode, func: Any, largs: Any, lkwargs: Any, error: type[Exception], match: str
    ) -> None:
        with pytest.raises(error, match=match):
            remote_map(func, largs, lkwargs, mode=mode)

    @pytest.mark.parametrize(
        ("option", "match"),
        [
            ({"n_jobs": 0}, "n_jobs"),
            ({"n_jobs": 1.5}, "n_jobs"),
            ({"retries": -1}, "retries"),
            ({"timeout": 0}, "timeout"),
            ({"timeout": "3"}, "timeout"),
            ({"on_error": "ignore"}, "on_error.*'raise' or 'return'"),
        ],
    )
    def test_options(self, mode: Mode, option: dict[str, Any], match: str) -> None:
        with pytest.raises(ConfigurationError, match=match):
            remote_map(len, [("a",)], mode=mode, **option)


def test_unknown_mode_lists_the_modes() -> None:
    with pytest.raises(ConfigurationError, match="serial, local, local_with_dumps, remote_cluster"):
        remote_map(len, [("a",)], mode="remote")  # type: ignore[call-overload]


def test_serial_refuses_a_timeout() -> None:
    with pytest.raises(ConfigurationError, match="another mode"):
        remote_map(len, [("a",)], timeout=3)


def test_serial_runs_nothing_after_the_first_failure() -> None:
    calls = []

    def note(i: int) -> None:
        calls.append(i)
        fail = {2: int}.get(i, str)
        fail("x")

    with pytest.raises(ValueError, match="invalid literal"):
        remote_map(note, numbers(5))
    assert calls == [0, 1, 2]


def test_mismatch_is_the_error_of_the_original() -> None:
    with pytest.raises(AssertionError):
        remote_map(len, [], [{}])


class TestMarshal:
    @every_mode
    def test_the_code_travels(self, mode: Mode) -> None:
        def distance(x: float, y: float = 4, *, power: float = 2) -> float:
            import math

            return math.sqrt(x**power + y**power)

        assert remote_map_marshal(distance, [(3,), (0, 5)], mode=mode) == [5, 5]

    @every_mode
    def test_its_code_alone_travels_to_jobs(self, mode: Mode) -> None:
        def use() -> Any:
            return operator.neg(1)

        (result,) = remote_map_marshal(use, [()], mode=mode, on_error="return")
        if mode in ORIGINAL:  # it does where it need not travel as its bare code, as in pyhrf
            assert result == -1
        else:
            assert isinstance(result.__cause__, NameError)

    def test_without_arguments_nothing_is_called(self) -> None:
        assert remote_map_marshal(lambda: 1) == []

    def test_the_default_mode_is_local(self) -> None:
        import os

        (pid,) = remote_map_marshal(lambda: __import__("os").getpid(), [()])
        assert pid != os.getpid()

    @every_mode
    @pytest.mark.parametrize("func", [make_closure(1), len, cases.Callable(1)])
    def test_refusals(self, mode: Mode, func: Any) -> None:
        with pytest.raises(NotShippableError, match=r"closure|code object"):
            remote_map_marshal(func, [(1,)], mode=mode)
