"""Following a run from outside: taking in its records while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pyhrf_parallel.engine.plan import EngineState
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import LARGE
from pyhrf_parallel.worker.record_files import PIECE, RecordStream
from pyhrf_parallel.worker.records import absorb
from pyhrf_parallel.worker.run_paths import RunPaths

_TAIL = 1 << 18  # bytes of a log in which its last lines are looked for


class RunFiles(Protocol):
    """The directory of a run, wherever it is."""

    def sizes(self) -> dict[str, int]:
        """Return the files of the run, with their sizes."""

    def read(self, name: str) -> bytes:
        """Return what a file of the run holds."""

    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """Yield what a file of the run holds from a position on, piece by piece."""


class LocalFiles:
    """The directory of a run on this machine.

    Parameters
    ----------
    directory : path
        Its path.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(directory)

    def sizes(self) -> dict[str, int]:
        """Return the files of the run, with their sizes."""
        found = {}
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            raise ClusterError(f"The run's directory {self.directory} is gone") from None
        return found

    def read(self, name: str) -> bytes:
        """Return what a file of the run holds."""
        return Path(self.directory, name).read_bytes()

    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """Yield what a file of the run holds from a position on, piece by piece."""
        with Path(self.directory, name).open("rb") as file:
            file.seek(position)
            while piece := file.read(PIECE):
                yield piece


def read_state(files: RunFiles) -> EngineState | None:
    """Return the engine's own words; None before it has spoken."""
    try:
        return EngineState.loads(files.read(RunPaths().state))
    except FileNotFoundError:
        return None


def read_log(files: RunFiles, name: str, size: int, lines: int | None) -> str:
    """Return the last lines of a log of that size, of which no more is read than that takes."""
    start = 0 if lines is None else max(0, size - _TAIL)
    content = b"".join(files.pieces(name, start))
    if lines is None:
        return content.decode(errors="replace")
    kept = content.decode(errors="replace").splitlines(keepends=True)
    return "".join(kept[-lines:] if lines else ())


class Follower:
    """Takes in what is new of a run, look after look.

    Parameters
    ----------
    files : RunFiles
        The run.
    outcomes : Outcomes
        Filled in.
    """

    def __init__(self, files: RunFiles, outcomes: Outcomes) -> None:
        self._files = files
        self._outcomes = outcomes
        self._streams: dict[str, RecordStream] = {}

    def look(self) -> EngineState | None:
        """Take in all new records; return the engine's state as it was before.

        Raises
        ------
        ClusterError
            If the engine has given up.
        """
        state = read_state(self._files)
        for name, size in self._files.sizes().items():
            if final := RunPaths.final_records_name(name):
                self._take(name, size, self._streams.setdefault(final, RecordStream()))
        if state:
            self._outcomes.note_jobs(state.summary())
        if state and state.phase == "failed" and not self._outcomes.complete:
            raise ClusterError(f"The jobs could not be run on {state.host}: {state.error}")
        return state

    def _take(self, name: str, size: int, stream: RecordStream) -> None:
        if size > stream.position:
            with suppress(FileNotFoundError):  # it has just got its final name
                for piece in self._files.pieces(name, stream.position):
                    absorb(stream.feed(piece), self._outcomes)
                    if size >= LARGE:
                        done = f"{stream.position / 1e6:,.0f} of {size / 1e6:,.0f} MB"
                        self._outcomes.note_jobs(f"received {done}")
