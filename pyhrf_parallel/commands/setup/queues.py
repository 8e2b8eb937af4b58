"""Asking Slurm over SSH, in the way that jobs will be submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyhrf_parallel.commands.setup.interpreters import NOT_RUN, last_line
from pyhrf_parallel.engine.slurm import LIST_QUEUES
from pyhrf_parallel.errors import ClusterError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

#: What soma-workflow and this package call.
SLURM_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo")


def answers(cluster: Cluster) -> bool:
    """Whether Slurm answers commands over SSH, which may lack settings of a login."""
    return cluster.connection.run(LIST_QUEUES).status == 0


def has_slurm(cluster: Cluster) -> bool:
    """Whether Slurm's commands are found over SSH, whether or not its controller answers."""
    return cluster.connection.run(["sbatch", "--version"]).status not in NOT_RUN


def slurm_version(cluster: Cluster) -> str:
    """Return the version of Slurm.

    Raises
    ------
    ClusterError
        If one of its commands does not answer.
    """
    version = ""
    for command in SLURM_COMMANDS:
        done = cluster.connection.run([command, "--version"])
        if done.status:
            if done.status in NOT_RUN:
                raise ClusterError(f"{command} is not found on {cluster.address}")
            raise ClusterError(f"{command} on {cluster.address}: {last_line(done.err)}")
        version = last_line(done.out.decode(errors="replace"))
    return version


def find_queues(cluster: Cluster) -> list[str]:
    """Return the names of Slurm's partitions.

    Raises
    ------
    ClusterError
        If Slurm does not answer.
    """
    done = cluster.connection.run(LIST_QUEUES)
    if done.status:
        why = last_line(done.err) or f"status {done.status}"
        raise ClusterError(f"sinfo on {cluster.address} does not answer: {why}")
    return sorted(set(done.out.decode(errors="replace").split()))
