from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from typing import Any

import pytest

from pyhrf_parallel import remote_map
from pyhrf_parallel.backends import MODES, Mode
from tests.contract import cases


@pytest.mark.parametrize("mode", MODES)
def test_a_callable_gets_done_and_total(mode: Mode) -> None:
    seen: list[tuple[int, int]] = []
    remote_map(
        cases.fail_at,
        [(i, 3) for i in range(6)],
        mode=mode,
        on_error="return",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {6}


@pytest.mark.parametrize("mode", MODES)
def test_a_bar_on_request(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    remote_map(
        cases.fail_at, [(i, 3) for i in range(6)], mode=mode, on_error="return", progress=True
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert "fail_at: 100%" in err
    assert "6/6" in err
    assert "1 failed" in err


def test_a_bar_tells_how_the_jobs_are(capsys: pytest.CaptureFixture[str]) -> None:
    naps = [(0.8,)] * 4
    remote_map(time.sleep, naps, mode="remote_cluster", n_jobs=2, progress=True)
    assert "jobs: 2 running" in capsys.readouterr().err


def test_no_bar_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    remote_map(time.sleep, [(0.9,)] * 2)
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import time
from pyhrf_parallel import remote_map
remote_map(time.sleep, [({seconds},)] * 3{more})
"""


def on_terminal(seconds: float, more: str = "") -> str:
    """Run a script with stderr on a terminal; return what it shows there."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(seconds=seconds, more=more)], stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 1000)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(controller)
    assert process.wait() == 0
    return shown.decode()


def test_a_bar_on_a_terminal_after_a_while() -> None:
    shown = on_terminal(0.8)
    assert "sleep:" in shown
    assert "3/3" in shown


def test_no_bar_on_a_terminal_for_a_short_map() -> None:
    assert on_terminal(0.1) == ""


def test_no_bar_on_a_terminal_if_not_wanted() -> None:
    assert on_terminal(0.8, ", progress=False") == ""


def test_a_listener_that_raises_stops_the_map() -> None:
    def listen(*_: Any) -> None:
        raise RuntimeError("enough")

    for mode in MODES:
        with pytest.raises(RuntimeError, match="enough"):
            remote_map(cases.add, [(1,), (2,)], mode=mode, progress=listen)
        assert remote_map(cases.add, [(1,)], mode=mode) == [3]
