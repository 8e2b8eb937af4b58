"""A configured cluster: its connection, and the agent there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar

import paramiko

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ClusterError, TransferError
from pyhrf_parallel.runs.conversation import Conversation
from pyhrf_parallel.runs.sftp import LOST
from pyhrf_parallel.runs.soma_config import with_resource
from pyhrf_parallel.runs.ssh import Address, Completed, SSHConnection, find_address

AGENT = "pyhrf_parallel.engine.agent"
_PAUSES = (0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60)  # seconds between tries to get a connection back

T = TypeVar("T")


class Cluster:
    """The cluster that a configuration names; a context manager.

    Parameters
    ----------
    settings : Configuration
        They name a server, or a resource of soma-workflow.

    Raises
    ------
    ClusterError
        If it cannot be reached.
    """

    def __init__(self, settings: Configuration) -> None:
        self.settings: Configuration = with_resource(settings)
        assert self.settings.server is not None  # noqa: S101  (with_resource sees to it)
        found = find_address(
            self.settings.server,
            user=self.settings.user,
            port=self.settings.port,
            identity=self.settings.identity_file,
        )
        self.address: Address = replace(found, setup=self.settings.setup or "")
        self.connection: SSHConnection = SSHConnection(self.address)
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
        """Do something that is safe to do twice, connecting again if the connection is lost."""
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
        """Run a command of the agent on the cluster; return its answer.

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
