"""A run on this machine whose engine goes on by itself: the same interface as one on a cluster."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pyhrf_parallel.engine import agent
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ClusterError, TransferError
from pyhrf_parallel.files import checksum
from pyhrf_parallel.places import check_place
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.arriving import arriving
from pyhrf_parallel.runs.following import LocalFiles
from pyhrf_parallel.runs.manifests import state_directory
from pyhrf_parallel.worker.process import python_command
from pyhrf_parallel.worker.run_paths import RunPaths


def directory_of_runs() -> Path:
    """Return where runs of this machine have their directories."""
    return state_directory() / "here"


class LocalRunDirectory(LocalFiles):
    """The directory of a run on this machine.

    Parameters
    ----------
    directory : str
        Its path.
    data_directories : sequence of str
        Directories for its files.
    """

    def __init__(self, directory: str, data_directories: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self.data_directories = list(data_directories)

    @classmethod
    def prepare(cls, name: str, scheduler: str, data_directories: Sequence[str] = ()) -> Self:
        """Make the directory of a run, and one in each of `data_directories`.

        Raises
        ------
        ClusterError
            If that is impossible.
        """
        try:
            made = agent.prepare(str(directory_of_runs()), name, scheduler, *data_directories)
        except OSError as error:
            raise ClusterError(f"The run cannot be prepared here: {error}") from error
        return cls(made["directory"], made["data_directories"])

    def check(self) -> None:
        """Refuse a directory in which others could have put something.

        Raises
        ------
        ConfigurationError
            Naming it.
        """
        with suppress(FileNotFoundError):  # told when something is read
            check_place(self.directory)

    def begin(self, plan: Plan, payload: Path) -> None:
        """Start the engine for a payload, which is moved."""
        plan.with_payload(payload).write(Path(self.directory))
        shutil.move(payload, RunPaths(self.directory).payload)
        self._start()

    def send(self, path: Path, target: str) -> None:
        """Let a file be found by another name: it stays where it is."""
        with _made(path, target):
            if not _is_link(Path(target), path):  # of an earlier time
                Path(target).symlink_to(path)

    def copy(self, path: Path, target: str) -> None:
        """Copy a file that does not stay where it is."""
        with _made(path, target), path.open("rb") as source:
            if _is_copy(Path(target), path):
                return
            with Path(target).open("xb") as file:
                shutil.copyfileobj(source, file)

    def fetch(self, path: str, target: Path, progress: ProgressOption = None) -> str:
        """Copy a file, and compare the copy; return its SHA-256.

        Raises
        ------
        TransferError
            If it is not the same. `target` is whole or as it was.
        """
        del progress
        check_place(Path(path).parent)
        expected = checksum(path)
        with arriving(target, expected, path) as part:
            shutil.copyfile(path, part)
        return expected

    def start_again(self) -> None:
        """Start an engine that has ended, for the tasks that failed and the steps that were not done."""
        self._start("again")

    def _start(self, *options: str) -> None:
        # By a process that ends: the engine is nobody's child, as on a cluster.
        command = python_command(agent.__name__, "start", self.directory, *options)
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        if "error" in answer:
            raise ClusterError(f"The engine cannot be started: {answer['error']}")

    def is_running(self) -> bool:
        """Return whether the engine is there."""
        return bool(agent.is_running(self.directory)["running"])

    def revive(self) -> bool:
        """Start the engine again if it has died; return whether it had."""
        if self.is_running():
            return False
        self._start()
        return True

    def cancel(self) -> None:
        """Stop the engine and its jobs."""
        agent.stop(self.directory)

    def remove(self) -> None:
        """Stop the engine and its jobs, and remove all that the run has."""
        agent.remove(self.directory)

    def close(self) -> None:
        """Nothing is open."""


def _is_link(target: Path, path: Path) -> bool:
    return target.is_symlink() and target.readlink() == path


def _is_copy(target: Path, path: Path) -> bool:
    is_file = target.is_file() and not target.is_symlink()
    return is_file and filecmp.cmp(target, path, shallow=False)


def _advice(error: OSError) -> str:
    is_there = isinstance(error, FileExistsError)
    return " with another content; remove it, or take another directory" if is_there else ""


@contextmanager
def _made(path: Path, target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransferError(
            f"{path} did not get to {target}: {error.strerror or error}{_advice(error)}",
            path=target,
            reason=str(error),
        ) from error
