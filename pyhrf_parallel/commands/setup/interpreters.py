"""Python interpreters on the cluster: finding one of the same minor version as here."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.errors import ClusterError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

#: The minor version of here, ``'3.11'``.
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
CANDIDATES = (f"python{MINOR}", "/usr/bin/python3", "python3")
#: What a shell answers for a command that it cannot run.
NOT_RUN = (126, 127)
_SHORT = 100  # characters of what something else than an interpreter says
# Runs in any Python from 2.7 on.
_PROBE = """
import json, os, sys
try:
    import venv
except ImportError:
    venv = None
own = sys.prefix != getattr(sys, "base_prefix", sys.prefix)
own = own or os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
base = getattr(sys, "base_prefix", sys.prefix)
print(json.dumps({"version": list(sys.version_info[:3]), "venv": bool(venv), "own": own, "base": base}))
"""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter on the cluster.

    Attributes
    ----------
    command : str
        The command that runs it.
    version : str
        ``'3.11.2'``; empty if it could not be run.
    has_venv : bool
        Whether it can make virtual environments.
    is_environment : bool
        Whether it belongs to a virtual or conda environment, in which packages may be installed.
    base : str
        The prefix of its Python installation.
    problem : str
        Why it could not be run.
    """

    command: str
    version: str = ""
    has_venv: bool = False
    is_environment: bool = False
    base: str = ""
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Whether functions pickled here can be loaded there."""
        return self.version.rpartition(".")[0] == MINOR

    def __str__(self) -> str:
        """Describe it."""
        return f"{self.command}: {self.problem or f'Python {self.version}'}"


def probe(cluster: Cluster, command: str) -> Interpreter:
    """Examine an interpreter on the cluster."""
    done = cluster.connection.run([cluster.path(command), "-c", _PROBE])
    if done.status in NOT_RUN:
        return Interpreter(command, problem=f"cannot be run ({last_line(done.err)[:_SHORT]})")
    try:
        found: dict[str, Any] = json.loads(last_line(done.out.decode(errors="replace")))
    except ValueError:
        why = last_line(done.err)[:_SHORT] or "no answer"
        return Interpreter(command, problem=f"ended with status {done.status} ({why})")
    version = ".".join(map(str, found["version"]))
    return Interpreter(command, version, found["venv"], found["own"], found.get("base", ""))


def find_base(cluster: Cluster, given: str | None) -> str:
    """Return the interpreter to make the environment with.

    Parameters
    ----------
    cluster : Cluster
        Where.
    given : str, optional
        The only interpreter to consider.

    Raises
    ------
    ClusterError
        If there is none; the message lists those that were found.
    """
    tried = []
    for command in [given] if given else CANDIDATES:
        found = probe(cluster, command)
        if found.fits and found.has_venv:
            return command
        tried.append(f"{found} without the module venv" if found.fits else str(found))
    raise ClusterError(
        f"There is no Python {MINOR} on {cluster.address}, and functions travel between equal minor "
        f"versions only. Tried {'; '.join(tried)}. If it is elsewhere, name it: --base-python "
        f"/path/to/python{MINOR}. If it comes as an environment module: --setup 'module load NAME'. Or else "
        f"use one of those versions here."
    )


def last_line(text: str) -> str:
    """Return the last line that is not empty; a login may print others before it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
