"""What is still to be run of a plan: which jobs, in which order, and who may take which tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyhrf_parallel.engine.group_progress import GroupProgress, make_progress
from pyhrf_parallel.engine.plan import JobStatus, Plan, Step, TaskGroup
from pyhrf_parallel.engine.scheduler import Job
from pyhrf_parallel.outcomes import Ledger
from pyhrf_parallel.worker.claims import Claims

SPLIT, MERGE = Step("split", ["split"], native=["--mem=9G"]), Step("merge", ["merge"])
SEND = Step("send", ["send"], needs_success=True)
GROUP = TaskGroup(
    "S", 2, 6, "place", [SPLIT], [MERGE, SEND], ["2.pck", "3.pck", "4.pck", "5.pck"], ["a", "b"]
)
PLAN = Plan(6, 2, stop_at_failure=False, native=["--mem=1G", "-x"], groups=[GROUP])
MAP = replace(PLAN, groups=[])
WELL, BADLY = JobStatus("j", "done", 0, "1"), JobStatus("j", "failed", 1, "1")
NEVER = JobStatus("j", "failed")  # given up, since one before it has failed


@pytest.fixture(autouse=True)
def directory_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(6, stop_at_failure=False)


def group(**changes: object) -> GroupProgress:
    return GroupProgress(3, replace(GROUP, **changes), PLAN)  # type: ignore[arg-type]


def whole_map() -> GroupProgress:
    (whole,) = make_progress(MAP)
    return whole


def names(layers: list[list[Job]]) -> list[list[str]]:
    return [[job.name for job in layer] for layer in layers]


def tasks_of(job: Job) -> list[int]:
    """Take all tasks that a job may; nothing is left for those that share them."""
    found: list[int] = []
    while (taken := Claims(job.claims).take(1)) is not None:
        found += range(*taken)
    return found


def shares(layer: list[Job]) -> dict[str, list[int]]:
    return {job.name: tasks_of(job) for job in layer}


def end(run: GroupProgress, step: Step, row: JobStatus) -> None:
    run.account(Job(step.name, f"3-{step.name}", [], [], step=step), row, "why")


def test_a_plan_is_a_map_or_groups() -> None:
    (whole,) = make_progress(MAP)
    assert (whole.group.start, whole.group.stop, whole.name) == (0, 6, "")
    runs = make_progress(replace(PLAN, groups=[GROUP, replace(GROUP, name="T")]))
    assert [(run.name, run.number) for run in runs] == [("S", 0), ("T", 1)]


class TestMap:
    def test_all_that_is_left_is_shared(self, ledger: Ledger) -> None:
        ledger.note_returned(1, 2)
        ledger.note_failed(5)
        ((one, other),) = whole_map().layers(ledger, "r")
        assert (one.name, other.name) == ("job-0", "job-1")
        assert one.native == MAP.native
        assert one.words[-4:] == [".", "0-job-0-r", "supervise", one.claims]
        assert shares([one, other]) == {"job-0": [0, 3, 4], "job-1": []}

    def test_no_more_jobs_than_tasks(self, ledger: Ledger) -> None:
        ledger.note_returned(0, 5)
        assert names(whole_map().layers(ledger, "r")) == [["job-0"]]

    def test_a_task_that_needs_more_memory_gets_a_job(self, ledger: Ledger) -> None:
        whole = whole_map()
        whole.too_big[4] = 1
        ((large, one, other),) = whole.layers(ledger, "r")
        assert (large.name, large.native[0]) == ("job-0-4", "--mem=2048M")
        assert shares([large, one, other]) == {
            "job-0-4": [4],
            "job-0": [0, 1, 2, 3, 5],
            "job-1": [],
        }

    def test_a_killed_task_has_left_nothing_to_discard(self) -> None:
        whole_map().discard(3)

    def test_its_end(self, ledger: Ledger) -> None:
        whole = whole_map()
        ledger.note_returned(0, 5)
        assert not whole.is_over(ledger)
        ledger.note_failed(5)
        assert whole.is_over(ledger)

    def test_its_end_with_the_first_failure(self) -> None:
        ledger = Ledger(6, stop_at_failure=True)
        ledger.note_failed(2)
        assert not whole_map().is_over(ledger)  # one before it may fail, too
        ((job, _),) = whole_map().layers(ledger, "r")
        assert tasks_of(job) == [0, 1]
        ledger.note_returned(0, 2)
        assert whole_map().is_over(ledger)


class TestTasks:
    def test_shared_by_all_jobs(self, ledger: Ledger) -> None:
        ledger.note_returned(3)
        (_, workers, _) = group().layers(ledger, "r")
        assert [job.file for job in workers] == ["3-a-r", "3-b-r"]
        assert shares(workers) == {"a": [2, 4, 5], "b": []}
        assert all(job.native == PLAN.native and job.step is None for job in workers)

    def test_no_more_jobs_than_tasks(self, ledger: Ledger) -> None:
        ledger.note_returned(2, 3)
        assert shares(group().layers(ledger, "r")[1]) == {"a": [5]}

    def test_jobs_with_tasks_of_their_own(self, ledger: Ledger) -> None:
        run = group(names=["a", "b", "c"], bounds=[3, 5, 6])
        assert shares(run.layers(ledger, "r")[1]) == {"a": [2], "b": [3, 4], "c": [5]}
        ledger.note_returned(2, 2)
        assert shares(run.layers(ledger, "s")[1]) == {"b": [4], "c": [5]}

    def test_those_that_need_more_memory_get_a_job_each(self, ledger: Ledger) -> None:
        run = group()
        run.too_big |= {3: 1, 5: 2}
        workers = run.layers(ledger, "r")[1]
        assert [job.native[0] for job in workers] == [
            "--mem=2048M", "--mem=4096M", "--mem=1G", "--mem=1G",
        ]  # fmt: skip
        assert shares(workers) == {"a-1": [3], "a-3": [5], "a": [2, 4], "b": []}

    def test_those_of_a_job_with_tasks_of_its_own(self, ledger: Ledger) -> None:
        run = group(bounds=[5, 6])
        run.too_big |= {2: 1, 3: 1}
        workers = run.layers(ledger, "r")[1]
        assert len({job.file for job in workers}) == 4
        assert shares(workers) == {"a-0": [2], "a-1": [3], "a": [4], "b": [5]}

    def test_files_are_of_no_other_job(self, ledger: Ledger) -> None:
        runs = [group(), replace(group(), number=4)]
        jobs = [job for run in runs for name in "rs" for job in run.layers(ledger, name)[1]]
        assert len({job.file for job in jobs}) == len(jobs) == 8
        assert len({job.claims for job in jobs}) == 4

    def test_what_a_killed_task_has_left(self) -> None:
        run = group()
        Path("place").mkdir()
        for name in GROUP.outputs:
            Path("place", name).touch()
        run.discard(3)
        run.discard(3)  # it may have left nothing
        assert sorted(path.name for path in Path("place").iterdir()) == ["2.pck", "4.pck", "5.pck"]


class TestSteps:
    def test_what_they_run(self, ledger: Ledger) -> None:
        (split,), _, (merge,) = group().layers(ledger, "r")
        assert (split.file, split.step, split.native) == ("3-split", SPLIT, ["--mem=9G"])
        assert split.words[-4:] == [".", "3", "split", "3-split"]
        assert (merge.file, merge.native, merge.group) == ("3-merge", PLAN.native, "S")

    def test_one_after_the_other(self, ledger: Ledger) -> None:
        run = group(before=[SPLIT, MERGE], after=[SEND, Step("x", ["x"])])
        assert names(run.layers(ledger, "r")) == [["split"], ["merge"], ["a", "b"], ["x"]]
        end(run, SPLIT, WELL)
        assert names(run.layers(ledger, "r")) == [["merge"], ["a", "b"], ["x"]]

    def test_one_that_needs_success_waits_for_the_tasks(self, ledger: Ledger) -> None:
        run = group()
        assert names(run.layers(ledger, "r")) == [["split"], ["a", "b"], ["merge"]]
        ledger.note_returned(2, 4)  # those of others, 0 and 1, do not count
        assert names(run.layers(ledger, "r")) == [["merge"], ["send"]]
        ledger.note_failed(4)
        assert names(run.layers(ledger, "r")) == [["merge"]]

    def test_none_before_tasks_that_have_ended(self, ledger: Ledger) -> None:
        ledger.note_returned(2, 4)
        assert names(group(after=[MERGE]).layers(ledger, "r")) == [["merge"]]

    def test_the_end(self, ledger: Ledger) -> None:
        run = group()
        ledger.note_returned(2, 4)
        assert not run.has_tasks(ledger)
        for step in (MERGE, SEND):
            assert not run.is_over(ledger)
            end(run, step, WELL)
        assert run.is_over(ledger)

    def test_the_end_without_what_needs_success(self, ledger: Ledger) -> None:
        run = group()
        ledger.note_returned(2, 3)
        ledger.note_failed(5)
        end(run, MERGE, WELL)
        assert run.is_over(ledger)

    def test_one_before_the_tasks_that_fails(self, ledger: Ledger) -> None:
        run = group()
        end(run, SPLIT, BADLY)
        assert run.problem == "job split failed: why"
        assert run.is_over(ledger)

    def test_one_after_the_tasks_may_fail_once(self, ledger: Ledger) -> None:
        run = group()
        ledger.note_returned(2, 4)
        found = [run.left]
        end(run, MERGE, BADLY)
        found.append(run.left)
        assert (run.problem, names(run.layers(ledger, "r"))) == ("", [["merge"], ["send"]])
        end(run, MERGE, BADLY)
        found.append(run.left)
        assert (run.problem, run.is_over(ledger)) == ("job merge failed: why", True)
        assert found[0] != found[1] != found[2]  # the engine sees that there is news

    def test_one_that_was_given_up_has_not_failed(self, ledger: Ledger) -> None:
        run = group()
        before = run.left
        end(run, SPLIT, NEVER)
        run.account(Job("a", "3-a-r", [], []), BADLY, "why")  # nor is a job of tasks a step
        assert (run.left, run.is_over(ledger)) == (before, False)

    def test_its_own_word_counts(self, ledger: Ledger) -> None:
        run = group()
        Path("3-split.done").touch()
        end(run, SPLIT, JobStatus("split", "done", None, "1"))  # nobody knows how it has ended
        assert names(run.layers(ledger, "r")) == [["a", "b"], ["merge"]]

    def test_those_of_an_earlier_engine(self, ledger: Ledger) -> None:
        for name in ("3-split.done", "4-merge.done"):  # the second is another group's
            Path(name).touch()
        assert names(group().layers(ledger, "r")) == [["a", "b"], ["merge"]]

    def test_those_after_tasks_that_are_run_again(self, ledger: Ledger) -> None:
        for name in ("3-split.done", "3-merge.done", "3-send.done"):
            Path(name).touch()
        run = group()
        ledger.note_returned(2, 4)
        run.reopen(ledger)
        assert run.is_over(ledger)  # nothing is run again
        run.reopen(Ledger(6, stop_at_failure=False))
        assert names(run.layers(ledger, "r")) == [["merge"], ["send"]]
        assert [path.name for path in Path().glob("*.done")] == ["3-split.done"]
