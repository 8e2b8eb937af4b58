"""SSH connections that use ``~/.ssh/config``, the agent, keys and known_hosts as ``ssh`` does."""

from __future__ import annotations

import getpass
import glob
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import paramiko

from pyhrf_parallel.account import home, user_name
from pyhrf_parallel.engine.quoting import remote_command
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.runs.refusals import PORT, explain, locked_keys, text

_TIMEOUT = 20  # seconds to connect, and to hear from a server that is there
_KEEPALIVE = 15  # seconds
_KEYWORD = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)")
_DEEPEST = 16  # as in OpenSSH
#: The line before the output of a command.
BEGIN = "-- pyhrf_parallel begins --"

# Without a handler, paramiko's tracebacks would be printed beside our errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Address:
    """Where to log in, according to ``~/.ssh/config``.

    Attributes
    ----------
    alias : str
        The name that the user knows it by.
    host, port, user : str, int, str
        Where and as whom to log in.
    identity_files : tuple of str
        Private keys to try besides those of the agent and the usual files.
    known_hosts : tuple of str
        Files of known host keys.
    jump : str
        Hosts to connect through, as in ``ProxyJump``; empty for none.
    setup : str
        Lines of shell that run on the server before each command.
    """

    alias: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    jump: str = ""
    setup: str = ""

    def __str__(self) -> str:
        """Return ``user@host``, with the port if it is not the usual one."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != PORT else "")


def find_address(
    server: str, *, user: str | None = None, port: int | None = None, identity: str | None = None
) -> Address:
    """Look up a server in ``~/.ssh/config``; the arguments take precedence.

    Raises
    ------
    ClusterError
        If that file cannot be used.
    """
    path = home() / ".ssh" / "config"
    try:
        config = paramiko.SSHConfig()
        if path.exists():
            config.parse(_with_includes(path))
        entry = config.lookup(server)
    # An older paramiko raises an ImportError for `Match exec`.
    except (paramiko.SSHException, OSError, ImportError, ValueError) as error:
        raise ClusterError(f"{path} cannot be used: {error}") from error
    try:
        port = port or int(entry.get("port", PORT))
    except ValueError as error:
        raise ClusterError(f"{path}: the port of {server} is not a number: {error}") from error
    keys = [identity] if identity else entry.get("identityfile", [])
    known = shlex.split(entry.get("userknownhostsfile", "~/.ssh/known_hosts"))
    jump = entry.get("proxyjump", "none")
    return Address(
        alias=server,
        host=entry.get("hostname", server),
        port=port,
        user=user or entry.get("user") or user_name(),
        identity_files=tuple(os.path.expanduser(key) for key in keys),  # noqa: PTH111  (text)
        known_hosts=(*(os.path.expanduser(k) for k in known), "/etc/ssh/ssh_known_hosts"),  # noqa: PTH111
        jump="" if jump.lower() == "none" else jump,
    )


def _with_includes(path: Path, block: str = "Host *", depth: int = 0) -> Iterator[str]:
    """Yield the lines of a configuration and of the files that it includes, which paramiko ignores."""
    if depth > _DEEPEST:
        raise paramiko.ConfigParseError(f"{path} is included too deep")
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _KEYWORD.match(line)
        if found is None or found[1].lower() != "include":
            if found and found[1].lower() in ("host", "match"):
                block = line
            yield line
            continue
        directory = home() / ".ssh"
        for pattern in shlex.split(found[2]):
            if pattern.startswith("~/"):
                pattern = glob.escape(str(home())) + pattern[1:]  # noqa: PLW2901
            for name in sorted(glob.glob(pattern, root_dir=directory)):  # noqa: PTH207
                yield from _with_includes(directory / name, block, depth + 1)
                yield block  # a block ends with its file


@dataclass(frozen=True)
class Completed:
    """The end of a remote command: its exit status and output."""

    status: int
    out: bytes
    err: str
    noise: bytes = b""  # printed by the shell's start-up files before


class SSHConnection:
    """A connection for commands and files; a context manager.

    Parameters
    ----------
    address : Address
        From `find_address`.

    Raises
    ------
    ClusterError
        If the host cannot be reached, its key is unknown or has changed, or it refuses the user.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._jumps: list[SSHConnection] = []
        self._client = paramiko.SSHClient()
        for path in address.known_hosts:
            if os.path.exists(path):  # noqa: PTH110
                self._client.load_system_host_keys(path)
        self._client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            self._log_in()
        except BaseException:
            self.close()
            raise
        self._sftp: paramiko.SFTPClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and those to the hosts in between."""
        self._client.close()
        for jump in reversed(self._jumps):
            jump.close()

    @property
    def is_alive(self) -> bool:
        """Whether the connection is alive."""
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    @property
    def sftp(self) -> paramiko.SFTPClient:
        """The SFTP session."""
        if self._sftp is None:
            self._sftp = self._client.open_sftp()
            channel = self._sftp.get_channel()
            if channel is not None:
                channel.settimeout(_TIMEOUT * 3)
        return self._sftp

    def open(self, argv: Sequence[str], *, timeout: float = 120) -> paramiko.Channel:
        """Start a command, whose words arrive unchanged.

        The output of the shell's start-up files comes first, then a line `BEGIN`, then that of the command.
        """
        transport = self._client.get_transport()
        if transport is None:
            raise ClusterError(f"The connection to {self.address} is closed", transient=True)
        channel = transport.open_session(timeout=_TIMEOUT)
        channel.settimeout(timeout)
        words = ["/bin/sh", "-c", 'echo "$1"; shift; exec "$@"', "sh", BEGIN, *argv]
        channel.exec_command(remote_command(words, self.address.setup))
        return channel

    def run(self, argv: Sequence[str], *, timeout: float = 120) -> Completed:
        """Run a command, whose words arrive unchanged; return how it ended."""
        try:
            channel = self.open(argv, timeout=timeout)
            channel.shutdown_write()
            out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
            noise, _, out = out.rpartition(f"{BEGIN}\n".encode())
            return Completed(channel.recv_exit_status(), out, err.decode(errors="replace"), noise)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ClusterError(
                f"The connection to {self.address} was lost: {text(error)}", transient=True
            ) from error

    def _log_in(self) -> None:
        options: dict[str, Any] = {}
        if self.address.jump:
            options["sock"] = self._channel_through(self.address.jump)
        locked: list[str] = []
        try:
            try:
                self._connect(**options)
            except paramiko.BadHostKeyException:
                raise
            except paramiko.SSHException as error:
                if not _is_refusal(error):
                    raise
                locked += locked_keys(self.address)
                if options or not sys.stdin.isatty():
                    raise
                if locked:
                    self._connect(passphrase=getpass.getpass(f"Passphrase of {locked[0]}: "))
                else:
                    self._connect(password=getpass.getpass(f"Password of {self.address}: "))
        except (paramiko.SSHException, OSError, EOFError) as error:
            refused = locked if _is_refusal(error) else ()
            raise ClusterError(explain(self.address, error, refused), transient=True) from error
        transport = self._client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE)

    def _connect(self, **options: Any) -> None:
        self._client.connect(
            self.address.host,
            self.address.port,
            self.address.user,
            key_filename=list(self.address.identity_files),  # type: ignore[arg-type]
            timeout=_TIMEOUT,
            banner_timeout=_TIMEOUT,
            auth_timeout=_TIMEOUT,
            **options,
        )

    def _channel_through(self, jump: str) -> Any:
        """Connect to the hosts in between; return a channel from the last one to the server."""
        first, _, rest = jump.rpartition(",")
        user, _, name = rest.rpartition("@")
        host, _, port = name.partition(":")
        address = find_address(host, user=user or None, port=int(port) if port else None)
        if first:
            address = replace(address, jump=first)
        connection = SSHConnection(address)
        self._jumps.append(connection)
        transport = connection._client.get_transport()
        assert transport is not None  # noqa: S101
        target = (self.address.host, self.address.port)
        return transport.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=_TIMEOUT)


def _is_refusal(error: Exception) -> bool:
    """Whether the server has accepted none of the keys or passwords."""
    is_one = isinstance(error, paramiko.AuthenticationException)
    return is_one or "No authentication methods available" in str(error)
