"""Which job takes which regions, and what it asks for."""

from __future__ import annotations

import pytest

from pyhrf_parallel.engine.plan import Plan, TaskGroup
from pyhrf_parallel.treatment_jobs.graph import add_treatments, make_task_group
from pyhrf_parallel.treatment_jobs.subject import Subject


def subject(regions: int, roi_shapes: list[tuple[int, int]] | None = None) -> Subject:
    files = {label: f"roidata_{label:04d}.pck" for label in range(1, regions + 1)}
    return Subject("one", "L", files, "/place", first_task=10, roi_shapes=roi_shapes)


def group(regions: int, jobs: int, rois_per_job: int | None) -> TaskGroup:
    return make_task_group(subject(regions), jobs, rois_per_job)


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


def ask(plan: Plan, *voxels: int) -> Plan:
    """Plan the jobs of regions with ten scans each."""
    shapes = [(10, n) for n in voxels] or None
    return add_treatments(plan, [subject(3, shapes)], None)


def test_memory_by_the_biggest_region() -> None:
    asked = ask(plan("--time=10"), 1_250_000, 625_000, 12_500)
    assert asked.native == ["--time=10", "--mem=2600M"]
    assert asked.groups[0].before[0].native == ["--time=10", "--mem=1453M"]


@pytest.mark.parametrize("said", [["--mem=2G"], ["--mem", "2G"], ["--mem-per-cpu=2G"]])
def test_memory_that_somebody_has_said(said: list[str]) -> None:
    assert ask(plan(*said), 10**7, 10**7, 10**7).native == said


def test_memory_that_nobody_can_tell() -> None:
    assert ask(plan()).native == []
    assert ask(plan(scheduler="local_basic"), 10**7, 10**7, 10**7).native == []
