"""Many trials, one after the other for so many minutes: what `make faults` runs.

The table at the end counts, for each kind of fault, the trials, and in how many of them something hung, a result
was wrong, was lost without that being said, or something was left behind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.cluster.one_node import OneNode
from tests.faults.clusters import on_cluster, running_cluster
from tests.faults.trials import KINDS, Trial

_FINDINGS = ("hangs", "wrong", "lost", "left")


CLUSTER = "cluster"


def run_trial(kind: Callable[[Trial], None], seed: str) -> Trial:
    """Run one trial; nothing stays of it."""
    place = Path(tempfile.mkdtemp(prefix="pyhrf_parallel-fault-"))
    trial = Trial(place, random.Random(seed))
    try:
        kind(trial)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return trial


class Campaign:
    """Runs trials, and counts.

    Parameters
    ----------
    seed : int
        The same seed gives the same trials.
    kinds : list of str
        Of `KINDS`.
    cluster : OneNode, optional
        For faults of clusters, too.
    """

    def __init__(self, seed: int, kinds: list[str], cluster: OneNode | None = None) -> None:
        self._seed = seed
        self._kinds = [*kinds, CLUSTER] if cluster else kinds
        self._cluster = cluster
        self._one_on_cluster = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []

    def run(self, deadline: float, most: int, *, first: int = 0, side_by_side: int = 2) -> None:
        """Run trials until a time of the monotonic clock, and no more than so many."""

        def work(number: int) -> None:
            kind = self._kinds[number % len(self._kinds)]
            if time.monotonic() > deadline:
                return
            seed = f"{self._seed}/{number}"
            if kind == CLUSTER and self._cluster:
                with self._one_on_cluster:  # what is left there is counted
                    trial = run_trial(partial(on_cluster, cluster=self._cluster), seed)
            else:
                trial = run_trial(KINDS[kind], seed)
            self._counts[kind, "trials"] += 1
            for finding in _FINDINGS:
                found = getattr(trial, finding)
                self._counts[kind, finding] += bool(found)
                for text in found:
                    self.problems.append(f"trial {number}, {kind}, {finding}: {text}")
                    print(self.problems[-1], file=sys.stderr, flush=True)

        with ThreadPoolExecutor(side_by_side) as pool:
            list(pool.map(work, range(first, first + most)))

    def table(self) -> str:
        """Return the counts as text."""
        columns = ("trials", *_FINDINGS)
        lines = [f"{'fault':<16}" + "".join(f"{column:>8}" for column in columns)]
        for kind in self._kinds:
            numbers = [self._counts[kind, column] for column in columns]
            lines.append(f"{kind:<16}" + "".join(f"{number:>8}" for number in numbers))
        totals = [sum(self._counts[kind, column] for kind in self._kinds) for column in columns]
        lines.append(f"{'all':<16}" + "".join(f"{number:>8}" for number in totals))
        return "\n".join(lines)


def main() -> int:
    """Run what the command line asks for; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--trials", type=int, default=1_000_000, help="no more than so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with the trial of this number")
    parser.add_argument("--side-by-side", type=int, default=2, help="so many trials at a time")
    parser.add_argument("--only", choices=[*KINDS, CLUSTER], help="one kind of fault")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the scripts inherit that
    kinds = [kind for kind in KINDS if options.only in (None, kind)]
    with ExitStack() as stack:
        cluster = None
        if options.only in (None, CLUSTER):
            cluster = stack.enter_context(running_cluster())
        campaign = Campaign(options.seed, kinds, cluster)
        deadline = time.monotonic() + 60 * options.minutes
        side_by_side = options.side_by_side
        campaign.run(deadline, options.trials, first=options.first, side_by_side=side_by_side)
    print(campaign.table())
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
