"""A configured cluster, and runs on it: what is asked, sent and fetched over SSH."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import paramiko

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ClusterError, TransferError
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.arriving import arriving
from pyhrf_parallel.runs.conversation import Conversation
from pyhrf_parallel.runs.sftp import LOST, SFTPFiles
from pyhrf_parallel.runs.soma_config import with_resource
from pyhrf_parallel.runs.ssh import Address, Completed, SSHConnection, find_address
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker.run_paths import RunPaths

RUNS = "pyhrf_parallel_runs"
AGENT = "pyhrf_parallel.engine.agent"
_PAUSES = (0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60)  # seconds between tries to get a connection back

T = TypeVar("T")


class Cluster:
    """The cluster that a configuration names; a context manager.

    Parameters
    ----------
    settings : Configuration
        With a server, or a resource of soma-workflow.

    Raises
    ------
    ClusterError
        If it cannot be reached.
    """

    def __init__(self, settings: Configuration) -> None:
        self.settings = with_resource(settings)
        assert self.settings.server is not None  # noqa: S101  (with_resource sees to it)
        found = find_address(
            self.settings.server,
            user=self.settings.user,
            port=self.settings.port,
            identity=self.settings.identity_file,
        )
        self.address: Address = replace(found, setup=self.settings.setup or "")
        self.connection = SSHConnection(self.address)
        self._agent: Conversation | None = None
        try:
            self._home = self.connection.sftp.normalize(".")
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.connection.close()
            raise TransferError(
                f"{self.address} lets you log in, but gives no access to files by SFTP "
                f"({error or type(error).__name__}); does this work? sftp {self.address.alias} (its "
                "sshd_config needs a 'Subsystem sftp'; startup files of your shell there must not print)",
                host=str(self.address),
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def path(self, text: str) -> str:
        """Expand a leading ``~`` to the account's home."""
        return self._home + text[1:] if text == "~" or text.startswith("~/") else text

    def persistently(self, action: Callable[[], T]) -> T:
        """Do something that may be done twice, connecting again if the connection is lost."""
        for pause in (*_PAUSES, None):
            try:
                if not self.connection.is_alive:
                    self.connection.close()
                    self.connection = SSHConnection(self.address)
                return action()
            except LOST as error:
                if pause is None or not getattr(error, "transient", True):
                    raise
                self.connection.close()
            time.sleep(pause)
        raise AssertionError  # pragma: no cover

    def ask(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run one of our commands over there; return its answer.

        Raises
        ------
        ClusterError
            If it cannot be run, or answers with an error.
        """
        python = self.path(self.settings.remote_python)
        if self._agent is None or self._agent.connection is not self.connection:
            self._agent = Conversation(self.connection, [python, "-P", "-m", AGENT, "serve"])
        answer = self._agent.ask([command, *arguments])
        if isinstance(answer, Completed):
            raise ClusterError(self._why_no_answer(python, answer.status, answer.err))
        if "error" in answer:
            raise ClusterError(f"{self.address} says: {answer['error']}")
        return answer

    def _why_no_answer(self, python: str, status: int, err: str) -> str:
        setup = f"pyhrf-parallel setup-cluster {self.address.alias}"
        if "No module named" in err and "pyhrf_parallel" in err:
            return f"{python} on {self.address} does not have pyhrf_parallel; run: {setup}"
        if status in (126, 127):
            return (
                f"There is no interpreter {python} on {self.address}; run: {setup} (or set "
                "remote_python of [parallel-cluster])"
            )
        tail = "\n".join(err.strip().splitlines()[-5:])
        return f"{python} on {self.address} ended with status {status}:\n{tail}"

    def check_distributions(self, needed: Mapping[str, str]) -> None:
        """Compare installed distributions with those here, and warn of other versions.

        Parameters
        ----------
        needed : mapping of str to str
            Names, and versions here.

        Raises
        ------
        ClusterError
            If some are not installed there; the message has the command that installs them.
        """
        if not needed:
            return
        there = self.persistently(lambda: self.ask("versions", *needed))["versions"]
        missing = [name for name in needed if there[name] is None]
        if missing:
            wanted = " ".join(f"--with {name}=={needed[name]}" for name in missing)
            raise ClusterError(
                f"{self.settings.remote_python} on {self.address} does not have {', '.join(missing)}, which the tasks "
                f"need; run: pyhrf-parallel setup-cluster {self.address.alias} {wanted} (ship=False leaves this unchecked)"
            )
        others = [
            f"{name} {there[name]} ({version} here)"
            for name, version in needed.items()
            if there[name].split(".")[:2] != version.split(".")[:2]
        ]
        if others:
            warnings.warn(f"{self.address} has other versions: {', '.join(others)}", stacklevel=2)

    def prepare(
        self, name: str, plan: Plan, size: int, data_directories: Sequence[tuple[str, int]] = ()
    ) -> RemoteRunDirectory:
        """Make the directory of a run, and others for its files.

        Parameters
        ----------
        name : str
            Of the run.
        plan : Plan
            What it is to do.
        size : int
            Of its payload, in bytes.
        data_directories : sequence of (str, int)
            Where more directories are made, and how many bytes will go there.

        Raises
        ------
        ClusterError
            If that is impossible, or the run could not work there.
        """
        root = f"{self.path(self.settings.remote_path)}/{RUNS}"
        there = [self.path(place) for place, _ in data_directories]
        answer = self.persistently(lambda: self.ask("prepare", root, name, plan.scheduler, *there))
        run = RemoteRunDirectory(self, answer["directory"], answer["data_directories"])
        try:
            self._check(answer, plan, [size, *(size for _, size in data_directories)])
        except BaseException:
            with suppress(Exception):
                run.remove()
            raise
        return run

    def _check(self, answer: dict[str, Any], plan: Plan, sizes: list[int]) -> None:
        """Refuse before anything is sent what cannot work."""
        setup = f"pyhrf-parallel setup-cluster {self.address.alias}"
        here = ".".join(map(str, sys.version_info[:2]))
        there = ".".join(map(str, answer["python"][:2]))
        problem = ""
        if here != there:
            problem = f"has Python {there}, and here runs {here}: functions travel between equal ones only"
        elif answer["package"] != __version__:
            problem = (
                f"has pyhrf_parallel {answer['package']}, and here is {__version__}; run: {setup}"
            )
        elif answer["soma_workflow"] is None:
            problem = f"does not have soma-workflow; run: {setup}"
        elif answer["refusal"]:
            problem = (
                f"cannot use Slurm: {answer['refusal']}; if it works when you log in, run {setup}, or say "
                "what your login does there as setup of [parallel-cluster]"
            )
        elif plan.queue and answer["queues"] is not None and plan.queue not in answer["queues"]:
            problem = f"has no queue {plan.queue!r}, only {', '.join(answer['queues'])}"
        directories = [answer["directory"], *answer["data_directories"]]
        for directory, free, size in zip(directories, answer["free"], sizes, strict=True):
            if free < size * 1.05:
                what = "payload" if directory == directories[0] else "data, with their regions,"
                problem = problem or (
                    f"has {free / 1e6:.0f} MB free in {directory}, and the {what} is {size / 1e6:.0f} MB"
                )
        if problem:
            raise ClusterError(f"{self.address} ({self.settings.remote_python}) {problem}")


class RemoteRunDirectory:
    """The directory of a run on a cluster.

    Parameters
    ----------
    cluster : Cluster
        Where it is.
    directory : str
        Its path there.
    data_directories : sequence of str
        Directories for its files.
    """

    def __init__(
        self, cluster: Cluster, directory: str, data_directories: Sequence[str] = ()
    ) -> None:
        self.cluster = cluster
        self.directory = directory
        self.data_directories = list(data_directories)
        self._files = SFTPFiles(cluster)

    def check(self) -> None:
        """Refuse a directory in which others could have put something.

        Raises
        ------
        ConfigurationError
            Naming it.
        """
        self._files.check(self.directory)

    def begin(self, plan: Plan, payload: Path) -> None:
        """Send payload and plan, and start the engine."""
        paths = RunPaths(self.directory)
        self._files.put(payload, paths.payload, "The payload")
        self._files.write(paths.plan, plan.with_payload(payload).dumps())
        self.revive()

    def send(self, path: Path, target: str) -> None:
        """Send a file.

        Raises
        ------
        TransferError
            If it did not get there, or there is one of that name.
        """
        self._files.put(path, target)

    copy = send

    def fetch(self, path: str, target: Path, progress: ProgressOption = None) -> str:
        """Fetch a file, and compare what arrived with what is there; return its SHA-256.

        Raises
        ------
        TransferError
            If it is not the same. `target` is whole or as it was.
        """
        host = str(self.cluster.address)
        self._files.check(str(PurePosixPath(path).parent))
        answer = self.cluster.persistently(lambda: self.cluster.ask("checksum", path))
        expected: str = answer["sha256"]
        with arriving(target, expected, f"{host}:{path}") as part:
            self._files.get(path, part, progress)
        return expected

    def reaches(self, address: str, path: Path) -> bool:
        """Return whether the cluster's account can log in to this machine, and write beside a file."""
        return bool(self.cluster.ask("reaches", address, str(path))["reaches"])

    def close(self) -> None:
        """Close the connection."""
        self.cluster.close()

    def sizes(self) -> dict[str, int]:
        """Return the files of the run, with their sizes."""
        try:
            return self._files.sizes(self.directory)
        except FileNotFoundError:
            raise ClusterError(
                f"The run's directory {self.directory} on {self.cluster.address} is gone"
            ) from None

    def read(self, name: str) -> bytes:
        """Return what a file of the run holds."""
        return b"".join(self.pieces(name, 0))

    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """Yield what a file of the run holds from a position on, piece by piece."""
        return self._files.pieces(f"{self.directory}/{name}", position)

    def start_again(self) -> None:
        """Start an engine that has ended, for the tasks that failed and the steps that were not done."""
        self.cluster.ask("start", self.directory, "again")

    def is_running(self) -> bool:
        """Return whether the engine is there, as far as can be seen from this login node."""
        answer = self.cluster.persistently(lambda: self.cluster.ask("is_running", self.directory))
        return bool(answer["running"]) or not answer["here"]

    def revive(self) -> bool:
        """Start the engine again if it has died; return whether it had."""
        if self.is_running():
            return False
        self.cluster.persistently(lambda: self.cluster.ask("start", self.directory))
        return True

    def cancel(self) -> None:
        """Stop the engine and its jobs."""
        self.cluster.persistently(lambda: self.cluster.ask("stop", self.directory))

    def remove(self) -> None:
        """Stop the engine and its jobs, and remove all that the run has there."""
        self.cluster.persistently(lambda: self.cluster.ask("remove", self.directory))
