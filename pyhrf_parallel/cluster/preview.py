"""What a run would send and start, without a connection."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyhrf_parallel.cluster.layout import PLAN
from pyhrf_parallel.cluster.manifests import new_run_id
from pyhrf_parallel.cluster.planning import check_resources, make_plan
from pyhrf_parallel.cluster.remote import RUNS, SITE
from pyhrf_parallel.cluster.resources import with_resource
from pyhrf_parallel.cluster.ssh import find_address
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker import PAYLOAD, command


@dataclass(frozen=True)
class Preview:
    """What `submit_map` would send and start; printed, it says so in words.

    Attributes
    ----------
    server : str
        ``user@host``.
    directory : str
        Of the run, on the cluster.
    files : dict of str to int
        What would be sent, with sizes in bytes.
    commands : list of list of str
        What would be run on the login node.
    jobs : int
        How many would be submitted.
    job_command : list of str
        What each of them would run, in `directory`.
    scheduler : str
        soma-workflow's name of it.
    job_options : list of str
        What it would be asked for, per job.
    """

    server: str
    directory: str
    files: dict[str, int]
    commands: list[list[str]]
    jobs: int
    job_command: list[str]
    scheduler: str
    job_options: list[str]

    def __str__(self) -> str:
        """Say what would happen."""
        lines = [f"On {self.server}, in {self.directory}:"]
        lines += [f"  send {name}, {size:,} bytes" for name, size in self.files.items()]
        lines += [f"  run {shlex.join(command)}" for command in self.commands]
        asked = f", each with {' '.join(self.job_options)}" if self.job_options else ""
        lines.append(f"  submit {self.jobs} job(s) to {self.scheduler}{asked}:")
        lines.append(f"      {shlex.join(self.job_command)}")
        return "\n".join(lines)


def preview_run(work: Work, configuration: Configuration) -> Preview:
    """Say what `start_run` would do, without a connection."""
    settings = with_resource(configuration)
    assert settings.server is not None  # noqa: S101  (with_resource sees to it)
    address = find_address(
        settings.server, user=settings.user, port=settings.port, identity=settings.identity_file
    )
    resources = check_resources(work.options.resources)
    with private_directory() as place:
        write_payload(place / PAYLOAD, work, for_here=False)
        plan = make_plan(settings, work, resources).with_payload(place / PAYLOAD)
        files = {PAYLOAD: (place / PAYLOAD).stat().st_size, PLAN: len(plan.dumps())}
    directory = f"{settings.remote_path}/{RUNS}/{new_run_id()}"
    queue = [f"--partition={plan.queue}"] if plan.queue and plan.scheduler == "slurm" else []
    return Preview(
        str(address),
        directory,
        files,
        [[settings.remote_python, "-P", "-m", SITE, name, "..."] for name in ("prepare", "start")],
        plan.jobs,
        [settings.remote_python, *command(".", "job-NUMBER")[1:]],
        plan.scheduler,
        queue + plan.native,
    )
