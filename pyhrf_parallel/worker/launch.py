"""Commands that start workers, and how their processes ended."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

_LOG_TAIL = 4000  # characters
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_WORKER = "pyhrf_parallel.worker.process"
# The package's place is an argument: it need not be installed for the interpreter to find it.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "__import__(sys.argv.pop(1), fromlist=['main']).main()"
)


def python_command(module: str, *arguments: object) -> list[str]:
    """Return the argv that runs `main` of one of our modules in a new process of this interpreter."""
    # -P: a file of the user's in the working directory must not stand in for a module.
    boot = [sys.executable, "-P", "-c", _BOOT, _PACKAGE_PARENT]
    return [*boot, module, *map(str, arguments)]


def worker_command(
    directory: str | Path, name: str, how: Literal["run", "claim", "supervise"], *tasks: int | str
) -> list[str]:
    """Return the argv of a worker; `tasks` are a range, or the name of a file of claims."""
    return python_command(_WORKER, directory, name, how, *tasks)


def describe_death(status: int) -> str:
    """Describe how a process ended, from its exit status as in `subprocess` (-9 for SIGKILL)."""
    import signal

    if status >= 0:
        return f"its process exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def read_log_tail(path: str | Path) -> str:
    """Return the end of a log file as text."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
