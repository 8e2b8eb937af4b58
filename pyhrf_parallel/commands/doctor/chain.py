"""A chain of checks that depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ParallelError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster
    from pyhrf_parallel.runs.ssh import Address


class Finding(NamedTuple):
    """The outcome of a check.

    Attributes
    ----------
    outcome : {'ok', 'warn', 'FAIL', 'skip'}
        Whether it works.
    found, advice : str
        What was found, and what to do about it.
    """

    outcome: str
    found: str
    advice: str = ""


def skipped(reason: str) -> Finding:
    """Return the finding of a check that does not apply."""
    return Finding("skip", reason)


def remark(found: str, advice: str) -> Finding:
    """Return the finding of a check that passes with a warning."""
    return Finding("warn", found, advice)


def broken(found: str, advice: str = "") -> Finding:
    """Return the finding of a check that fails."""
    return Finding("FAIL", found, advice)


@dataclass
class Chain:
    """What the checks have found so far, for later ones.

    Attributes
    ----------
    with_job : bool
        Whether to run a job.
    patience : float
        Seconds that the job may take.
    python27 : str or None
        A Python 2.7 on the cluster, to check for pyhrf.
    settings : Configuration
        The configuration.
    address : Address or None
        The address of the cluster.
    connected : Cluster or None
        The cluster, after the login.
    refusal : ParallelError or None
        Why the login failed.
    """

    with_job: bool = True
    patience: float = 120
    python27: str | None = None
    settings: Configuration = field(default_factory=Configuration)
    address: Address | None = None
    connected: Cluster | None = None
    refusal: ParallelError | None = None

    @property
    def cluster(self) -> Cluster:
        """The cluster, for checks after the login."""
        assert self.connected is not None  # noqa: S101
        return self.connected

    @property
    def server(self) -> str:
        """The name of the configured cluster."""
        assert self.settings.server is not None  # noqa: S101
        return self.settings.server

    @property
    def setup(self) -> str:
        """The command that sets the cluster up."""
        return f"pyhrf-parallel setup-cluster {self.server}"


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes
    ----------
    name : str
        The name of the check.
    needs : tuple of str
        The checks that it depends on.
    look : callable
        Performs the check: returns what was found, or raises an error of this package.
    """

    name: str
    needs: tuple[str, ...]
    look: Callable[[Chain], str | Finding]


def examine(
    checks: Iterable[Check], chain: Chain, announce: Callable[[str], object]
) -> Iterator[tuple[str, Finding]]:
    """Do all checks, except those that depend on a failed one.

    Parameters
    ----------
    checks : iterable of Check
        The checks, each after those that it depends on.
    chain : Chain
        Where checks keep what later ones need.
    announce : callable
        Called with the name of each check that begins.

    Yields
    ------
    name : str
        The name of the check.
    finding : Finding
        Its outcome, as soon as it is known.
    """
    failed: dict[str, str] = {}  # a check, and the failed one that it depends on
    for check in checks:
        reason = next((failed[need] for need in check.needs if need in failed), "")
        if reason:
            failed[check.name] = reason
            yield check.name, skipped(f"needs {reason}")
            continue
        announce(check.name)
        finding = _look(check, chain)
        if finding.outcome == "FAIL":
            failed[check.name] = check.name
        yield check.name, finding


def _look(check: Check, chain: Chain) -> Finding:
    try:
        found = check.look(chain)
    except ParallelError as error:
        return broken(str(error))
    return found if isinstance(found, Finding) else Finding("ok", found)
