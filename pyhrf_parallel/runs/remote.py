"""Runs on a cluster: their files are sent and fetched over SFTP, their engine is started over SSH."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.needs import Needs
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.arriving import arriving
from pyhrf_parallel.runs.cluster import Cluster
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.runs.sftp import SFTPFiles
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker.run_paths import RunPaths

RUNS = "pyhrf_parallel_runs"


class RemoteRunDirectory(RunDirectory):
    """The directory of a run on a cluster.

    Parameters
    ----------
    cluster : Cluster
        The cluster.
    directory : str
        Its path there.
    data_directories : sequence of str
        Other directories of the run, for data.
    """

    def __init__(
        self, cluster: Cluster, directory: str, data_directories: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, data_directories)
        self.cluster = cluster
        self._files = SFTPFiles(cluster)

    @classmethod
    def prepare(
        cls,
        cluster: Cluster,
        name: str,
        plan: Plan,
        size: int,
        data_directories: Sequence[tuple[str, int]] = (),
    ) -> Self:
        """Make the directory of a run, and others for its data.

        Parameters
        ----------
        cluster : Cluster
            The cluster.
        name : str
            The id of the run.
        plan : Plan
            What it is to do.
        size : int
            Size of its payload in bytes.
        data_directories : sequence of (str, int)
            Where to make directories for data, with the number of bytes that will go there.

        Raises
        ------
        ClusterError
            If that is impossible, or the run could not work there.
        """
        root = f"{cluster.path(cluster.settings.remote_path)}/{RUNS}"
        there = [cluster.path(place) for place, _ in data_directories]
        answer = cluster.persistently(
            lambda: cluster.ask("prepare", root, name, plan.scheduler, *there)
        )
        run = cls(cluster, answer["directory"], answer["data_directories"])
        try:
            _check(cluster, answer, plan, [size, *(size for _, size in data_directories)])
        except BaseException:
            with suppress(Exception):
                run.remove()
            raise
        return run

    def check(self) -> None:
        """See `RunDirectory.check`."""
        self._files.check(self.directory)

    def check_needs(self, needs: Needs) -> None:
        """See `RunDirectory.check_needs`."""
        self.cluster.check_distributions(needs.distributions())

    def begin(self, plan: Plan, payload: Path) -> None:
        """Send payload and plan, and start the engine."""
        paths = RunPaths(self.directory)
        self._files.put(payload, paths.payload, "The payload")
        self._files.write(paths.plan, plan.with_payload(payload).dumps())
        self.revive()

    def send(self, path: Path, target: str) -> None:
        """See `RunDirectory.send`."""
        self._files.put(path, target)

    copy = send

    def fetch(self, path: str, target: Path, progress: ProgressOption = None) -> str:
        """See `RunDirectory.fetch`."""
        host = str(self.cluster.address)
        self._files.check(str(PurePosixPath(path).parent))
        answer = self.cluster.persistently(lambda: self.cluster.ask("checksum", path))
        expected: str = answer["sha256"]
        with arriving(target, expected, f"{host}:{path}") as part:
            self._files.get(path, part, progress)
        return expected

    def reaches(self, address: str, path: Path) -> bool:
        """Return whether the cluster's account can log in to this machine, and write to the directory of a file."""
        return bool(self.cluster.ask("reaches", address, str(path))["reaches"])

    def close(self) -> None:
        """Close the connection."""
        self.cluster.close()

    def sizes(self) -> dict[str, int]:
        """See `RunDirectory.sizes`."""
        try:
            return self._files.sizes(self.directory)
        except FileNotFoundError:
            raise ClusterError(
                f"The run's directory {self.directory} on {self.cluster.address} is gone"
            ) from None

    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """See `RunDirectory.pieces`."""
        return self._files.pieces(f"{self.directory}/{name}", position)

    def _start(self, *options: str) -> None:
        self.cluster.persistently(lambda: self.cluster.ask("start", self.directory, *options))

    def is_running(self) -> bool:
        """Whether the engine is running, as far as this login node can see."""
        answer = self.cluster.persistently(lambda: self.cluster.ask("is_running", self.directory))
        return bool(answer["running"]) or not answer["here"]

    def cancel(self) -> None:
        """Stop the engine and its jobs."""
        self.cluster.persistently(lambda: self.cluster.ask("stop", self.directory))

    def remove(self) -> None:
        """Stop the engine and its jobs, and remove everything that belongs to the run."""
        self.cluster.persistently(lambda: self.cluster.ask("remove", self.directory))


def _check(cluster: Cluster, answer: dict[str, Any], plan: Plan, sizes: list[int]) -> None:
    """Raise an error, before anything is sent, if the run could not work there."""
    setup = f"pyhrf-parallel setup-cluster {cluster.address.alias}"
    here = ".".join(map(str, sys.version_info[:2]))
    there = ".".join(map(str, answer["python"][:2]))
    problem = ""
    if here != there:
        problem = (
            f"has Python {there}, and here runs {here}: functions travel between equal ones only"
        )
    elif answer["package"] != __version__:
        problem = f"has pyhrf_parallel {answer['package']}, and here is {__version__}; run: {setup}"
    elif answer["soma_workflow"] is None:
        problem = f"does not have soma-workflow; run: {setup}"
    elif answer["refusal"]:
        problem = (
            f"cannot use Slurm: {answer['refusal']}; if it works when you log in, run {setup}, or say "
            "what your login does there as setup of [parallel-cluster]"
        )
    elif plan.queue and answer["queues"] is not None and plan.queue not in answer["queues"]:
        problem = f"has no queue {plan.queue!r}, only {', '.join(answer['queues'])}"
    directories = [answer["directory"], *answer["data_directories"]]
    for directory, free, size in zip(directories, answer["free"], sizes, strict=True):
        if free < size * 1.05:
            what = "payload" if directory == directories[0] else "data, with their regions,"
            problem = problem or (
                f"has {free / 1e6:.0f} MB free in {directory}, and the {what} is {size / 1e6:.0f} MB"
            )
    if problem:
        raise ClusterError(f"{cluster.address} ({cluster.settings.remote_python}) {problem}")
