"""Slurm's commands, run for soma-workflow, whose own adapter for Slurm gets much of it wrong.

It asks ``sacct`` for each job, needs accounting and a field that many clusters lack, swaps exit value and
signal, takes a cancelled job for a suspended one, and tries to submit just once.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from pyhrf_parallel.engine import slurm
from pyhrf_parallel.engine.slurm import SlurmJob
from pyhrf_parallel.worker.run_paths import RunPaths

_PAUSES = (1, 2, 4, 8, 15, 30, 30, 30)  # seconds between tries
_LONGEST = 15  # seconds between two questions for the same jobs
# A job that Slurm has forgotten: its records say what it did.
_FORGOTTEN = SlurmJob("COMPLETED", 0, "", "")


class Commands:
    """Runs Slurm's commands: not too often, and again when the controller is away.

    Parameters
    ----------
    refresh : float
        Seconds between two questions for the same jobs, at least.

    Attributes
    ----------
    refusals : dict of str to str
        The errors of ``sbatch`` for jobs that it refused, by job name.
    complaints : dict of str to str
        The last message of ``sbatch`` for jobs that it is still trying to submit, by job name.
    closed : bool
        Whether nothing may be submitted any more.
    """

    def __init__(self, refresh: float) -> None:
        self._refresh = refresh
        self._known: dict[str, SlurmJob | None] = {}
        self._began = time.monotonic()
        self._asked = -1e9
        self.refusals: dict[str, str] = {}
        self.complaints: dict[str, str] = {}
        self._trying: dict[str, subprocess.Popen[str]] = {}
        self.closed: bool = False

    def call(self, argv: list[str], job: str = "") -> tuple[str, str]:
        """Run a command, which may submit a job of that name; return its output, and its error if it failed."""
        error = ""
        for pause in (*_PAUSES, None):
            status, out, err = self._run(argv, job)
            error = (err + out).strip()
            if status == 0:
                return out, ""
            if pause is None or not slurm.is_transient(error) or (job and self.closed):
                break
            time.sleep(pause)
        return "", error or "no reason given"

    def _run(self, argv: list[str], job: str) -> tuple[int, str, str]:
        """Run a command once; return its exit status, stdout and stderr."""
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None  # noqa: S101
            assert process.stderr is not None  # noqa: S101
            err = ""
            for line in process.stderr if job else ():
                self.complaints[job], err = line, err + line
                self._trying[job] = process  # for minutes
                if self.closed:
                    process.kill()
            out, rest = process.communicate()
        self._trying.pop(job, None)
        return process.returncode, out, err + rest

    def close(self) -> None:
        """Submit no more jobs, including those that ``sbatch`` is still trying to submit."""
        self.closed = True
        for process in list(self._trying.values()):
            process.kill()

    def submit(self, name: str, argv: list[str]) -> str | None:
        """Submit a job; return its id, or None if it is refused."""
        out, error = self.call(argv, name)
        self.complaints.pop(name, None)
        job_id = slurm.parse_job_id(out)
        if not job_id:
            self.refusals[name] = (
                error or f"sbatch gave no job number: {out.strip() or 'no output'}"
            )
        return job_id or None

    def job(self, job_id: str) -> SlurmJob | None:
        """Return the last known state of a job. All are asked for at once, less often the longer the run lasts."""
        is_new = job_id not in self._known
        self._known.setdefault(job_id, None)
        now = time.monotonic()
        pause = min(_LONGEST, max(self._refresh, (now - self._began) / 20))
        if is_new or now - self._asked > pause:
            running = [i for i, job in self._known.items() if job is None or not job.is_over]
            for cluster, job_ids in slurm.by_cluster(running).items():
                self._ask(job_ids, cluster)
            self._asked = time.monotonic()
        return self._known[job_id]

    def _ask(self, job_ids: list[str], cluster: str) -> None:
        out, error = self.call(slurm.status_command(job_ids, cluster))
        is_refused = "Invalid job id" in error  # Slurm forgets jobs some minutes after their end
        if error and not is_refused:
            return  # the controller is away: the last known state has to do
        found = slurm.parse_jobs(out, cluster)
        self._known |= found
        if len(job_ids) > 1:  # squeue leaves out those of several that it does not know
            for job_id in job_ids:
                if job_id not in found:
                    self._ask([job_id], cluster)
        elif is_refused or (cluster and not found):
            self._known[job_ids[0]] = _FORGOTTEN

    def cancel(self, job_ids: list[str]) -> None:
        """Cancel jobs; some may have ended already."""
        for argv in slurm.cancel_commands(job_ids):
            self.call(argv)


def _run_directly(script: Path) -> None:
    """Make a script run its command itself instead of with ``srun``, as the adapter wrote it.

    If the controller goes away while an srun starts, it waits for ever; and it would run the command once per
    task of the job (``--ntasks``).
    """
    head, _, command = script.read_text().rpartition("\nsrun ")
    script.write_text(f"{head}\nexec {command}")


def adapt(commands: Commands) -> None:
    """Make soma-workflow's Slurm adapter in this process use `commands`."""
    from soma_workflow.schedulers import slurm_scheduler

    def extended_status(_self: Any, job_id: Any) -> dict[str, Any]:
        job = commands.job(str(job_id)) if job_id is not None else None
        if job is None:
            # Its status is undetermined then.
            raise LookupError(f"Slurm does not know job {job_id}")
        return slurm.as_soma_row(job)

    def run_job(self: Any, script_file: str | None = None, **_: Any) -> str | None:
        if commands.closed:
            return None
        # Jobs of several treatments may have the same name.
        log = RunPaths().slurm_log(self.jobName, "%j")
        self.outputPath = self.errorPath = f"./{log}"
        # In the run's directory, which is removed with the run; the adapter would take /tmp.
        script = script_file or self.build_slurm_script(f"./{self.jobName}.sh")
        _run_directly(Path(script))
        return commands.submit(self.jobName, self.sbatch_command(script))

    slurm_scheduler.SlurmScheduler.get_job_extended_status = extended_status
    slurm_scheduler.JobTemplate.run_job = run_job
