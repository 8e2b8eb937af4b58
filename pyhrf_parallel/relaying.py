"""What tasks print into logs of this machine, shown where this process shows its own errors."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


class Relay:
    """Shows what is new in logs, line by line: in a terminal, or below a notebook's cell.

    On stderr: stdout of a script may be read by another program, and these lines come in any order.
    """

    def __init__(self) -> None:
        self._shown: dict[Path, int] = {}

    def show(self, log: Path, *, is_complete: bool = False) -> None:
        """Show the lines that are new; if the log is complete, also what no line end follows."""
        shown = self._shown.get(log, 0)
        try:
            with log.open("rb") as file:
                file.seek(shown)
                content = file.read()
        except FileNotFoundError:  # its task has come to its end
            return
        if not is_complete:
            content = content[: content.rfind(b"\n") + 1]
        if content:
            self._shown[log] = shown + len(content)
            _write(content.decode(errors="replace"))


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):  # nobody reads it any more
        if "tqdm" in sys.modules:  # there may be a bar in the last line
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr, end="")
        else:
            sys.stderr.write(text)
            sys.stderr.flush()
