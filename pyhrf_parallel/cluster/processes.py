"""Ending processes with all that they have started."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def kill_descendants(process: psutil.Process) -> None:
    """Kill all processes that a process has started, and those that they have.

    Raises
    ------
    psutil.NoSuchProcess
        If the process itself is not there.
    """
    import psutil

    for one in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            one.kill()
