"""A short campaign: a few trials of each kind of fault. `make faults` runs many."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.campaign import Campaign
from tests.faults.trials import KINDS


@pytest.mark.timeout(600)
def test_nothing_hangs_is_wrong_lost_or_left() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the scripts inherit that
    campaign = Campaign(seed=1, kinds=list(KINDS))
    campaign.run(time.monotonic() + 500, 2 * len(KINDS))
    assert campaign.problems == [], campaign.table()
