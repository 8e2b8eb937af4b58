"""A configured cluster, and runs on it: what is asked, sent and fetched over SSH."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import paramiko

from pyhrf_parallel.cluster.layout import PLAN, STATE, Plan
from pyhrf_parallel.cluster.planning import make_plan
from pyhrf_parallel.cluster.resources import with_resource
from pyhrf_parallel.cluster.ssh import Address, SSHConnection, find_address
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import (
    ClusterConnectionError,
    NoFilesError,
    SubmissionError,
    TransferError,
)
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker import PAYLOAD

RUNS = "pyhrf_parallel_runs"
SITE = "pyhrf_parallel.cluster.site"
_PAUSES = (0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60)  # seconds between tries to get a connection back
_LOST = (ClusterConnectionError, paramiko.SSHException, EOFError, ConnectionError)

T = TypeVar("T")


class Cluster:
    """The cluster that a configuration names; a context manager.

    Parameters
    ----------
    settings : Configuration
        With a server, or a resource of soma-workflow.

    Raises
    ------
    ClusterConnectionError
        If it cannot be reached.
    """

    def __init__(self, settings: Configuration) -> None:
        self.settings = with_resource(settings)
        assert self.settings.server is not None  # noqa: S101  (with_resource sees to it)
        self.address: Address = find_address(
            self.settings.server,
            user=self.settings.user,
            port=self.settings.port,
            identity=self.settings.identity_file,
        )
        self.connection = SSHConnection(self.address)
        try:
            self._home = self.connection.sftp.normalize(".")
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.connection.close()
            raise NoFilesError(
                f"{self.address} lets you log in, but gives no access to files by SFTP "
                f"({error or type(error).__name__}); does this work? sftp {self.address.alias} (its "
                "sshd_config needs a 'Subsystem sftp'; startup files of your shell there must not print)"
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
            except _LOST as error:
                if pause is None or (self.connection.is_alive and isinstance(error, OSError)):
                    raise
                self.connection.close()
            time.sleep(pause)
        raise AssertionError  # pragma: no cover

    def ask(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run one of our commands over there; return its answer.

        Raises
        ------
        SubmissionError
            If it cannot be run, or answers with an error.
        """
        python = self.path(self.settings.remote_python)
        done = self.connection.run([python, "-P", "-m", SITE, command, *arguments])
        try:
            # The last line: a shell's start-up files may print some before.
            answer: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        except (ValueError, IndexError):
            raise SubmissionError(self._why_no_answer(python, done.status, done.err)) from None
        if "error" in answer:
            raise SubmissionError(f"{self.address} says: {answer['error']}")
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

    def start_run(
        self, work: Work, payload: Path, name: str, resources: dict[str, Any]
    ) -> RemoteRun:
        """Send a payload and start the engine for it.

        Parameters
        ----------
        work : Work
            What the payload holds.
        payload : Path
            The file.
        name : str
            Of the run.
        resources : dict
            ``mem``, ``time``, ``cpus``, ``queue``; the configuration's by default.
        """
        plan = make_plan(self.settings, work, payload, resources)
        root = f"{self.path(self.settings.remote_path)}/{RUNS}"
        site = self.ask("prepare", root, name, plan.scheduler)
        run = RemoteRun(self, site["directory"], plan)
        try:
            self._check(site, plan, payload.stat().st_size)
            run.send(payload)
            self.ask("start", run.directory)
        except BaseException:
            with suppress(Exception):
                run.remove()
            raise
        return run

    def _check(self, site: dict[str, Any], plan: Plan, size: int) -> None:
        """Refuse before anything is sent what cannot work."""
        setup = f"pyhrf-parallel setup-cluster {self.address.alias}"
        here = ".".join(map(str, sys.version_info[:2]))
        there = ".".join(map(str, site["python"][:2]))
        problem = ""
        if here != there:
            problem = f"has Python {there}, and here runs {here}: functions travel between equal ones only"
        elif site["package"] != __version__:
            problem = (
                f"has pyhrf_parallel {site['package']}, and here is {__version__}; run: {setup}"
            )
        elif site["soma_workflow"] is None:
            problem = f"does not have soma-workflow; run: {setup}"
        elif plan.queue and site["queues"] is not None and plan.queue not in site["queues"]:
            problem = f"has no queue {plan.queue!r}, only {', '.join(site['queues'])}"
        elif site["free"] < size * 1.05:
            problem = (
                f"has {site['free'] / 1e6:.0f} MB free in {site['directory']}, and the payload is "
                f"{size / 1e6:.0f} MB"
            )
        if problem:
            raise SubmissionError(f"{self.address} ({self.settings.remote_python}) {problem}")


class RemoteRun:
    """The directory of a run on a cluster.

    Parameters
    ----------
    cluster : Cluster
        Where it is.
    directory : str
        Its path there.
    plan : Plan, optional
        What its engine was asked to do.
    """

    def __init__(self, cluster: Cluster, directory: str, plan: Plan | None = None) -> None:
        self.cluster = cluster
        self.directory = directory
        self.plan = plan

    @property
    def _sftp(self) -> paramiko.SFTPClient:
        return self.cluster.connection.sftp

    def send(self, payload: Path) -> None:
        """Send the payload and the plan."""
        assert self.plan is not None  # noqa: S101
        target = f"{self.directory}/{PAYLOAD}"
        try:
            self._sftp.put(str(payload), f"{target}.part")
            self._sftp.posix_rename(f"{target}.part", target)
            with self._sftp.open(f"{self.directory}/{PLAN}", "wb") as file:
                file.write(self.plan.dumps())
        except OSError as error:
            host = str(self.cluster.address)
            raise TransferError(
                f"The payload ({payload.stat().st_size / 1e6:.1f} MB) did not get to {host}, {target}: "
                f"{error} (disk full, or over quota?)",
                path=target,
                host=host,
                reason=str(error),
            ) from error

    def sizes(self) -> dict[str, int]:
        """Return the files of the run, with their sizes."""

        def look() -> dict[str, int]:
            return {a.filename: a.st_size or 0 for a in self._sftp.listdir_attr(self.directory)}

        try:
            return self.cluster.persistently(look)
        except FileNotFoundError:
            raise SubmissionError(
                f"The run's directory {self.directory} on {self.cluster.address} is gone"
            ) from None

    def read(self, name: str, position: int = 0) -> bytes:
        """Return what a file of the run holds from a position on."""

        def fetch() -> bytes:
            with self._sftp.open(f"{self.directory}/{name}", "rb") as file:
                size = file.stat().st_size or 0
                file.seek(position)
                file.prefetch(size)
                return file.read(size - position)

        return self.cluster.persistently(fetch)

    def state(self) -> bytes:
        """Return the engine's own words; nothing before it has spoken."""
        try:
            return self.read(STATE)
        except FileNotFoundError:
            return b""

    def revive(self) -> bool:
        """Start the engine again if it has died; return whether it had."""
        answer = self.cluster.persistently(lambda: self.cluster.ask("is_running", self.directory))
        if answer["running"] or not answer["here"]:
            return False
        self.cluster.persistently(lambda: self.cluster.ask("start", self.directory))
        return True

    def cancel(self) -> None:
        """Stop the engine and its jobs."""
        self.cluster.persistently(lambda: self.cluster.ask("stop", self.directory))

    def remove(self) -> None:
        """Stop the engine and its jobs, and remove all that the run has there."""
        self.cluster.persistently(lambda: self.cluster.ask("remove", self.directory))
