"""A chain of checks, each of which hangs on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pyhrf_parallel.commands.console import CommandError
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ParallelError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.remote import Cluster
    from pyhrf_parallel.runs.ssh import Address


class BrokenError(CommandError):
    """A link of the chain is broken.

    Attributes
    ----------
    found, advice : str
        What is wrong, and what to do.
    """

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(found, advice)
        self.found = found
        self.advice = advice


class NothingToCheck(Exception):  # noqa: N818  (nothing is wrong)
    """A check has nothing to look at."""


class Remark(NamedTuple):
    """What a check has found that works, and is not as it should be."""

    found: str
    advice: str


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
        Returns what it has found, or a Remark; or raises BrokenError, NothingToCheck, or any error of this
        package (whose text says what to do).
    """

    name: str
    needs: tuple[str, ...]
    look: Callable[[Chain], str | Remark]


@dataclass(frozen=True)
class Finding:
    """What came of a check: `outcome` is ``'ok'``, ``'warn'``, ``'FAIL'`` or ``'skip'``."""

    check: str
    outcome: str
    found: str
    advice: str = ""


def examine(
    checks: Iterable[Check], chain: Chain, announce: Callable[[str], object]
) -> Iterator[Finding]:
    """Do all checks, skipping those that hang on a broken one.

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
    Finding
        One for each check, as soon as it is there.
    """
    broken: dict[str, str] = {}  # a check, and the broken one that it hangs on
    for check in checks:
        reason = next((broken[need] for need in check.needs if need in broken), "")
        if reason:
            broken[check.name] = reason
            yield Finding(check.name, "skip", f"needs {reason}")
            continue
        announce(check.name)
        finding = _look(check, chain)
        if finding.outcome == "FAIL":
            broken[check.name] = check.name
        yield finding


def _look(check: Check, chain: Chain) -> Finding:
    try:
        found = check.look(chain)
        return (
            Finding(check.name, "warn", *found)
            if isinstance(found, Remark)
            else Finding(check.name, "ok", found)
        )
    except NothingToCheck as nothing:
        return Finding(check.name, "skip", str(nothing))
    except BrokenError as broken:
        return Finding(check.name, "FAIL", broken.found, broken.advice)
    except ParallelError as error:
        return Finding(check.name, "FAIL", str(error))
