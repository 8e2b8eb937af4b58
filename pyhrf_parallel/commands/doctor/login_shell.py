"""Settings of a login shell on the cluster that commands over SSH lack."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from pyhrf_parallel.commands.setup.queues import answers
from pyhrf_parallel.errors import ClusterError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

_LISTS = ("PATH", "LD_LIBRARY_PATH")
_VALUES = ("SLURM_CONF",)
# A shell whose name begins with a hyphen is one of a login.
_LOGIN = 'exec -a "-${SHELL##*/}" "$SHELL" -c env'
_PATIENCE = 30  # seconds: what runs at a login may wait for somebody to type


def adopt_login(cluster: Cluster) -> bool:
    """Find the `setup` that Slurm needs, and set it; return whether Slurm answers then.

    Nothing is changed if it answers already, or if no such lines are found.
    """
    if answers(cluster):
        return True
    setup, before = find_setup(cluster), (cluster.connection.address, cluster.settings)
    if not setup:
        return False
    cluster.connection.address = replace(cluster.connection.address, setup=setup)
    cluster.settings = replace(cluster.settings, setup=setup)
    if answers(cluster):
        return True
    cluster.connection.address, cluster.settings = before
    return False


def find_setup(cluster: Cluster) -> str:
    """Return a line of shell with the settings for Slurm that commands over SSH lack."""
    try:
        here = _environment(cluster, "env")
        there = _environment(cluster, _LOGIN)
    except ClusterError:
        return ""
    words = [
        f"{name}={shlex.quote(there[name])}"
        for name in _VALUES
        if there.get(name, here.get(name)) != here.get(name)
    ]
    for name in _LISTS:
        known = here.get(name, "").split(":")
        more = [place for place in there.get(name, "").split(":") if place not in known]
        if more:
            words.append(f'{name}={shlex.quote(":".join(more))}:"${name}"')
    return f"export {' '.join(words)}" if words else ""


def _environment(cluster: Cluster, script: str) -> dict[str, str]:
    done = cluster.connection.run(["/bin/bash", "-c", script], timeout=_PATIENCE)
    lines = done.out.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
