"""Checks of the connection: from the configuration to files on the cluster."""

from __future__ import annotations

import socket
import time

from pyhrf_parallel.commands import config_file
from pyhrf_parallel.commands.console import connect
from pyhrf_parallel.commands.doctor.chain import Chain, Check, Finding, broken, remark, skipped
from pyhrf_parallel.configuration import load_configuration
from pyhrf_parallel.errors import ParallelError, TransferError

_TIMEOUT = 10  # seconds
_SLOW = 2.0  # seconds that a command may take that does nothing


def configuration(chain: Chain) -> str:
    """Read the configuration file."""
    chain.settings = load_configuration()
    path = config_file.configuration_file()
    return str(path) if path.exists() else f"{path} does not exist: the defaults hold"


def cluster(chain: Chain) -> str:
    """Find the cluster in the configuration."""
    if not chain.settings.has_cluster:
        return "none is configured: jobs run on this machine (for one: pyhrf-parallel setup-cluster [USER@]HOST)"
    from pyhrf_parallel.runs.soma_config import with_resource

    chain.settings = with_resource(chain.settings)
    return f"{chain.server}, scheduler {chain.settings.scheduler}"


def address(chain: Chain) -> str:
    """Look up the name of the cluster in ``~/.ssh/config``."""
    from pyhrf_parallel.runs.ssh import find_address

    settings = chain.settings
    found = chain.address = find_address(
        chain.server, user=settings.user, port=settings.port, identity=settings.identity_file
    )
    return f"{found}{f' through {found.jump}' if found.jump else ''}"


def network(chain: Chain) -> str | Finding:
    """Connect to the SSH port, and disconnect."""
    address = chain.address
    assert address is not None  # noqa: S101
    if address.jump:
        return skipped(f"the way is through {address.jump}: see login")
    began = time.monotonic()
    try:
        socket.create_connection((address.host, address.port), timeout=_TIMEOUT).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        return broken(
            f"{address.host}, port {address.port}: {why}",
            "is the name right, is a VPN needed, does a firewall stand between?",
        )
    return f"port {address.port} answers in {(time.monotonic() - began) * 1000:.0f} ms"


def host_key(chain: Chain) -> str:
    """Log in, and report errors about the server's host key."""
    try:
        chain.connected = connect(chain.settings)
    except ParallelError as error:
        if str(error).startswith("The host key of"):
            raise
        chain.refusal = error  # the login's or SFTP's; keys come first
    return "known, and the right one"


def login(chain: Chain) -> str | Finding:
    """Report other errors of the login, and run a command."""
    if isinstance(chain.refusal, TransferError):
        return "it works"
    if chain.refusal is not None:
        raise chain.refusal
    began = time.monotonic()
    done = chain.cluster.connection.run(["uname", "-n"])
    seconds = time.monotonic() - began
    if done.status:
        return broken(
            f"the command uname ends with status {done.status}: {done.err.strip()}",
            f"does this work? ssh {chain.server} uname -n",
        )
    told = f"as {chain.cluster.address.user} on {done.out.decode(errors='replace').strip()}"
    if done.noise:
        first = done.noise.decode(errors="replace").strip().partition("\n")[0]
        return remark(
            f"{told}; startup files of the shell there print something: {first[:60]!r}",
            "maps do not mind, scp and others do: begin what prints in ~/.bashrc or ~/.cshrc with: "
            "[ -t 1 ] &&",
        )
    if seconds > _SLOW:
        return remark(
            f"{told}; a command takes {seconds:.0f} s",
            f"each map waits that long at least once: what is slow in the startup files of the shell there? See: "
            f"time ssh {chain.server} true",
        )
    return told


def files(chain: Chain) -> str:
    """Find the home directory by SFTP."""
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
