"""Payloads, records and claims: what is written, read, damaged and shared."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhrf_parallel.errors import RemoteException, TaskLostError, TransferError
from pyhrf_parallel.files import private_directory, write_then_rename
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Options, Work
from pyhrf_parallel.worker.claims import Claims
from pyhrf_parallel.worker.payload import Payload
from pyhrf_parallel.worker.record_files import RecordFile, RecordStream
from pyhrf_parallel.worker.records import absorb, lost, note, raised, returned
from pyhrf_parallel.worker.run_paths import PART


def work_of(largs: list[tuple[Any, ...]], **options: Any) -> Work:
    return Work(len, largs, [{}] * len(largs), Options(**options))


class TestPayload:
    def test_round_trip(self, tmp_path: Path) -> None:
        calls = [(i, [i]) for i in range(10)]
        write_payload(tmp_path / "p", work_of(calls, timeout=3.5, retries=2))
        payload = Payload(tmp_path / "p")
        assert payload.function() is len
        assert (payload.tasks, payload.timeout, payload.retries) == (10, 3.5, 2)
        assert [payload.calls(i, 10)[0] for i in range(10)] == [(call, {}) for call in calls]
        payload.close()

    def test_it_is_private(self, tmp_path: Path) -> None:
        write_payload(tmp_path / "p", work_of([(1,)]))
        assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o600

    @pytest.mark.parametrize("n", [1, 2047, 2048, 2049, 5000])
    def test_many_plain_tasks(self, tmp_path: Path, n: int) -> None:
        write_payload(tmp_path / "p", work_of([(i,) for i in range(n)]))
        payload = Payload(tmp_path / "p")
        index, seen = 0, []
        while index < n:
            calls = payload.calls(index, n)
            seen += [args[0] for args, _ in calls]
            index += len(calls)
        assert seen == list(range(n))
        payload.close()

    def test_a_large_array_is_written_once(self, tmp_path: Path) -> None:
        image = np.ones((1000, 300))
        write_payload(tmp_path / "p", work_of([(image, {"again": image}, i) for i in range(20)]))
        assert image.nbytes < (tmp_path / "p").stat().st_size < 1.1 * image.nbytes

    def test_views_of_an_array_are_not_confused(self, tmp_path: Path) -> None:
        image = np.arange(600_000.0).reshape(2, -1)
        views = [image[0], image[1], image[0][::-1], image[0].reshape(10, -1), image[0].view("i8")]
        write_payload(tmp_path / "p", work_of([(view,) for view in views]))
        payload = Payload(tmp_path / "p")
        for index, view in enumerate(views):
            ((loaded,), _) = payload.calls(index, len(views))[0]
            assert loaded.dtype == view.dtype
            np.testing.assert_array_equal(loaded, view)
        payload.close()

    def test_arrays_made_while_pickling_are_not_confused(self, tmp_path: Path) -> None:
        tasks = [(Fickle(i),) for i in range(5)]
        write_payload(tmp_path / "p", work_of(tasks))
        payload = Payload(tmp_path / "p")
        assert [payload.calls(i, 5)[0][0][0].number for i in range(5)] == [*range(5)]
        payload.close()

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_damage_is_an_error_and_never_another_task(self, data: st.DataObject) -> None:
        with private_directory() as directory:
            path = directory / "p"
            calls = [(i, str(i), [i]) for i in range(3)]
            write_payload(path, work_of(calls))
            content = bytearray(path.read_bytes())
            position = data.draw(st.integers(0, len(content) - 1))
            content[position] ^= data.draw(st.integers(1, 255))
            path.write_bytes(content)
            with pytest.raises(TransferError), closing(Payload(path)) as payload:
                payload.function()
                for index in range(3):
                    assert payload.calls(index, 3)[0] == (calls[index], {})


class Fickle:
    """Makes its array while it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return np.full(200_000, float(self.number))

    def __setstate__(self, state: Any) -> None:
        self.number = int(state[-1])


class Exits:
    """Ends the process that loads it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class TestRecords:
    def outcomes(self, n: int = 6) -> Outcomes:
        return Outcomes(work_of([("a",)] * n, on_error="return"))

    def test_round_trip(self) -> None:
        outcomes = self.outcomes()
        try:
            raise KeyError("k")
        except KeyError as error:
            failed = raised(2, error, "tail")
        absorb([*returned(0, [1, 2.5]), failed, *returned(3, [[1], {2}])], outcomes)
        absorb([lost(5, "killed", "words")], outcomes)
        assert outcomes.values[:2] == [1, 2.5]
        assert outcomes.values[3:5] == [[1], {2}]
        assert outcomes.complete
        failure = outcomes.failures[2]
        assert (failure.log_tail, failure.host) == ("tail", os.uname().nodename)
        assert isinstance(failure.__cause__, KeyError)
        assert isinstance(outcomes.failures[5], TaskLostError)

    def test_what_is_settled_stays(self) -> None:
        outcomes = self.outcomes()
        absorb([*returned(0, [1]), *returned(0, [2]), lost(0, "late")], outcomes)
        assert outcomes.values[0] == 1
        assert not outcomes.failures

    def test_a_stream_gives_records_as_they_are_completed(self, tmp_path: Path) -> None:
        path = tmp_path / "r"
        file = RecordFile(str(path))
        for number in range(4):
            file.write(returned(number, [number]))
        file.finish()
        assert [p.name for p in tmp_path.iterdir()] == ["r"]
        content, stream, seen = path.read_bytes(), RecordStream(), []
        for position in range(len(content)):
            seen += stream.feed(content[position : position + 1])
        assert seen == [("plain", number, [number]) for number in range(4)]
        assert stream.position == len(content)

    @settings(max_examples=40, deadline=None)
    @given(cut=st.integers(0, 200))
    def test_a_cut_file_gives_what_was_complete(self, cut: int) -> None:
        with private_directory() as directory:
            path = directory / "r"
            file = RecordFile(str(path))
            part = path.with_name("r" + PART)
            sizes = []
            for number in range(4):
                file.write(returned(number, [number]))
                sizes.append(part.stat().st_size)
            complete = sum(size <= cut for size in sizes)
            assert len(RecordStream().feed(part.read_bytes()[:cut])) == complete

    @settings(max_examples=40, deadline=None)
    @given(size=st.integers(1, 200_000), skim=st.booleans())
    def test_large_arrays_come_behind_the_pickle(self, size: int, skim: bool) -> None:
        values = [np.arange(n, dtype=float) for n in (9, 20_000, 1, 30_000)]
        with private_directory() as directory:
            file = RecordFile(str(directory / "r"))
            file.write(returned(0, [values[0], values[1]]))
            file.write(returned(2, [{"a": values[2], "b": [values[3], values[1]]}]))
            file.write(returned(3, ["end"]))
            file.finish()
            content = (directory / "r").read_bytes()
        stream, outcomes = RecordStream(skim=skim), self.outcomes(4)
        for start in range(0, len(content), size):
            records = stream.feed(content[start : start + size])
            if skim:
                note(records, outcomes)
            else:
                absorb(records, outcomes)
        assert outcomes.settled == 4
        if not skim:
            first, second, third, end = outcomes.values
            assert end == "end"
            for array, value in [
                (first, values[0]), (second, values[1]), (third["a"], values[2]),
                (third["b"][0], values[3]), (third["b"][1], values[1]),
            ]:  # fmt: skip
                np.testing.assert_array_equal(array, value)
                array.fill(1)  # the caller's, as any other array

    def test_damage_of_a_large_array_is_an_error(self, tmp_path: Path) -> None:
        file = RecordFile(str(tmp_path / "r"))
        file.write(returned(0, [np.zeros(100_000)]))
        content = bytearray((tmp_path / f"r{PART}").read_bytes())
        content[-3] ^= 1
        for skim in (False, True):
            with pytest.raises(TransferError, match="checksum"):
                RecordStream(skim=skim).feed(bytes(content))

    def test_a_result_that_exits_when_it_is_loaded_fails_its_task(self) -> None:
        outcomes = self.outcomes(1)
        absorb(returned(0, [Exits()]), outcomes)
        assert "SystemExit" in str(outcomes.failures[0].__cause__)

    def test_damage_is_an_error(self, tmp_path: Path) -> None:
        file = RecordFile(str(tmp_path / "r"))
        file.write(returned(0, ["value"]))
        content = bytearray((tmp_path / f"r{PART}").read_bytes())
        content[-3] ^= 1
        with pytest.raises(TransferError, match="checksum"):
            RecordStream().feed(bytes(content))


class TestOutcomes:
    @given(st.lists(st.sampled_from("pdf"), max_size=30), st.booleans())
    def test_pending_ranges_are_what_has_no_outcome(self, states: list[str], stop: bool) -> None:
        mode = "raise" if stop else "return"
        outcomes = Outcomes(work_of([("a",)] * len(states), on_error=mode))
        for index, state in enumerate(states):
            if state == "d":
                outcomes.succeed(index, [index])
            if state == "f":
                outcomes.fail(RemoteException("x", index=index))
        limit = states.index("f") if stop and "f" in states else len(states)
        expected = [i for i in range(limit) if states[i] == "p"]
        assert [i for a, b in outcomes.pending() for i in range(a, b)] == expected
        assert outcomes.complete is not bool(expected)
        assert outcomes.limit == limit


class TestClaims:
    def test_every_task_is_taken_once(self, tmp_path: Path) -> None:
        ranges = [(0, 7), (10, 11), (20, 500)]
        claims = Claims.create(str(tmp_path / "c"), ranges, 4)
        taken: list[int] = []

        def work() -> None:
            own = Claims(claims._path)
            while (claim := own.take(5)) is not None:
                taken.extend(range(*claim))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [i for a, b in ranges for i in range(a, b)]

    def test_the_last_ones_are_shared(self, tmp_path: Path) -> None:
        claims = Claims.create(str(tmp_path / "c"), [(0, 12)], 2)
        sizes = []
        while (claim := claims.take(1000)) is not None:
            sizes.append(claim[1] - claim[0])
        assert sizes[0] == 3
        assert sizes[-1] == 1


def test_private_directories_are_private_and_gone() -> None:
    with private_directory() as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "sub").mkdir()
    assert not directory.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_then_rename(path, b"old")
    with pytest.raises(TypeError):
        write_then_rename(path, object())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
