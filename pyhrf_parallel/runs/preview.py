"""A dry run: what a map would send and start, without a connection."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.cluster import AGENT
from pyhrf_parallel.runs.here import directory_of_runs
from pyhrf_parallel.runs.manifests import new_run_id
from pyhrf_parallel.runs.planning import make_plan, make_plan_here
from pyhrf_parallel.runs.remote import RUNS
from pyhrf_parallel.runs.soma_config import with_resource
from pyhrf_parallel.runs.ssh import find_address
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker.launch import worker_command
from pyhrf_parallel.worker.run_paths import RunPaths


@dataclass(frozen=True)
class Preview:
    """What `submit_map` would send and start; printed, it is readable text.

    Attributes
    ----------
    server : str
        ``user@host``.
    directory : str
        The directory of the run there.
    files : dict of str to int
        Sizes in bytes of the files that would be sent.
    commands : list of list of str
        The commands that would run on the login node.
    jobs : int
        The number of jobs that would be submitted.
    job_command : list of str
        The command of each job, which runs in `directory`.
    scheduler : str
        The name of the scheduler.
    job_options : list of str
        The options of each job for the scheduler.
    modules : dict of str to int
        The files of your own modules that the payload would hold, with sizes in bytes.
    """

    server: str
    directory: str
    files: dict[str, int]
    commands: list[list[str]]
    jobs: int
    job_command: list[str]
    scheduler: str
    job_options: list[str]
    modules: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the preview as text."""
        lines = [f"On {self.server}, in {self.directory}:"]
        lines += [f"  send {name}, {size:,} bytes" for name, size in self.files.items()]
        lines += [f"    with {name}, {size:,} bytes" for name, size in self.modules.items()]
        lines += [f"  run {shlex.join(command)}" for command in self.commands]
        asked = f", each with {' '.join(self.job_options)}" if self.job_options else ""
        lines.append(f"  submit {self.jobs} job(s) to {self.scheduler}{asked}:")
        lines.append(f"      {shlex.join(self.job_command)}")
        return "\n".join(lines)


def preview_run(work: Work, configuration: Configuration) -> Preview:
    """Return what `start_run` would do, without a connection."""
    if not configuration.has_cluster:
        plan, files, _ = _files(work, make_plan_here(configuration, work), for_here=True)
        directory = str(directory_of_runs() / new_run_id())
        job = worker_command(".", "JOB", "supervise", "CLAIMS")
        return Preview("this machine", directory, files, [], plan.jobs, job, plan.scheduler, [])
    settings = with_resource(configuration)
    assert settings.server is not None  # noqa: S101  (with_resource sees to it)
    address = find_address(
        settings.server, user=settings.user, port=settings.port, identity=settings.identity_file
    )
    plan, files, modules = _files(work, make_plan(settings, work), for_here=False)
    queue = [f"--partition={plan.queue}"] if plan.queue and plan.scheduler == "slurm" else []
    return Preview(
        str(address),
        f"{settings.remote_path}/{RUNS}/{new_run_id()}",
        files,
        [[settings.remote_python, "-P", "-m", AGENT, name, "..."] for name in ("prepare", "start")],
        plan.jobs,
        [settings.remote_python, *worker_command(".", "JOB", "supervise", "CLAIMS")[1:]],
        plan.scheduler,
        queue + plan.native,
        modules,
    )


def _files(
    work: Work, plan: Plan, *, for_here: bool
) -> tuple[Plan, dict[str, int], dict[str, int]]:
    """Return a plan, and what would be sent for it, with the modules in it; sizes in bytes."""
    with private_directory() as place:
        names, payload = RunPaths(), Path(RunPaths(place).payload)
        needs = write_payload(payload, work, for_here=for_here)
        plan = plan.with_payload(payload)
        files = {names.payload: payload.stat().st_size, names.plan: len(plan.dumps())}
        return plan, files, needs.sizes()
