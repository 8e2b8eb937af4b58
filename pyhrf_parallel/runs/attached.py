"""The engine on this machine, in a process of its own: started, and killed with all its jobs."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.processes import kill_tree
from pyhrf_parallel.runs.following import LocalFiles
from pyhrf_parallel.worker.process import python_command, read_log_tail
from pyhrf_parallel.worker.run_paths import RunPaths


class EmbeddedEngine(LocalFiles):
    """The engine of a run on this machine; a context manager.

    Parameters
    ----------
    directory : Path
        The run's: private, with the payload in it.
    plan : Plan
        What to do.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        super().__init__(directory)
        plan.write(directory)
        self._process = subprocess.Popen(
            python_command("pyhrf_parallel.engine.engine", directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own, with its jobs: Ctrl-C is not for them.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Gently: joblib's resource trackers clean up after tasks.
        if self._process.poll() is None:
            kill_tree(self._process.pid, gently=kind is None)
        with suppress(ProcessLookupError):  # what one that has died by itself has left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def sizes(self) -> dict[str, int]:
        """Return the files of the run, with their sizes."""
        if self._process.poll() is not None:
            tail = read_log_tail(RunPaths(self.directory).engine_log)
            raise ClusterError(f"soma-workflow's engine on this machine has ended:\n{tail}")
        return super().sizes()
