"""Commands of the agent, one after the other in one process: a login may take seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import paramiko

from pyhrf_parallel.engine.agent import IDLE
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.runs.refusals import text
from pyhrf_parallel.runs.ssh import BEGIN, Completed, SSHConnection

_FRESH = IDLE / 3  # seconds after an answer in which the process cannot have ended
_NO_STATUS = -1  # paramiko's, if the connection was lost


class Conversation:
    """The agent's process on a cluster, which answers each line of JSON with another one.

    Parameters
    ----------
    connection : SSHConnection
        The connection to the cluster.
    argv : sequence of str
        The command that starts it.
    """

    def __init__(self, connection: SSHConnection, argv: Sequence[str]) -> None:
        self.connection = connection
        self._channel: paramiko.Channel | None = None
        self._argv = list(argv)
        self._last = 0.0  # when it answered

    def ask(self, question: Sequence[str]) -> dict[str, Any] | Completed:
        """Return the answer to a question; if the process has ended instead, how it ended.

        Raises
        ------
        ClusterError
            If the connection is lost.
        """
        try:
            channel = self._open()
            with suppress(OSError):  # it has ended already; its stderr says why
                channel.sendall(json.dumps(question).encode() + b"\n")
            line = self._answers.readline()
            self._last = time.monotonic()
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            self._channel = None
            err = channel.makefile_stderr("rb").read().decode(errors="replace")
            status = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
            self.close()  # or its late answer would be taken for that to another question
            raise self._lost(text(error)) from error
        except BaseException:  # Ctrl-C: the same
            self.close()
            raise
        if status == _NO_STATUS or not self.connection.is_alive:
            raise self._lost(err.strip() or "it was closed")
        return Completed(status, b"", err)

    def _lost(self, why: str) -> ClusterError:
        return ClusterError(
            f"The connection to {self.connection.address} was lost: {why}", transient=True
        )

    def _open(self) -> paramiko.Channel:
        """Return the channel to the process, a new one if the process may have ended."""
        channel = self._channel
        if channel is not None and (
            channel.exit_status_ready() or time.monotonic() - self._last > _FRESH
        ):
            self.close()
            channel = None
        if channel is None:
            channel = self._channel = self.connection.open(self._argv)
            self._answers = channel.makefile("rb")
            while (line := self._answers.readline()) and not line.rstrip().endswith(BEGIN.encode()):
                pass
        return channel

    def close(self) -> None:
        """Let the process end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
