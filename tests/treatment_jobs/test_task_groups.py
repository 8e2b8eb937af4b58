"""Which job takes which regions, and what it asks for."""

from __future__ import annotations

import pytest

from pyhrf_parallel.engine.plan import Plan, TaskGroup
from pyhrf_parallel.treatment_jobs.graph import Description
from pyhrf_parallel.treatment_jobs.task_groups import ask_for_memory, make_task_group


def group(regions: int, jobs: int, rois_per_job: int | None) -> TaskGroup:
    files = {label: f"roidata_{label:04d}.pck" for label in range(1, regions + 1)}
    return make_task_group(Description("L", files, "/place", ["x"]), 10, jobs, rois_per_job)


def test_jobs() -> None:
    shared = group(5, 3, None)
    assert (shared.start, shared.stop, shared.bounds) == (10, 15, None)
    assert shared.names == ["jde_rois_0", "jde_rois_1", "jde_rois_2"]
    assert group(2, 3, None).names == ["jde_rois_0", "jde_rois_1"]
    one_each = group(3, 2, 1)
    assert one_each.names == ["jde_r0001", "jde_r0002", "jde_r0003"]
    assert one_each.bounds == [11, 12, 13]
    assert group(5, 2, 2).bounds == [12, 14, 15]


def plan(*native: str, scheduler: str = "slurm") -> Plan:
    return Plan(3, 2, stop_at_failure=False, scheduler=scheduler, native=list(native))


def test_memory_by_the_biggest_region() -> None:
    sizes = [100_000_000, 50_000_000, 1_000_000]
    asked = ask_for_memory(plan("--time=10"), [group(3, 2, None)], [sizes])
    assert asked.native == ["--time=10", "--mem=2600M"]
    assert asked.groups[0].before[0].native == ["--time=10", "--mem=1453M"]


@pytest.mark.parametrize("said", [["--mem=2G"], ["--mem", "2G"], ["--mem-per-cpu=2G"]])
def test_memory_that_somebody_has_said(said: list[str]) -> None:
    assert ask_for_memory(plan(*said), [group(3, 2, None)], [[10**9] * 3]).native == said


def test_memory_that_nobody_can_tell() -> None:
    assert ask_for_memory(plan(), [group(3, 2, None)], [None]).native == []
    here = plan(scheduler="local_basic")
    assert ask_for_memory(here, [group(3, 2, None)], [[10**9] * 3]).native == []
