"""What soma-workflow's Slurm adapter needs to tell the truth: pure builders and parsers, and their use.

It asks ``sacct`` for each job, needs accounting and a field that many clusters lack, swaps exit value and
signal, takes a cancelled job for a suspended one, and tries to submit just once.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyhrf_parallel.worker.run_paths import RunPaths

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
_BLAMELESS = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
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
#: What its daemons write to a job's stderr when they kill it for its memory, whatever the state says.
_OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory")
_PAUSES = (1, 2, 4, 8, 15, 30, 30, 30)  # seconds between tries


_COLUMNS = {
    "JobID": 20,
    "State": 20,
    "exit_code": 12,
    "DerivedEC": 12,
    "Reason": 80,
    "BatchHost": 80,
    "RestartCnt": 12,
}


_OVER = {"COMPLETED", *_FAILURES}
_LONGEST = 15  # seconds between two questions for the same jobs

#: The command that lists the partitions.
LIST_QUEUES = ("sinfo", "--noheader", "--format=%R")


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm says of a job; `exit_value` is negative for a signal, as in `subprocess`."""

    state: str
    exit_value: int
    reason: str
    node: str
    restarts: int = 0

    @property
    def is_blameless(self) -> bool:
        """Whether it has ended for nothing that it did."""
        return self.state in _BLAMELESS

    @property
    def is_back(self) -> bool:
        """Whether it has run, and waits again: Slurm has put it back into the queue."""
        return self.restarts > 0 and _SAME.get(self.state, self.state) == "PENDING"

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


# Its records tell what it did.
_FORGOTTEN = SlurmJob("COMPLETED", 0, "", "")


def status_command(job_ids: Iterable[str]) -> list[str]:
    """Return the command that asks for jobs, those that ended lately too."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    ids = ",".join(job_ids)
    return ["squeue", "--noheader", "--states=all", f"--jobs={ids}", f"--Format={columns}"]


def parse_jobs(text: str) -> dict[str, SlurmJob]:
    """Read the output of `status_command`, by job id."""
    jobs = {}
    for line in text.splitlines():
        fields, start = [], 0
        for width in _COLUMNS.values():
            fields.append(line[start : start + width].strip())
            start += width
        job_id, state, own, derived, reason, node, restarts = fields
        if job_id.isdigit():
            status = int(own or 0) or int(derived or 0)
            exit_value = os.waitstatus_to_exitcode(status)
            jobs[job_id] = SlurmJob(state, exit_value, reason, node, int(restarts or 0))
    return jobs


def as_soma_row(job: SlurmJob) -> dict[str, Any]:
    """Return what soma-workflow's adapter expects of ``sacct``, exit and signal where it reads them."""
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


def options(resources: Mapping[str, Any]) -> list[str]:
    """Translate resources to options of ``sbatch``."""
    names = {"mem": "--mem", "time": "--time", "cpus": "--cpus-per-task"}
    return [f"{names[key]}={value}" for key, value in resources.items() if key in names]


_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # of --mem, in MB


def with_more_memory(native: list[str], factor: int) -> list[str]:
    """Return options of ``sbatch`` that ask for a multiple of the memory, where they ask for some."""
    asked = re.compile(r"--mem=(\d+)([KMGT]?)")
    return [
        f"--mem={math.ceil(int(m[1]) * _UNITS[m[2] or 'M'] * factor)}M"
        if factor > 1 and (m := asked.fullmatch(option))
        else option
        for option in native
    ]


def killed_for_memory(log: str, reason: str) -> str:
    """Return the reason if Slurm says so, of the job or in its log, else nothing."""
    told = _FAILURES["OUT_OF_MEMORY"]
    return told if told in reason or any(text in log for text in _OUT_OF_MEMORY) else ""


def is_transient(message: str) -> bool:
    """Return whether a message of a Slurm command is one that goes away by itself."""
    return any(text in message for text in _TRANSIENT)


class Commands:
    """Slurm's commands, asked seldom and again when the controller is away."""

    def __init__(self, refresh: float) -> None:
        self._refresh = refresh
        self._known: dict[str, SlurmJob | None] = {}
        self._began = time.monotonic()
        self._asked = -1e9
        #: What sbatch said of jobs that it refused, by job name.
        self.refusals: dict[str, str] = {}
        #: What sbatch says of jobs while it tries, by job name.
        self.complaints: dict[str, str] = {}
        self._trying: dict[str, subprocess.Popen[str]] = {}
        #: Whether nothing is to be submitted any more.
        self.closed = False

    def call(self, argv: list[str], job: str = "") -> tuple[str, str]:
        """Run a command, for a job if it submits one; return its output and, if it failed, what it said."""
        error = ""
        for pause in (*_PAUSES, None):
            status, out, told = self._run(argv, job)
            error = (told + out).strip()
            if status == 0:
                return out, ""
            if pause is None or not is_transient(error) or (job and self.closed):
                break
            time.sleep(pause)
        return "", error or "no reason given"

    def _run(self, argv: list[str], job: str) -> tuple[int, str, str]:
        """Run a command once; return its exit status, its output, and what it said of errors."""
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None  # noqa: S101
            assert process.stderr is not None  # noqa: S101
            told = ""
            for line in process.stderr if job else ():
                self.complaints[job], told = line, told + line
                self._trying[job] = process  # for minutes
                if self.closed:
                    process.kill()
            out, rest = process.communicate()
        self._trying.pop(job, None)
        return process.returncode, out, told + rest

    def close(self) -> None:
        """Submit nothing any more, also what sbatch is still trying to."""
        self.closed = True
        for process in list(self._trying.values()):
            process.kill()

    def submit(self, name: str, argv: list[str]) -> str | None:
        """Submit a job; return its id, or None if it is refused."""
        out, error = self.call(argv, name)
        self.complaints.pop(name, None)
        if error:
            self.refusals[name] = error
            return None
        return out.split()[-1]

    def job(self, job_id: str) -> SlurmJob | None:
        """Return what is known of a job; all are asked for at once, the longer they last the rarer."""
        is_new = job_id not in self._known
        self._known.setdefault(job_id, None)
        now = time.monotonic()
        pause = min(_LONGEST, max(self._refresh, (now - self._began) / 20))
        if is_new or now - self._asked > pause:
            running = [i for i, job in self._known.items() if job is None or job.state not in _OVER]
            if running:
                self._ask(running)
            self._asked = time.monotonic()
        return self._known[job_id]

    def _ask(self, job_ids: list[str]) -> None:
        out, error = self.call(status_command(job_ids))
        is_refused = "Invalid job id" in error  # Slurm forgets jobs some minutes after their end
        if error and not is_refused:
            return  # what was known holds until the controller is back
        found = parse_jobs(out)
        self._known |= found
        if len(job_ids) > 1:  # of several, squeue just leaves out those that it does not know
            for job_id in job_ids:
                if job_id not in found:
                    self._ask([job_id])
        elif is_refused:
            self._known[job_ids[0]] = _FORGOTTEN

    def cancel(self, job_ids: list[str]) -> None:
        """Cancel jobs, those that have ended already too."""
        if job_ids:
            self.call(["scancel", *job_ids])


def _run_directly(script: Path) -> None:
    """Let a script run its command itself, which the adapter starts with srun.

    An srun for which the controller goes away as it starts waits for ever; and it would run the command as
    often as the job has tasks (``--ntasks``).
    """
    head, _, command = script.read_text().rpartition("\nsrun ")
    script.write_text(f"{head}\nexec {command}")


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
        if commands.closed:
            return None
        # Jobs of several treatments may have the same name.
        log = RunPaths().slurm_log(self.jobName, "%j")
        self.outputPath = self.errorPath = f"./{log}"
        # In the run's directory, which goes with the run; the adapter's own place is /tmp.
        script = script_file or self.build_slurm_script(f"./{self.jobName}.sh")
        _run_directly(Path(script))
        return commands.submit(self.jobName, self.sbatch_command(script))

    slurm_scheduler.SlurmScheduler.get_job_extended_status = extended_status
    slurm_scheduler.JobTemplate.run_job = run_job
