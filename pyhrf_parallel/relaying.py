"""Showing on stderr what tasks print into logs on this machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


class Relay:
    """Shows new lines of logs, in a terminal or below a notebook's cell.

    They go to stderr, as another program may read stdout, and these lines come in any order.
    """

    def __init__(self) -> None:
        self._shown: dict[Path, int] = {}

    def show(self, log: Path, *, is_complete: bool = False) -> None:
        """Show new lines; of a complete log also a last line without line end."""
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
