"""Runs on this machine, whose engine goes on by itself or ends with this process."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pyhrf_parallel.engine import agent
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ClusterError, TransferError
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import checksum
from pyhrf_parallel.places import check_place
from pyhrf_parallel.processes import kill_tree
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.arriving import arriving
from pyhrf_parallel.runs.manifests import state_directory
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.worker.launch import python_command, read_log_tail
from pyhrf_parallel.worker.record_files import PIECE
from pyhrf_parallel.worker.run_paths import RunPaths


def directory_of_runs() -> Path:
    """Return the directory for runs on this machine."""
    return state_directory() / "here"


def require_engine() -> None:
    """Check that the engine can run on this machine: it imports soma-workflow in a process of its own.

    Raises
    ------
    BackendUnavailableError
        If soma-workflow is not installed.
    """
    if find_spec("soma_workflow") is None:
        require("soma_workflow", "remote_cluster", "cluster")


class LocalRunDirectory(RunDirectory):
    """The directory of a run on this machine.

    Parameters
    ----------
    directory : path
        Its path.
    data_directories : sequence of str
        Other directories of the run, for data.
    attached : bool
        Whether the engine and its jobs end with this process, and when this object is closed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        data_directories: Sequence[str] = (),
        *,
        attached: bool = False,
    ) -> None:
        super().__init__(os.fspath(directory), data_directories)
        self._paths = RunPaths(directory)
        self._attached = attached
        self._engine: subprocess.Popen[bytes] | None = None

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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_engine(gently=kind is None)

    def close(self) -> None:
        """Kill the engine and its jobs if they are attached; otherwise nothing is open."""
        self._end_engine(gently=True)

    def check(self) -> None:
        """See `RunDirectory.check`."""
        with suppress(FileNotFoundError):  # reported when something is read
            check_place(self.directory)

    def sizes(self) -> dict[str, int]:
        """See `RunDirectory.sizes`."""
        if self._engine is not None and self._engine.poll() is not None:
            tail = read_log_tail(self._paths.engine_log)
            raise ClusterError(f"soma-workflow's engine on this machine has ended:\n{tail}")
        found = {}
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            raise ClusterError(f"The run's directory {self.directory} is gone") from None
        return found

    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """See `RunDirectory.pieces`."""
        with Path(self.directory, name).open("rb") as file:
            file.seek(position)
            while piece := file.read(PIECE):
                yield piece

    def send(self, path: Path, target: str) -> None:
        """Link to a file, which stays where it is; see `RunDirectory.send`."""
        with _made(path, target):
            if not _is_link(Path(target), path):  # or an earlier run made it
                Path(target).symlink_to(path)

    def copy(self, path: Path, target: str) -> None:
        """See `RunDirectory.copy`."""
        with _made(path, target), path.open("rb") as source:
            if _is_copy(Path(target), path):
                return
            with Path(target).open("xb") as file:
                shutil.copyfileobj(source, file)

    def fetch(self, path: str, target: Path, progress: ProgressOption = None) -> str:
        """See `RunDirectory.fetch`."""
        del progress
        check_place(Path(path).parent)
        expected = checksum(path)
        with arriving(target, expected, path) as part:
            shutil.copyfile(path, part)
        return expected

    def begin(self, plan: Plan, payload: Path) -> None:
        """Start the engine for a payload, which is moved."""
        # Nobody else comes between the payload and an engine that is attached.
        plan = replace(plan, attached=True) if self._attached else plan.with_payload(payload)
        plan.write(Path(self.directory))
        shutil.move(payload, self._paths.payload)
        self._start()

    def _start(self, *options: str) -> None:
        if self._attached:
            self._engine = subprocess.Popen(
                python_command("pyhrf_parallel.engine.engine", self.directory, *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A group of its own, with its jobs: Ctrl-C is not for them.
                start_new_session=True,
            )
            return
        # By a process that ends: the engine is not a child of this one, as on a cluster.
        command = python_command(agent.__name__, "start", self.directory, *options)
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        if "error" in answer:
            raise ClusterError(f"The engine cannot be started: {answer['error']}")

    def _end_engine(self, *, gently: bool) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if engine.poll() is None:
            kill_tree(engine.pid, gently=gently)  # joblib's resource trackers clean up after tasks
        with suppress(ProcessLookupError):  # what is left of one that has died by itself
            os.killpg(engine.pid, signal.SIGKILL)
        engine.wait()
        if engine.stdin is not None:
            engine.stdin.close()

    def is_running(self) -> bool:
        """Whether the engine is running."""
        if self._engine is not None:
            return self._engine.poll() is None
        return bool(agent.is_running(self.directory)["running"])

    def cancel(self) -> None:
        """Stop the engine and its jobs."""
        agent.stop(self.directory)

    def remove(self) -> None:
        """Stop the engine and its jobs, and remove everything that belongs to the run."""
        agent.remove(self.directory)


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
