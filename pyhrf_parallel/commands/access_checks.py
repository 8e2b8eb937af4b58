"""Checks of the way to the cluster: from the configuration to its files."""

from __future__ import annotations

import socket
import time

from pyhrf_parallel.commands import config_file
from pyhrf_parallel.commands.chain import BrokenError, Chain, Check, NothingToCheck
from pyhrf_parallel.commands.console import connect
from pyhrf_parallel.configuration import load_configuration
from pyhrf_parallel.errors import NoFilesError, ParallelError

_TIMEOUT = 10  # seconds


def configuration(chain: Chain) -> str:
    """Read the file."""
    chain.settings = load_configuration()
    path = config_file.configuration_file()
    return str(path) if path.exists() else f"{path} does not exist: the defaults hold"


def cluster(chain: Chain) -> str:
    """Find a cluster in it."""
    if not (chain.settings.server or chain.settings.server_id):
        raise BrokenError(
            "the configuration names none: remote_cluster runs on this machine",
            "to set one up: pyhrf-parallel setup-cluster [USER@]HOST",
        )
    from pyhrf_parallel.cluster.resources import with_resource

    chain.settings = with_resource(chain.settings)
    return f"{chain.server}, scheduler {chain.settings.scheduler}"


def address(chain: Chain) -> str:
    """Ask ``~/.ssh/config`` what its name stands for."""
    from pyhrf_parallel.cluster.ssh import find_address

    settings = chain.settings
    found = chain.address = find_address(
        chain.server, user=settings.user, port=settings.port, identity=settings.identity_file
    )
    return f"{found}{f' through {found.jump}' if found.jump else ''}"


def network(chain: Chain) -> str:
    """Connect to its port, and disconnect."""
    address = chain.address
    assert address is not None  # noqa: S101
    if address.jump:
        raise NothingToCheck(f"the way is through {address.jump}: see login")
    began = time.monotonic()
    try:
        socket.create_connection((address.host, address.port), timeout=_TIMEOUT).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise BrokenError(
            f"{address.host}, port {address.port}: {why}",
            "is the name right, is a VPN needed, does a firewall stand between?",
        ) from error
    return f"port {address.port} answers in {(time.monotonic() - began) * 1000:.0f} ms"


def host_key(chain: Chain) -> str:
    """Log in; of what can go wrong there, this is the part about the server's key."""
    try:
        chain.connected = connect(chain.settings)
    except ParallelError as error:
        if str(error).startswith("The host key of"):
            raise
        chain.refusal = error  # the login's or SFTP's; keys come first
    return "known, and the right one"


def login(chain: Chain) -> str:
    """Say what came of logging in, and run a command."""
    if isinstance(chain.refusal, NoFilesError):
        return "it works"
    if chain.refusal is not None:
        raise chain.refusal
    done = chain.cluster.connection.run(["uname", "-n"])
    if done.status:
        raise BrokenError(
            f"the command uname ends with status {done.status}: {done.err.strip()}",
            f"does this work? ssh {chain.server} uname -n",
        )
    lines = done.out.decode(errors="replace").splitlines()
    if len(lines) > 1:
        raise BrokenError(
            f"a command prints more than it should: {lines[0][:60]!r}",
            "startup files of your shell there (~/.bashrc, ~/.cshrc) have to be silent when no "
            "terminal is there; begin what prints with: [ -t 1 ] &&",
        )
    return f"as {chain.cluster.address.user} on {lines[0]}"


def files(chain: Chain) -> str:
    """Find the home by SFTP."""
    if chain.refusal is not None:
        raise chain.refusal
    return f"SFTP works, the home is {chain.cluster.path('~')}"


ACCESS = (
    Check("configuration", (), configuration),
    Check("cluster", ("configuration",), cluster),
    Check("address", ("cluster",), address),
    Check("network", ("address",), network),
    Check("host key", ("network",), host_key),
    Check("login", ("host key",), login),
    Check("files", ("login",), files),
)
