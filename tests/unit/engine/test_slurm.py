"""Slurm's words, read and written; its commands, of which small scripts take the place."""

from __future__ import annotations

import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyhrf_parallel.engine import slurm, slurm_commands
from pyhrf_parallel.engine.slurm import SlurmJob, parse_jobs
from pyhrf_parallel.engine.slurm_commands import Commands

WIDTHS = (20, 20, 12, 80, 80, 12)
SQUEUE = "--Format=JobID:20,State:20,exit_code:12,Reason:80,BatchHost:80,RestartCnt:12"


def line(*fields: object) -> str:
    """Write a line as squeue does, which cuts what is too long."""
    pairs = zip(fields, WIDTHS, strict=True)
    return "".join(str(field).ljust(width)[:width] for field, width in pairs) + "\n"


class TestWords:
    def test_the_question(self) -> None:
        asked = slurm.status_command(iter(["4", "12"]))
        assert asked == ["squeue", "--noheader", "--states=all", "--jobs=4,12", SQUEUE]
        assert slurm.status_command(["4;north"], "north") == [
            "squeue", "--noheader", "--states=all", "--jobs=4", SQUEUE, "--clusters=north",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("out", "job_id"),
        [
            ("Submitted batch job 12\n", "12"),
            ("Submitted batch job 12 on cluster north\n", "12;north"),
            ("12\n", "12"),  # with --parsable
            ("12;north\n", "12;north"),
            ("Welcome to cluster 7\nSubmitted batch job 12 on cluster north\nBye\n", "12;north"),
            ("sbatch: a test only\n", ""),
            ("", ""),
        ],
    )
    def test_the_id_of_a_job(self, out: str, job_id: str) -> None:
        assert slurm.parse_job_id(out) == job_id
        assert slurm.job_number(job_id) == ("12" if job_id else "")

    def test_jobs_of_several_clusters(self) -> None:
        assert slurm.cancel_commands(["1", "1;north", "3", "2;south"]) == [
            ["scancel", "1", "3"],
            ["scancel", "--clusters=north", "1"],
            ["scancel", "--clusters=south", "2"],
        ]
        text = "CLUSTER: north\n" + line(1, "RUNNING", 0, "None", "n", 0)
        assert parse_jobs(text, "north") == {"1;north": SlurmJob("RUNNING", 0, "None", "n")}

    @pytest.mark.parametrize(
        ("fields", "job"),
        [
            ((1, "RUNNING", 0, "None", "node1", 0), SlurmJob("RUNNING", 0, "None", "node1")),
            ((1, "PENDING", 0, "Priority", "n/a", 0), SlurmJob("PENDING", 0, "Priority", "n/a")),
            # a status is that of wait(): value times 256, or a signal, with 128 for a core
            ((1, "FAILED", 1792, "NonZeroExitCode", "n", 0), SlurmJob("FAILED", 7, "NonZeroExitCode", "n")),
            ((1, "FAILED", 9, "JobLaunchFailure", "n", 0), SlurmJob("FAILED", -9, "JobLaunchFailure", "n")),
            ((1, "FAILED", 139, "None", "n", 0), SlurmJob("FAILED", -11, "None", "n")),
            ((1, "TIMEOUT", 15, "TimeLimit", "n", 0), SlurmJob("TIMEOUT", -15, "TimeLimit", "n")),
            # a job that was ended from outside may have none
            ((1, "OUT_OF_MEMORY", 0, "OutOfMemory", "n", 0), SlurmJob("OUT_OF_MEMORY", 0, "OutOfMemory", "n")),
            # nothing at all, in fields that may be empty
            ((1, "COMPLETING", "", "", "", ""), SlurmJob("COMPLETING", 0, "", "")),
            ((1, "POWER_UP_NODE", 0, "a reason of words", "n", 2), SlurmJob("POWER_UP_NODE", 0, "a reason of words", "n", 2)),
            ((4294967, "PENDING", 0, "R" * 90, "h" * 79, 0), SlurmJob("PENDING", 0, "R" * 80, "h" * 79)),
        ],
    )  # fmt: skip
    def test_a_job(self, fields: tuple[object, ...], job: SlurmJob) -> None:
        assert parse_jobs(line(*fields)) == {str(fields[0]): job}

    def test_several_jobs_and_lines_that_are_none(self) -> None:
        rows = [line(i, "RUNNING", 0, "None", "n", 0) for i in (5, 6)]
        text = f"a site's greeting\n\n{rows[0]}slurm_load_jobs warning: x\n{rows[1].rstrip()}"
        assert list(parse_jobs(text)) == ["5", "6"]
        assert parse_jobs("") == {}

    @pytest.mark.parametrize(
        ("job", "row"),  # what the adapter asks for: the state, the signal, the exit value
        [
            (SlurmJob("RUNNING", 0, "", ""), ("RUNNING", 0, 0)),
            (SlurmJob("CONFIGURING", 0, "", ""), ("PENDING", 0, 0)),
            (SlurmJob("REQUEUE_HOLD", 0, "", ""), ("PENDING", 0, 0)),
            (SlurmJob("COMPLETING", 0, "", ""), ("RUNNING", 0, 0)),
            (SlurmJob("STOPPED", 0, "", ""), ("SUSPENDED", 0, 0)),
            (SlurmJob("A_NEW_ONE", 0, "", ""), ("A_NEW_ONE", 0, 0)),
            (SlurmJob("COMPLETED", 0, "", ""), ("COMPLETED", 0, 0)),
            (SlurmJob("FAILED", 7, "", ""), ("COMPLETED", 0, 7)),
            (SlurmJob("TIMEOUT", -15, "", ""), ("COMPLETED", 15, 143)),
            # never well, also when the status says so
            (SlurmJob("CANCELLED", 0, "", ""), ("COMPLETED", 0, 1)),
            (SlurmJob("NODE_FAIL", 0, "", ""), ("COMPLETED", 0, 1)),
        ],
    )
    def test_what_the_adapter_gets(self, job: SlurmJob, row: tuple[str, int, int]) -> None:
        given = slurm.as_soma_row(job)
        assert (given["job_state"], given["Exit_status"], given["Return_code"]) == row

    @pytest.mark.parametrize(
        ("state", "reason", "node", "told"),
        [
            ("RUNNING", "x", "n", ""),
            ("COMPLETED", "None", "n", ""),
            ("FAILED", "NonZeroExitCode", "n1", "it failed on n1"),
            ("FAILED", "BadConstraints", "", "it failed (BadConstraints)"),
            ("TIMEOUT", "TimeLimit", "n1", "it reached its time limit on n1"),
            ("NODE_FAIL", "NodeDown", "n1", "its node failed (NodeDown) on n1"),
        ],
    )
    def test_failures(self, state: str, reason: str, node: str, told: str) -> None:
        assert SlurmJob(state, 0, reason, node).failure == told

    @pytest.mark.parametrize(
        ("state", "restarts", "back", "blameless"),
        [
            ("PENDING", 0, False, False),
            ("PENDING", 1, True, False),
            ("REQUEUED", 2, True, False),
            ("RUNNING", 1, False, False),
            ("FAILED", 1, False, False),
            ("NODE_FAIL", 0, False, True),
            ("PREEMPTED", 0, False, True),
        ],
    )
    def test_whose_fault(self, state: str, restarts: int, back: bool, blameless: bool) -> None:
        job = SlurmJob(state, 0, "", "", restarts)
        assert (job.is_back, job.is_blameless) == (back, blameless)

    def test_options(self) -> None:
        wanted = {"cpus": 2, "queue": "long", "mem": "4G", "time": "1-00:00:00"}
        assert slurm.options(wanted) == ["--cpus-per-task=2", "--mem=4G", "--time=1-00:00:00"]

    @pytest.mark.parametrize(
        ("asked", "more"),
        [
            ("--mem=450M", "--mem=900M"),
            ("--mem=2G", "--mem=4096M"),
            ("--mem=1T", "--mem=2097152M"),
            ("--mem=100", "--mem=200M"),
            ("--mem=1K", "--mem=1M"),  # whole MB
            ("--mem-per-cpu=2G", "--mem-per-cpu=2G"),
            ("-x", "-x"),
        ],
    )
    def test_more_memory(self, asked: str, more: str) -> None:
        assert slurm.with_more_memory(["-y", asked], 2) == ["-y", more]
        assert slurm.with_more_memory([asked], 1) == [asked]

    @pytest.mark.parametrize(
        ("log", "reason", "killed"),
        [
            ("", "", False),
            ("MemoryError", "it failed on n1", False),
            ("", SlurmJob("OUT_OF_MEMORY", -9, "OutOfMemory", "n").failure, True),
            ("slurmstepd: error: Detected 1 oom_kill event in StepId=3.batch.", "it failed", True),
            ("slurmstepd: error: Job 3 exceeded memory limit (9 > 8), being killed", "", True),
        ],
    )
    def test_killed_for_memory(self, log: str, reason: str, killed: bool) -> None:
        told = "it used more memory than it had asked for" if killed else ""
        assert slurm.killed_for_memory(log, reason) == told

    @pytest.mark.parametrize(
        ("message", "transient"),
        [
            ("squeue: error: Unable to contact slurm controller (connect failure)", True),
            ("slurm_load_jobs error: Socket timed out on send/recv operation", True),
            ("sbatch: error: Batch job submission failed: Invalid qos specification", False),
            ("slurm_load_jobs error: Invalid job id specified", False),
            ("", False),
        ],
    )
    def test_what_goes_away_by_itself(self, message: str, transient: bool) -> None:
        assert slurm.is_transient(message) is transient


@pytest.mark.parametrize(
    "words",
    [
        ["printf", "%s|", "a"],
        ["printf", "%s|", "srun ", "a srun b", ";srun x"],
        ["printf", "%s|", "two\nlines", "\n", "é"],
    ],
)
def test_a_script_runs_its_command_itself(words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "srun job.sh"
    quoted = " ".join(f'"{word}"' for word in words)
    script.write_text(f"#!/bin/bash\n#SBATCH -J srun x\ntrue # srun \nsrun {quoted}\n")
    slurm_commands._run_directly(script)
    assert script.read_text().startswith("#!/bin/bash\n#SBATCH -J srun x\ntrue # srun \nexec ")
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}|" for word in words[2:])


class TestCommands:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """A clock that stands still but for the pauses, which are noted."""
        clock = SimpleNamespace(now=100.0, pauses=[])
        clock.monotonic, clock.sleep = lambda: clock.now, clock.pauses.append
        monkeypatch.setattr(slurm_commands, "time", clock)
        return clock

    @pytest.fixture
    def put(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
        """Put a command there, which notes how it is called; return where."""
        (tmp_path / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        monkeypatch.chdir(tmp_path)

        def put(name: str, script: str) -> Path:
            path, calls = tmp_path / "bin" / name, tmp_path / f"{name}.calls"
            path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
            calls.touch()
            return calls

        return put

    def test_a_job_that_is_taken(self, put: Callable[..., Path], clock: Any) -> None:
        calls = put("sbatch", "echo 'sbatch: a warning' >&2; echo 'Submitted batch job 41'")
        commands = Commands(1)
        assert commands.submit("j", ["sbatch", "-o", "log", "j.sh"]) == "41"
        assert calls.read_text() == "-o log j.sh\n"
        assert (commands.refusals, commands.complaints, clock.pauses) == ({}, {}, [])

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("echo 'sbatch: error: invalid partition' >&2; exit 1", "sbatch: error: invalid partition"),
            ("echo out; echo err >&2; exit 3", "err\nout"),
            ("exit 1", "no reason given"),
            ("echo done", "sbatch gave no job number: done"),
        ],
    )  # fmt: skip
    def test_a_job_that_is_refused(
        self, script: str, told: str, put: Callable[..., Path], clock: Any
    ) -> None:
        calls = put("sbatch", script)
        commands = Commands(1)
        assert commands.submit("j", ["sbatch", "j.sh"]) is None
        assert (commands.refusals, commands.complaints) == ({"j": told}, {})
        assert (calls.read_text(), clock.pauses) == ("j.sh\n", [])  # once

    def test_a_controller_that_comes_back(self, put: Callable[..., Path], clock: Any) -> None:
        away = "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1"
        calls = put(
            "sbatch",
            f"test $(wc -l < sbatch.calls) -gt 2 || {{ {away}; }}; echo Submitted batch job 7",
        )
        assert Commands(1).submit("j", ["sbatch", "j.sh"]) == "7"
        assert (calls.read_text(), clock.pauses) == ("j.sh\n" * 3, [1, 2])

    def test_a_controller_that_stays_away(self, put: Callable[..., Path], clock: Any) -> None:
        calls = put("scancel", "echo 'scancel: error: Connection refused' >&2; exit 1")
        assert Commands(1).call(["scancel", "3"]) == ("", "scancel: error: Connection refused")
        assert clock.pauses == list(slurm_commands._PAUSES)
        assert len(calls.read_text().splitlines()) == len(clock.pauses) + 1

    def test_jobs_that_are_cancelled(self, put: Callable[..., Path]) -> None:
        calls = put("scancel", "")
        Commands(1).cancel([])
        assert calls.read_text() == ""
        Commands(1).cancel(["3", "4", "5;north"])
        assert calls.read_text() == "3 4\n--clusters=north 5\n"

    def test_after_the_end_nothing_is_submitted_again(
        self, put: Callable[..., Path], clock: Any
    ) -> None:
        calls = put("sbatch", "echo 'sbatch: error: Connection refused' >&2; exit 1")
        commands = Commands(1)
        commands.close()
        assert commands.submit("j", ["sbatch", "j.sh"]) is None
        assert (len(calls.read_text().splitlines()) <= 1, clock.pauses) == (True, [])

    def test_the_end_while_sbatch_tries(self, put: Callable[..., Path]) -> None:
        put("sbatch", "echo 'sbatch: error: sleeping and retrying' >&2; exec sleep 60")
        commands = Commands(1)
        found: list[str | None] = []
        thread = threading.Thread(
            target=lambda: found.append(commands.submit("j", ["sbatch", "j.sh"]))
        )
        thread.start()
        while "j" not in commands._trying:
            time.sleep(0.005)
        assert commands.complaints == {"j": "sbatch: error: sleeping and retrying\n"}
        commands.close()
        thread.join(30)
        assert found == [None]

    def test_jobs_are_asked_for_seldom_and_together(
        self, put: Callable[..., Path], clock: Any
    ) -> None:
        calls = put(
            "squeue",
            "case $3 in *1*) cat one;; esac; case $3 in *2*) cat two;; esac",
        )
        Path("one").write_text(line(1, "RUNNING", 0, "None", "n1", 0))
        Path("two").write_text(line(2, "COMPLETED", 0, "None", "n1", 0))
        commands = Commands(2)
        assert commands.job("1") == SlurmJob("RUNNING", 0, "None", "n1")
        clock.now += 1.9
        commands.job("1")
        assert calls.read_text() == f"--noheader --states=all --jobs=1 {SQUEUE}\n"
        assert commands.job("2") == SlurmJob("COMPLETED", 0, "None", "n1")  # asked for: it is new
        clock.now += 2.1
        commands.job("2")
        asked = [text.split()[2] for text in calls.read_text().splitlines()]
        assert asked == ["--jobs=1", "--jobs=1,2", "--jobs=1"]  # what has ended is known
        clock.now += 1000
        commands.job("1")
        clock.now += 14  # the rarer, the longer they last
        commands.job("1")
        assert len(calls.read_text().splitlines()) == 4

    def test_a_job_of_another_cluster(self, put: Callable[..., Path], clock: Any) -> None:
        put("sbatch", "echo Submitted batch job 1 on cluster north")
        calls = put("squeue", "case $5 in --clusters=north) cat north;; *) cat here;; esac")
        Path("north").write_text("CLUSTER: north\n" + line(1, "RUNNING", 0, "None", "n1", 0))
        Path("here").write_text(line(1, "FAILED", 256, "None", "n1", 0))  # it has the same number
        commands = Commands(1)
        job_id = commands.submit("j", ["sbatch", "j.sh"])
        assert job_id is not None
        assert commands.job(job_id) == SlurmJob("RUNNING", 0, "None", "n1")
        commands.job("1")
        clock.now += 2
        assert [commands.job(i) for i in (job_id, "1")] == [
            SlurmJob("RUNNING", 0, "None", "n1"), SlurmJob("FAILED", 1, "None", "n1"),
        ]  # fmt: skip
        assert len(calls.read_text().splitlines()) == 4
        Path("north").write_text("CLUSTER: north\n")  # it has forgotten the job
        clock.now += 2
        forgotten = commands.job(job_id)
        assert forgotten is not None
        assert forgotten.state == "COMPLETED"

    def test_what_was_known_holds_while_the_controller_is_away(
        self, put: Callable[..., Path], clock: Any
    ) -> None:
        put("squeue", f"cat <<'END'\n{line(1, 'RUNNING', 0, 'None', 'n1', 0)}END")
        commands = Commands(1)
        known = commands.job("1")
        put("squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
        clock.now += 2
        assert commands.job("1") == known == SlurmJob("RUNNING", 0, "None", "n1")
        assert len(clock.pauses) == len(slurm_commands._PAUSES)

    def test_jobs_that_slurm_has_forgotten(self, put: Callable[..., Path], clock: Any) -> None:
        """Asked for one job that it does not know, squeue fails; of several, it leaves them out."""
        forgotten = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
        put("squeue", f"case $3 in *,*) cat rows;; --jobs=3) cat rows;; *) {forgotten};; esac")
        rows = [line(i, "RUNNING", 0, "None", "n1", 0) for i in (1, 2, 3)]
        Path("rows").write_text("".join(rows))
        commands = Commands(1)
        for i in "123":
            commands.job(i)
        Path("rows").write_text(rows[2])
        clock.now += 2
        found = [commands.job(i) for i in "123"]
        assert [job and (job.state, job.exit_value) for job in found] == [
            ("COMPLETED", 0), ("COMPLETED", 0), ("RUNNING", 0),
        ]  # fmt: skip
        assert Commands(1).job("1") == found[0]
