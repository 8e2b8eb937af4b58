"""A chain of checks, each of which depends on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ParallelError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.remote import Cluster
    from pyhrf_parallel.runs.ssh import Address


class Finding(NamedTuple):
    """What came of a check.

    Attributes
    ----------
    outcome : {'ok', 'warn', 'FAIL', 'skip'}
        Whether it works.
    found, advice : str
        What there is, and what to do about it.
    """

    outcome: str
    found: str
    advice: str = ""


def skipped(reason: str) -> Finding:
    """Return what a check finds that has nothing to look at."""
    return Finding("skip", reason)


def remark(found: str, advice: str) -> Finding:
    """Return what a check finds that works, but not as it should."""
    return Finding("warn", found, advice)


def broken(found: str, advice: str = "") -> Finding:
    """Return what a check finds that does not work."""
    return Finding("FAIL", found, advice)


@dataclass
class Chain:
    """What the checks have found so far, for those that come later.

    Attributes
    ----------
    with_job : bool
        Whether a job is to be run.
    patience : float
        Seconds that it may take.
    python27 : str or None
        The Python 2.7 there that should have pyhrf.
    settings : Configuration
        The configuration.
    address : Address or None
        Where the cluster is.
    connected : Cluster or None
        The cluster, once logged in.
    refusal : ParallelError or None
        Why that was impossible.
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
        """The cluster, for checks that need the login."""
        assert self.connected is not None  # noqa: S101
        return self.connected

    @property
    def server(self) -> str:
        """Its name, for checks that need a configured one."""
        assert self.settings.server is not None  # noqa: S101
        return self.settings.server

    @property
    def setup(self) -> str:
        """The command that sets it up."""
        return f"pyhrf-parallel setup-cluster {self.server}"


@dataclass(frozen=True)
class Check:
    """A link of the chain.

    Attributes
    ----------
    name : str
        What is looked at.
    needs : tuple of str
        The checks without which it makes no sense.
    look : callable
        Returns what it has found, or raises any error of this package, whose text says what to do.
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
        In an order in which each comes after those that it needs.
    chain : Chain
        Filled in.
    announce : callable
        Called with the name of each check that begins: it may take long.

    Yields
    ------
    name : str
        The check.
    finding : Finding
        What came of it, as soon as it is known.
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
