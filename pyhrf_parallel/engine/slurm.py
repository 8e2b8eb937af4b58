"""Slurm's language: command lines for it, and what its answers mean. Nothing is run here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# States of a job that soma-workflow does not know, and those that it takes for them.
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
_BLAMELESS = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
# Messages of a controller that is busy, restarting or out of reach.
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
# Messages of Slurm's daemons on a job's stderr when they kill it for its memory, whatever its state.
_OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory")
_COLUMNS = {
    "JobID": 20,
    "State": 20,
    "exit_code": 12,
    "Reason": 80,
    "BatchHost": 80,
    "RestartCnt": 12,
}
_OVER = {"COMPLETED", *_FAILURES}
_SUBMITTED = re.compile(
    r"Submitted batch job (\d+)(?: on cluster (\S+))?|^(\d+)(?:;(\S+))?$", re.MULTILINE
)

#: The command that lists the partitions.
LIST_QUEUES = ("sinfo", "--noheader", "--format=%R")


@dataclass(frozen=True)
class SlurmJob:
    """The state of a job in Slurm's words; `exit_value` is negative for a signal, as in `subprocess`."""

    state: str
    exit_value: int
    reason: str
    node: str
    restarts: int = 0

    @property
    def is_blameless(self) -> bool:
        """Whether it ended through no fault of its own."""
        return self.state in _BLAMELESS

    @property
    def is_back(self) -> bool:
        """Whether it ran before and waits again, because Slurm put it back into the queue."""
        return self.restarts > 0 and _SAME.get(self.state, self.state) == "PENDING"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in _OVER

    @property
    def failure(self) -> str:
        """Why the job failed, in words for the user; empty if it did not fail."""
        if self.state not in _FAILURES:
            return ""
        text = _FAILURES[self.state]
        if self.reason not in ("", "None", "NonZeroExitCode", "TimeLimit", "OutOfMemory"):
            text += f" ({self.reason})"
        return f"{text} on {self.node}" if self.node else text


def parse_job_id(text: str) -> str:
    """Read the id of a job from the output of ``sbatch``; empty if there is none.

    Examples
    --------
    >>> parse_job_id('Submitted batch job 12')
    '12'
    >>> parse_job_id('Submitted batch job 12 on cluster north') == parse_job_id('12;north') == '12;north'
    True
    """
    found = _SUBMITTED.search(text)
    if found is None:
        return ""
    number, cluster = found[1] or found[3], found[2] or found[4]
    return f"{number};{cluster}" if cluster else number


def job_number(job_id: str) -> str:
    """Return the number of a job on its own cluster."""
    return job_id.partition(";")[0]


def by_cluster(job_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the jobs of each cluster; the name of the default one is empty."""
    found: dict[str, list[str]] = {}
    for job_id in job_ids:
        found.setdefault(job_id.partition(";")[2], []).append(job_id)
    return found


def _on(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def status_command(job_ids: Iterable[str], cluster: str = "") -> list[str]:
    """Return the command that prints the state of jobs of one cluster, including those that ended recently."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    jobs = ",".join(map(job_number, job_ids))
    words = ["squeue", "--noheader", "--states=all", f"--jobs={jobs}", f"--Format={columns}"]
    return words + _on(cluster)


def cancel_commands(job_ids: Iterable[str]) -> list[list[str]]:
    """Return the commands that cancel jobs, one for each cluster."""
    groups = by_cluster(job_ids).items()
    return [["scancel", *_on(cluster), *map(job_number, ids)] for cluster, ids in groups]


def parse_jobs(text: str, cluster: str = "") -> dict[str, SlurmJob]:
    """Read the output of `status_command`: the jobs by their ids."""
    jobs = {}
    for line in text.splitlines():
        fields, start = [], 0
        for width in _COLUMNS.values():
            fields.append(line[start : start + width].strip())
            start += width
        number, state, status, reason, node, restarts = fields
        if number.isdigit():
            exit_value = os.waitstatus_to_exitcode(int(status or 0))
            job_id = f"{number};{cluster}" if cluster else number
            jobs[job_id] = SlurmJob(state, exit_value, reason, node, int(restarts or 0))
    return jobs


def as_soma_row(job: SlurmJob) -> dict[str, Any]:
    """Return the row of ``sacct`` that soma-workflow's adapter expects, whose exit and signal it swaps."""
    state, signal = _SAME.get(job.state, job.state), max(0, -job.exit_value)
    exit_value = job.exit_value if job.exit_value >= 0 else 128 + signal
    if state in _FAILURES:
        state, exit_value = "COMPLETED", exit_value or 1  # and not well, as the codes say
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


#: The option of ``sbatch`` for the CPUs of a job.
CPUS = "--cpus-per-task"


def options(resources: Mapping[str, Any]) -> list[str]:
    """Translate resources to options of ``sbatch``."""
    names = {"mem": "--mem", "time": "--time", "cpus": CPUS}
    return [f"{names[key]}={value}" for key, value in resources.items() if key in names]


_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # of --mem, in MB


def with_more_memory(native: list[str], factor: int) -> list[str]:
    """Return options of ``sbatch`` with `factor` times the memory, if they ask for memory."""
    asked = re.compile(r"--mem=(\d+)([KMGT]?)")
    return [
        f"--mem={math.ceil(int(m[1]) * _UNITS[m[2] or 'M'] * factor)}M"
        if factor > 1 and (m := asked.fullmatch(option))
        else option
        for option in native
    ]


def killed_for_memory(log: str, reason: str) -> str:
    """Return the reason if Slurm killed a job for its memory, by its state or its log; else an empty text."""
    memory = _FAILURES["OUT_OF_MEMORY"]
    return memory if memory in reason or any(text in log for text in _OUT_OF_MEMORY) else ""


def is_transient(message: str) -> bool:
    """Whether the problem that a Slurm command reports is likely to go away by itself."""
    return any(text in message for text in _TRANSIENT)
