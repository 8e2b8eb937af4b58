"""A treatment as a task group of a run: its steps, and which job takes which regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pyhrf_parallel.engine.plan import Plan, Step, TaskGroup
from pyhrf_parallel.treatment_jobs.graph import (
    BRING_BACK,
    CLEAN,
    MERGE,
    OUTPUT,
    REGION,
    RESULT,
    SPLIT,
    Description,
    clean_command,
    merge_command,
    split_command,
)

# Of the memory that is asked for: Python with nilearn, and how often data are held.
_BASE_MB, _COPIES = 1000, 16


def make_task_group(
    what: Description, start: int, jobs: int, rois_per_job: int | None
) -> TaskGroup:
    """Return the task group of a treatment.

    Parameters
    ----------
    what : Description
        The treatment.
    start : int
        The index of its first task.
    jobs : int
        How many share its regions.
    rois_per_job : int or None
        How many regions each job has; None if it takes what is left.
    """
    ids, n = list(what.regions), len(what.regions)
    if rois_per_job is None:
        names, bounds = [f"jde_rois_{job}" for job in range(min(jobs, n))], None
    else:
        firsts = range(0, n, rois_per_job)
        names = [REGION.format(ids[first]) for first in firsts]
        bounds = [start + min(n, first + rois_per_job) for first in firsts]
    return TaskGroup(
        what.label, start, start + n, what.place,
        [Step(SPLIT, split_command(what))],
        [Step(MERGE, merge_command(), takes_outputs=True), *_last(what)],
        what.results, names, bounds,
    )  # fmt: skip


def _last(what: Description) -> list[Step]:
    output = [Step(OUTPUT, list(what.output))] if what.output else []
    if what.send_to is None:
        return output
    module = ["python", "-P", "-m", "pyhrf_parallel.engine.send_back"]
    return [
        *output,
        Step(BRING_BACK, [*module, RESULT, *what.send_to, *what.replaceable]),
        # What has failed may be run again: it needs the files.
        Step(CLEAN, clean_command(what), needs_success=True),
    ]


def _is_memory(option: str) -> bool:
    return option == "--mem" or option.startswith(("--mem=", "--mem-per-"))


def with_memory(native: Sequence[str], megabytes: int) -> list[str]:
    """Return options of ``sbatch``, none of which asks for memory, with one that does."""
    return [*native, f"--mem={megabytes}M"]


def ask_for_memory(
    plan: Plan, groups: Sequence[TaskGroup], roi_bytes: Sequence[list[int] | None]
) -> Plan:
    """Ask for memory by the sizes of the regions, where nobody else has said how much."""
    known = [sizes for sizes in roi_bytes if sizes]
    if plan.scheduler != "slurm" or any(map(_is_memory, plan.native)) or not known:
        return replace(plan, groups=list(groups))
    biggest = max(max(sizes) for sizes in known)
    native = with_memory(plan.native, _BASE_MB + _COPIES * biggest // 10**6)
    grown = []
    for group, sizes in zip(groups, roi_bytes, strict=True):
        # It holds all regions, and the images that they are made of.
        split = with_memory(plan.native, _BASE_MB + 3 * sum(sizes or [biggest]) // 10**6)
        grown.append(replace(group, before=[replace(s, native=split) for s in group.before]))
    return replace(plan, native=native, groups=grown)
