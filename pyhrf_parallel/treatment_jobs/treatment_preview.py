"""What treatments would send and start, without a connection."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.treatment_jobs.graph import Description, JobGraph, build_graph


@dataclass(frozen=True)
class TreatmentPreview:
    """What `submit_treatments` would send and start; printed, it says so in words.

    Attributes
    ----------
    where : str
        ``user@host``, or this machine.
    files : dict of str to dict of str to int
        For each treatment what would be sent, with sizes in bytes.
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
            lines.append(f"treatment {name!r}, in {group.directory}:")
            lines += [f"  send {file}, {size:,} bytes" for file, size in files.items()]
            regions = group.stop - group.start
            lines.append(f"  submit to {self.plan.scheduler}:")
            lines += [f"    {_row(s.name, s.native, s.command, self.plan)}" for s in group.before]
            names = group.names[0] + (f" ... {group.names[-1]}" if len(group.names) > 1 else "")
            command = self.graphs[name].jobs[1].command
            what = f"{len(group.names)} job(s) for {regions} region(s), each: {shlex.join(command)}"
            lines.append(f"    {names}{_options(self.plan.native)}: {what}")
            lines += [f"    {_row(s.name, s.native, s.command, self.plan)}" for s in group.after]
            lines += [f"  {line}" for line in str(self.graphs[name]).splitlines()]
        return "\n".join(lines)


def _row(name: str, native: list[str] | None, command: list[str], plan: Plan) -> str:
    return f"{name}{_options(plan.native if native is None else native)}: {shlex.join(command)}"


def _options(native: list[str]) -> str:
    return f" ({' '.join(native)})" if native else ""


def preview(
    where: str, files: dict[str, dict[str, int]], described: dict[str, Description], plan: Plan
) -> TreatmentPreview:
    """Return what would happen."""
    graphs = {name: build_graph(what) for name, what in described.items()}
    return TreatmentPreview(where, files, graphs, plan)
