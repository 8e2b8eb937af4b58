"""How many jobs a map is given, and what each asks for."""

from __future__ import annotations

from typing import Any

import pytest

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.runs.planning import make_plan, make_plan_here
from pyhrf_parallel.tasks import Options, Work, available_cpus


def work(tasks: int = 5, **options: Any) -> Work:
    return Work(len, [()] * tasks, [{}] * tasks, Options(**options))


@pytest.mark.parametrize(
    ("n_jobs", "jobs"), [(None, 3), (2, 2), (9, 5), (-1, 3)]  # no CPUs are counted from afar
)  # fmt: skip
def test_jobs(n_jobs: int | None, jobs: int) -> None:
    assert make_plan(Configuration(max_jobs=3), work(n_jobs=n_jobs)).jobs == jobs
    assert make_plan(Configuration(max_jobs=3), work(1, n_jobs=n_jobs)).jobs == 1


@pytest.mark.parametrize(
    ("n_jobs", "nb_procs", "jobs"),
    [(None, 3, 3), (2, 3, 2), (9, 3, 5), (-1, 3, min(5, available_cpus())), (None, -999, 1)],
)
def test_jobs_here(n_jobs: int | None, nb_procs: int, jobs: int) -> None:
    plan = make_plan_here(Configuration(nb_procs=nb_procs, mem="9G"), work(n_jobs=n_jobs))
    assert (plan.jobs, plan.scheduler, plan.native) == (jobs, "local_basic", [])


def test_what_jobs_ask_for() -> None:
    settings = Configuration(
        mem="1G", cpus=2, queue="long", native_specification="-A 'my account'", setup="x\n"
    )
    plan = make_plan(settings, work(resources={"mem": "4G", "time": "10", "queue": "short"}))
    assert sorted(plan.native[:3]) == ["--cpus-per-task=2", "--mem=4G", "--time=10"]
    assert plan.native[3:] == ["-A", "my account"]
    assert (plan.queue, plan.setup) == ("short", "x\n")
    assert make_plan(settings, work()).queue == "long"
    bare = make_plan(Configuration(), work())
    assert (bare.native, bare.queue, bare.setup) == ([], None, "")


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_what_a_failure_does(on_error: str) -> None:
    for make in (make_plan, make_plan_here):
        plan = make(Configuration(), work(on_error=on_error, retries=2))
        assert (plan.stop_at_failure, plan.retries) == (on_error == "raise", 2)
        assert (plan.tasks, plan.attached) == (5, False)


def test_what_other_schedulers_ask_for() -> None:
    settings = Configuration(scheduler="pbspro", queue="q", native_specification="-l x=1")
    plan = make_plan(settings, work())
    assert (plan.native, plan.queue) == (["-l", "x=1"], "q")
    with pytest.raises(ConfigurationError, match=r"^mem, cpus cannot be translated.*'pbspro'"):
        make_plan(settings, work(resources={"mem": "1G", "cpus": 1}))
    here = Configuration(scheduler="local_basic", mem="1G")  # nobody to ask
    assert make_plan(here, work()).native == []
