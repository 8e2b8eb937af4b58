"""Why a login does not work, and what to do."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import NoValidConnectionsError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.ssh import Address

PORT = 22
_USUAL = ("id_rsa", "id_ecdsa", "id_ed25519")


def locked_keys(address: Address) -> Iterator[str]:
    """Yield the private keys for a server that are locked with a passphrase and not held by an agent."""
    usual = [str(Path.home() / ".ssh" / name) for name in _USUAL]
    held = {key.get_base64() for key in paramiko.Agent().get_keys()}
    for path in address.identity_files or usual:
        with suppress(OSError, IndexError):
            if Path(f"{path}.pub").read_text().split()[1] in held:
                continue
        try:
            paramiko.PKey.from_path(path)
        except (
            TypeError,
            paramiko.PasswordRequiredException,
        ):  # the one or the other, by its format
            yield path
        except (OSError, ValueError, paramiko.SSHException, UnknownKeyType):
            continue


def explain(address: Address, error: Exception, locked: Sequence[str] = ()) -> str:
    """Explain why a login failed, and what to do; `locked` are keys that could not be used."""
    port = f"-p {address.port} " if address.port != PORT else ""
    name = address.host if address.port == PORT else f"[{address.host}]:{address.port}"
    login = f"ssh {port}{address.user}@{address.host}"
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"The host key of {address} HAS CHANGED: either the server was set up again, or somebody "
            "else answers in its place. Ask its administrators; if the new key is right, run: "
            f"ssh-keygen -R {shlex.quote(name)}; {login}"
        )
    if locked:
        return (
            f"{address} has not seen your key {' or '.join(locked)}: it has a passphrase, which no agent knows "
            f"and nobody can be asked for; run: ssh-add {shlex.join(locked)} (without an agent, first: "
            f'eval "$(ssh-agent)")'
        )
    no_key = "No authentication methods available" in str(error)
    if isinstance(error, paramiko.AuthenticationException) or no_key:
        return (
            f"{address} does not accept your key or password ({text(error)}); this has to work first: "
            f"{login} (then: ssh-copy-id {port}{address.user}@{address.host})"
        )
    if "not found in known_hosts" in str(error):
        return (
            f"The host key of {address} is unknown; log in once and compare its fingerprint with the "
            f"one that your cluster publishes: {login}"
        )
    return f"{address} cannot be reached: {text(error)}; does this work? {login}"


def text(error: Exception) -> str:
    """Describe an error of a connection."""
    if isinstance(error, socket.gaierror):
        return f"unknown host ({error.strerror})"
    if "Error reading SSH protocol banner" in str(error):
        return "it answers, and closes the connection before it says that it is an SSH server"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, NoValidConnectionsError):  # one for each address of the name
        return ", ".join({str(getattr(e, "strerror", e)) for e in error.errors.values()})
    return str(error) or type(error).__name__
