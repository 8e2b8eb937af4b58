"""Finding processes, and ending them with all their descendants.

Uses ``/proc``, or ``ps`` where there is none, as on macOS. Standard library only, as clusters have no more.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

_PROC = "/proc"
_SET_CHILD_SUBREAPER = 36  # of prctl
_GRACE = 1.0  # seconds for what is asked to end; joblib's resource trackers clean up then
_TRIES = 200  # until what was killed is gone
_PAUSE = 0.01  # seconds


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, so that all can be found.

    Linux only; elsewhere, detached daemons are not found.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def take_charge() -> None:
    """End all descendants with this process, where the system can; pass SIGTERM on to them."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, _end_all)


def _end_all(number: int, _frame: object) -> None:
    end_descendants(os.getpid())
    end_like(-number)


def end_like(status: int) -> NoReturn:
    """End this process as another one ended, with an exit status as in `subprocess` (-9 for SIGKILL)."""
    if status < 0:
        with suppress(OSError, ValueError):  # SIGKILL has no action to restore
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(abs(status))


def wait_for_child(child: int) -> int:
    """Wait for a child, reaping the orphans that end meanwhile; return its exit status."""
    ended = 0
    while ended != child:
        ended, status = os.wait()
    return os.waitstatus_to_exitcode(status)


def end_orphans() -> None:
    """End the processes that the last child has left running."""
    with suppress(ChildProcessError):  # usually there is nothing, and no need to look any further
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        end_descendants(os.getpid())


def find_descendants(pid: int) -> list[int]:
    """Return all living descendants of a process."""
    children: dict[int, list[int]] = {}
    alive = set()
    for one, parent, state in _table():
        children.setdefault(parent, []).append(one)
        if not state.startswith("Z"):
            alive.add(one)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return [one for one in found[1:] if one in alive]


def kill_descendants(pid: int) -> None:
    """Kill all descendants of a process, until there are none."""
    for _ in range(_TRIES):
        if not _signal_descendants(pid, signal.SIGKILL):
            return
        time.sleep(_PAUSE)


def end_descendants(pid: int) -> None:
    """Terminate all descendants of a process; kill those still running after a second."""
    if not _signal_descendants(pid, signal.SIGTERM):
        return
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        time.sleep(_PAUSE)
        if not find_descendants(pid):
            return
    kill_descendants(pid)


def kill_tree(pid: int, *, gently: bool = False) -> None:
    """Kill a process and its descendants; if `gently`, terminate these first."""
    _send(pid, signal.SIGSTOP)  # or it might start more meanwhile
    if gently:
        end_descendants(pid)
    kill_descendants(pid)
    _send(pid, signal.SIGKILL)


def _signal_descendants(pid: int, number: int) -> list[int]:
    """Send a signal to all descendants of a process; return them."""
    found = find_descendants(pid)
    for one in found:
        _send(one, number)
    return found


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it has ended, or is another user's by now


def find_start(pid: int) -> str:
    """Return the start time of a process, as text, which with the pid identifies it; empty if it has ended."""
    if os.path.isdir(_PROC):
        fields = _stat(str(pid))
        return "" if fields is None or fields[0] == "Z" else fields[19]
    return "-".join(" ".join(_ask("-p", str(pid), "-o", "lstart=")).split())


def find_own(is_wanted: Callable[[list[str], str], bool]) -> list[int]:
    """Return the processes of this account that satisfy a condition.

    Parameters
    ----------
    is_wanted : callable
        Takes the words of a process and its working directory ("" if unknown).
    """
    return [pid for pid, words, place in _commands() if is_wanted(words, place)]


def _commands() -> Iterator[tuple[int, list[str], str]]:
    """Yield processes of this account, with their words and working directories."""
    if not os.path.isdir(_PROC):
        for line in _ask("-ww", "-U", str(os.getuid()), "-o", "pid=,command="):
            pid, *words = line.split()
            yield int(pid), words, ""
        return
    for name in filter(str.isdigit, os.listdir(_PROC)):
        try:
            if os.stat(os.path.join(_PROC, name)).st_uid != os.getuid():
                continue
            with open(os.path.join(_PROC, name, "cmdline"), "rb") as file:
                words = [os.fsdecode(word) for word in file.read().split(b"\0")]
            yield int(name), words, os.readlink(os.path.join(_PROC, name, "cwd"))
        except OSError:  # it has ended
            continue


def _table() -> Iterator[tuple[int, int, str]]:
    """Yield the pid of each process, that of its parent, and its state."""
    if not os.path.isdir(_PROC):
        for line in _ask("-A", "-o", "pid=,ppid=,state="):
            pid, parent, state = line.split()
            yield int(pid), int(parent), state
        return
    for name in filter(str.isdigit, os.listdir(_PROC)):
        fields = _stat(name)
        if fields is not None:
            yield int(name), int(fields[1]), fields[0]


def _stat(name: str) -> list[str] | None:
    """Return the fields of a process from its state on; None if it has ended."""
    try:
        with open(os.path.join(_PROC, name, "stat"), "rb") as file:
            # Its name comes first, in parentheses, and may hold anything.
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _ask(*options: str) -> list[str]:
    """Return the output of ``ps``, without the line about itself."""
    import subprocess

    with subprocess.Popen(["/bin/ps", *options], stdout=subprocess.PIPE, text=True) as ps:
        lines = ps.communicate()[0].splitlines()
    return [line for line in lines if line.split()[:1] != [str(ps.pid)]]
