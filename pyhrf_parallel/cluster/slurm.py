"""What soma-workflow's Slurm adapter needs to tell the truth: pure builders and parsers, and their use.

It asks ``sacct`` for each job, needs accounting and a field that many clusters lack, swaps exit value and
signal, takes a cancelled job for a suspended one, and tries to submit just once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# States of `scontrol` that have an equal among those that soma-workflow knows.
_SAME = {
    "COMPLETING": "RUNNING",
    "STAGE_OUT": "RUNNING",
    "CONFIGURING": "PENDING",
    "REQUEUED": "PENDING",
    "REQUEUE_HOLD": "PENDING",
    "REQUEUE_FED": "PENDING",
    "SPECIAL_EXIT": "PENDING",
    "RESV_DEL_HOLD": "PENDING",
    "SIGNALING": "RUNNING",
    "RESIZING": "RUNNING",
    "STOPPED": "SUSPENDED",
}
_FAILURES = {
    "FAILED": "it failed",
    "CANCELLED": "it was cancelled (scancel)",
    "TIMEOUT": "it reached its time limit",
    "OUT_OF_MEMORY": "it used more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "a job of higher priority took its place",
    "DEADLINE": "it reached its deadline",
    "REVOKED": "another cluster took it",
}
#: What the commands say when the controller is busy, restarting, or cannot be heard.
_TRANSIENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
    "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Transport endpoint is not connected",
    "slurm_receive_msg",
    "Slurm controller not responding",
)
_PAUSES = (1, 2, 4, 8, 15, 30, 30, 30)  # seconds between tries


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job."""

    state: str
    exit_value: int
    signal: int
    reason: str
    node: str

    @property
    def failure(self) -> str:
        """Why the job failed, for a person; empty while it has not."""
        if self.state not in _FAILURES:
            return ""
        text = _FAILURES[self.state]
        told = self.reason not in ("", "None", "NonZeroExitCode", "TimeLimit", "OutOfMemory")
        return (
            f"{text}{f' ({self.reason})' if told else ''}{f' on {self.node}' if self.node else ''}"
        )


def parse_jobs(text: str) -> dict[str, JobState]:
    """Read the output of ``scontrol --details --oneliner show jobs``, by job id."""
    jobs = {}
    for line in text.splitlines():
        # The first of a key counts: a job's name or command may contain others.
        fields: dict[str, str] = {}
        for word in line.split():
            key, equals, value = word.partition("=")
            if equals:
                fields.setdefault(key, value)
        if "JobId" in fields and "JobState" in fields:
            exit_value, signal = _exit_code(fields)
            state, node = fields["JobState"], fields.get("BatchHost", "")
            jobs[fields["JobId"]] = JobState(
                state, exit_value, signal, fields.get("Reason", ""), node
            )
    return jobs


def _exit_code(fields: Mapping[str, str]) -> tuple[int, int]:
    derived, own = fields.get("DerivedExitCode", "0:0"), fields.get("ExitCode", "0:0")
    value, _, signal = (own if derived == "0:0" else derived).partition(":")
    return int(value), int(signal or 0)


def as_soma_row(job: JobState) -> dict[str, Any]:
    """Return what soma-workflow's adapter expects of ``sacct``, exit and signal where it reads them."""
    state, exit_value, signal = _SAME.get(job.state, job.state), job.exit_value, job.signal
    if state in _FAILURES:
        state = "COMPLETED"  # and not well, as the codes say
        if signal and not exit_value:
            exit_value = 128 + signal
        exit_value = exit_value or 1
    return {
        "job_state": state,
        "Exit_status": signal,
        "Return_code": exit_value,
        "TotalCPU": None,
        "MaxRSS": None,
        "TimeLimit": None,
        "Output_Path": None,
        "NCPUS": None,
    }


def options(resources: Mapping[str, Any]) -> list[str]:
    """Translate resources to options of ``sbatch``."""
    names = {"mem": "--mem", "time": "--time", "cpus": "--cpus-per-task"}
    return [f"{names[key]}={value}" for key, value in resources.items() if key in names]


def is_transient(message: str) -> bool:
    """Tell whether a message of a Slurm command is one that goes away by itself."""
    return any(text in message for text in _TRANSIENT)


class Commands:
    """Slurm's commands, asked seldom and again when the controller is away."""

    def __init__(self, refresh: float, run: Callable[..., Any] = subprocess.run) -> None:
        self._refresh = refresh
        self._run = run
        self._jobs: dict[str, JobState] = {}
        self._asked = -1e9
        #: What sbatch said of jobs that it refused, by job name.
        self.refusals: dict[str, str] = {}

    def call(self, argv: list[str]) -> tuple[str, str]:
        """Run a command; return its output and, if it failed, what it said."""
        error = ""
        for pause in (*_PAUSES, None):
            done = self._run(argv, capture_output=True, text=True, errors="replace", check=False)
            error = (done.stderr + done.stdout).strip()
            if done.returncode == 0:
                return done.stdout, ""
            if pause is None or not is_transient(error):
                break
            time.sleep(pause)
        return "", error or "no reason given"

    def job(self, job_id: str) -> JobState | None:
        """Return what is known of a job; all jobs are asked for at once, and not too often."""
        if time.monotonic() - self._asked > self._refresh:
            out, error = self.call(["scontrol", "--details", "--oneliner", "show", "jobs"])
            if not error:  # else what was known holds until the controller is back
                self._jobs |= parse_jobs(out)
            self._asked = time.monotonic()
        return self._jobs.get(job_id)

    def cancel(self, job_ids: list[str]) -> None:
        """Cancel jobs, those that have ended already too."""
        if job_ids:
            self.call(["scancel", *job_ids])


def adapt(commands: Commands) -> None:
    """Let soma-workflow's Slurm adapter, in this process, ask and submit through `commands`."""
    from soma_workflow.schedulers import slurm_scheduler

    def extended_status(_self: Any, job_id: Any) -> dict[str, Any]:
        job = commands.job(str(job_id)) if job_id is not None else None
        if job is None:
            raise LookupError(
                f"Slurm does not know job {job_id}"
            )  # its status is undetermined then
        return as_soma_row(job)

    def run_job(self: Any, script_file: str | None = None, **_: Any) -> str | None:
        out, error = commands.call(self.sbatch_command(script_file or self.build_slurm_script()))
        if error:
            commands.refusals[self.jobName] = error
            return None
        return out.split()[-1]

    slurm_scheduler.SlurmScheduler.get_job_extended_status = extended_status
    slurm_scheduler.JobTemplate.run_job = run_job
