"""The jobs of treatments, made of their subjects alone: no network, no files.

The documented graph has a job for each region::

    roi_split ──► jde_r0001 ──► merge_results ──► scp_result ──► clean_files
              ──► jde_r0002 ──►
              ──► ...

The plan of a run has the same steps, and jobs that may take many regions.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyhrf_parallel.engine.plan import Plan, Step, TaskGroup
from pyhrf_parallel.treatment_jobs.region_files import CONFIG, HOME, RESULT
from pyhrf_parallel.treatment_jobs.region_task import VERBOSITY, region_command
from pyhrf_parallel.treatment_jobs.subject import Subject

SPLIT, REGION, MERGE = "roi_split", "jde_r{:04d}", "merge_results"
OUTPUT, BRING_BACK, CLEAN = "make_outputs", "scp_result", "clean_files"
_SHOWN = 3  # region jobs of a graph that are drawn
# The memory that is asked for: of Python with nilearn, and how often data are held.
_BASE_MB, _COPIES = 1000, 16


@dataclass(frozen=True)
class GraphJob:
    """A job: its name, its words, and the group that it is in."""

    name: str
    command: list[str]
    group: str


@dataclass(frozen=True)
class JobGraph:
    """Jobs that run in one place, and which of them runs before which, by their positions."""

    label: str
    directory: str
    jobs: list[GraphJob]
    dependencies: list[tuple[int, int]]

    def __str__(self) -> str:
        """Draw the graph, each job below what it waits for."""
        regions = [job for job in self.jobs if job.group == region_group(self.label)]
        lines = [self.jobs[0].name]
        shown = [job.name for job in regions[:_SHOWN]]
        if len(regions) > _SHOWN:
            shown += [f"... {regions[-1].name} ({len(regions)} jobs)"]
        for position, name in enumerate(shown):
            lines.append(f" {'└' if position == len(shown) - 1 else '├'}─► {name}")
        indent = " " * 5
        for job in self.jobs[1 + len(regions) :]:
            lines.append(f"{indent}└─► {job.name}")
            indent += " " * 5
        return "\n".join(lines)


def region_group(label: str) -> str:
    """Return the name of the group of the regions' jobs."""
    return f"{label}-roi_jobs"


def build_graph(subject: Subject) -> JobGraph:
    """Return the documented graph of a treatment: a job for each region.

    Parameters
    ----------
    subject : Subject
        The treatment, with one region at least.
    """
    label, estimate = subject.label, subject.commands.estimate
    regions = [
        GraphJob(REGION.format(roi_id), region_command(estimate, name), region_group(label))
        for roi_id, name in subject.regions.items()
    ]
    (first,), last = _steps_before(subject), _steps_after(subject)
    jobs = [
        GraphJob(first.name, first.command, label),
        *regions,
        *(GraphJob(step.name, _documented(step, subject), label) for step in last),
    ]
    n = len(regions)
    edges = [(0, job) for job in range(1, n + 1)] + [(job, n + 1) for job in range(1, n + 1)]
    edges += [(job, job + 1) for job in range(n + 1, len(jobs) - 1)]
    return JobGraph(label, subject.directory, jobs, edges)


def _documented(step: Step, subject: Subject) -> list[str]:
    """Return the command of a step, as a job of its own."""
    if step.name == BRING_BACK:
        return ["scp", RESULT, f"{subject.send_to}:{subject.result_path}"]
    return [*step.command, *(subject.results if step.takes_outputs else ())]


def _steps_before(subject: Subject) -> list[Step]:
    return [Step(SPLIT, [*subject.commands.split, "-c", CONFIG, *VERBOSITY, "-d", "./"])]


def _steps_after(subject: Subject) -> list[Step]:
    merge = Step(MERGE, ["pyhrf_pack_results", "-v1", "-o", RESULT], takes_outputs=True)
    output = [Step(OUTPUT, subject.commands.output)] if subject.commands.output else []
    if not subject.send_to:
        return [merge, *output]
    module = ["python", "-P", "-m", "pyhrf_parallel.engine.send_back"]
    values = [RESULT, subject.send_to, subject.result_path, *subject.replaceable]
    files = [CONFIG, *subject.inputs, *subject.regions.values(), *subject.results, RESULT, HOME]
    return [
        merge,
        *output,
        Step(BRING_BACK, [*module, *values]),
        # What has failed may be run again: it needs the files.
        Step(CLEAN, ["rm", "-rf", "--", *files], needs_success=True),
    ]


def add_treatments(plan: Plan, subjects: Sequence[Subject], rois_per_job: int | None) -> Plan:
    """Return a plan with the jobs of treatments.

    Parameters
    ----------
    plan : Plan
        How many jobs run at a time, and what each asks for.
    subjects : sequence of Subject
        The treatments.
    rois_per_job : int or None
        Regions of each job; None if each job takes the next one until none is left.
    """
    share = max(1, plan.jobs // len(subjects))
    groups = [make_task_group(subject, share, rois_per_job) for subject in subjects]
    return _ask_for_memory(replace(plan, groups=groups), subjects)


def make_task_group(subject: Subject, jobs: int, rois_per_job: int | None) -> TaskGroup:
    """Return the task group of a treatment.

    Parameters
    ----------
    subject : Subject
        The treatment.
    jobs : int
        How many jobs share its regions.
    rois_per_job : int or None
        See `add_treatments`.
    """
    ids, tasks = list(subject.regions), subject.tasks
    if rois_per_job is None:
        names, bounds = [f"jde_rois_{job}" for job in range(min(jobs, len(ids)))], None
    else:
        firsts = range(0, len(ids), rois_per_job)
        names = [REGION.format(ids[first]) for first in firsts]
        bounds = [min(tasks.stop, tasks.start + first + rois_per_job) for first in firsts]
    return TaskGroup(
        subject.label, tasks.start, tasks.stop, subject.directory, _steps_before(subject), _steps_after(subject),
        subject.results, names, bounds,
    )  # fmt: skip


def _ask_for_memory(plan: Plan, subjects: Sequence[Subject]) -> Plan:
    """Ask for memory by the sizes of the regions, unless somebody has said how much."""
    known = [s.roi_bytes for s in subjects if s.roi_bytes]
    if plan.scheduler != "slurm" or any(map(_is_memory, plan.native)) or not known:
        return plan
    biggest = max(map(max, known))
    native = _with_memory(plan.native, _BASE_MB + _COPIES * biggest // 10**6)
    groups = []
    for group, subject in zip(plan.groups, subjects, strict=True):
        # It holds all regions, and the images that they are made of.
        megabytes = _BASE_MB + 3 * sum(subject.roi_bytes or [biggest]) // 10**6
        split = _with_memory(plan.native, megabytes)
        groups.append(replace(group, before=[replace(s, native=split) for s in group.before]))
    return replace(plan, native=native, groups=groups)


def _is_memory(option: str) -> bool:
    return option == "--mem" or option.startswith(("--mem=", "--mem-per-"))


def _with_memory(native: Sequence[str], megabytes: int) -> list[str]:
    """Return options of ``sbatch``, none of which asks for memory, with one that does."""
    return [*native, f"--mem={megabytes}M"]


@dataclass(frozen=True)
class TreatmentPreview:
    """What `submit_treatments` would send and start; printed, it says so in words.

    Attributes
    ----------
    where : str
        ``user@host``, or this machine.
    files : dict of str to dict of str to int
        For each treatment the files that would be sent, with their sizes in bytes.
    graphs : dict of str to JobGraph
        For each treatment the documented graph, with a job for each region.
    plan : Plan
        The jobs that would be submitted, some of them with many regions.
    """

    where: str
    files: dict[str, dict[str, int]]
    graphs: dict[str, JobGraph]
    plan: Plan

    def __str__(self) -> str:
        """Say what would happen."""
        lines = [f"On {self.where}:"]
        for (name, files), group in zip(self.files.items(), self.plan.groups, strict=True):
            lines.append(f"treatment {name!r}, in {group.directory or '(the run)'}:")
            lines += [f"  send {file}, {size:,} bytes" for file, size in files.items()]
            regions = group.stop - group.start
            lines.append(f"  submit to {self.plan.scheduler}:")
            lines += [f"    {_row(step, self.plan)}" for step in group.before]
            names = group.names[0] + (f" ... {group.names[-1]}" if len(group.names) > 1 else "")
            command = self.graphs[name].jobs[1].command
            what = f"{len(group.names)} job(s) for {regions} region(s), each: {shlex.join(command)}"
            lines.append(f"    {names}{_options(self.plan.native)}: {what}")
            lines += [f"    {_row(step, self.plan)}" for step in group.after]
            lines += [f"  {line}" for line in str(self.graphs[name]).splitlines()]
        return "\n".join(lines)


def _row(step: Step, plan: Plan) -> str:
    options = _options(plan.native if step.native is None else step.native)
    return f"{step.name}{options}: {shlex.join(step.command)}"


def _options(native: list[str]) -> str:
    return f" ({' '.join(native)})" if native else ""
