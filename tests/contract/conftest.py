"""What the suites of all modes share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.scripts import Script


@pytest.fixture
def script(tmp_path: Path) -> Script:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the scripts would inherit that
    return Script(tmp_path)
