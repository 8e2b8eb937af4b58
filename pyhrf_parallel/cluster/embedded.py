"""soma-workflow's engine on this machine, in a process of its own: started, asked, killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyhrf_parallel.errors import SubmissionError
from pyhrf_parallel.tasks import available_cpus
from pyhrf_parallel.worker import python_command, read_log_tail

# As many workers run side by side, each must not start a thread per CPU; what the user set stays.
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended, as its own row of the engine says."""

    name: str
    status: str
    exit_value: int | None


class EmbeddedEngine:
    """The engine, running jobs of this machine; use as a context manager.

    Parameters
    ----------
    directory : Path
        Private; takes all state of the engine.
    slots : int
        How many jobs run at the same time.
    """

    def __init__(self, directory: Path, slots: int) -> None:
        self._directory = directory
        threads = str(max(1, available_cpus() // slots))
        self._process = subprocess.Popen(
            python_command("pyhrf_parallel.cluster.engine", directory, slots),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict.fromkeys(_THREAD_LIMITS, threads) | dict(os.environ),
            # A group of its own, with its jobs: Ctrl-C is not for them, and they can be killed together.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def submit(self, jobs: Sequence[tuple[str, list[str]]]) -> None:
        """Run jobs, each a name and an argv."""
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(jobs).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._dead() from error

    def wait(self, seconds: float) -> list[JobEnd] | None:
        """Wait so long at most for all jobs to end; return how they did, or None."""
        assert self._process.stdout is not None  # noqa: S101
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            raise self._dead()
        return [JobEnd(*row) for row in json.loads(line)]

    def _dead(self) -> SubmissionError:
        tail = read_log_tail(self._directory / "engine.log")
        return SubmissionError(f"soma-workflow's engine on this machine has ended:\n{tail}")
