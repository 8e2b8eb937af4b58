"""The directory of a run as this side sees it, whether it is on this machine or on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pyhrf_parallel.engine.plan import EngineState, Plan
from pyhrf_parallel.needs import Needs
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.worker.run_paths import RunPaths

_TAIL = 1 << 18  # bytes at the end of a log in which its last lines are looked for


class RunDirectory(ABC):
    """The directory of a run; a context manager that closes it.

    Parameters
    ----------
    directory : str
        Its path.
    data_directories : sequence of str
        Other directories of the run, for data.
    """

    def __init__(self, directory: str, data_directories: Sequence[str] = ()) -> None:
        self.directory = directory
        self.data_directories: list[str] = list(data_directories)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close what is open; the run goes on."""

    @abstractmethod
    def check(self) -> None:
        """Check that nobody else could have put something there.

        Raises
        ------
        ConfigurationError
            Naming the directory.
        """

    def check_needs(self, needs: Needs) -> None:  # noqa: B027  (this machine has them)
        """Check that the distributions that the tasks need are installed where the jobs run.

        Raises
        ------
        ClusterError
            Naming those that are not.
        """

    # ---- files --------------------------------------------------------------------------------

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the run's files in bytes, by their names."""

    @abstractmethod
    def pieces(self, name: str, position: int) -> Iterator[bytes]:
        """Yield the content of a file of the run from a position on, piece by piece."""

    @abstractmethod
    def send(self, path: Path, target: str) -> None:
        """Make a file available as `target`; one on this machine may be linked.

        Raises
        ------
        TransferError
            If it did not get there, or there is another file of that name.
        """

    @abstractmethod
    def copy(self, path: Path, target: str) -> None:
        """Copy a file to `target`; see `send`."""

    @abstractmethod
    def fetch(self, path: str, target: Path, progress: ProgressOption = None) -> str:
        """Fetch a file, and compare the copy with it; return its SHA-256.

        Raises
        ------
        TransferError
            If they differ. `target` is complete, or as it was before.
        """

    def read(self, name: str) -> bytes:
        """Return the content of a file of the run."""
        return b"".join(self.pieces(name, 0))

    def state(self) -> EngineState | None:
        """Return the state that the engine has written last; None if it has not written one yet."""
        try:
            return EngineState.loads(self.read(RunPaths().state))
        except FileNotFoundError:
            return None

    def log(self, name: str, size: int, lines: int | None) -> str:
        """Return the last lines of a log of `size` bytes, reading its end only; all lines for None."""
        start = 0 if lines is None else max(0, size - _TAIL)
        content = b"".join(self.pieces(name, start)).decode(errors="replace")
        if lines is None:
            return content
        kept = content.splitlines(keepends=True)
        return "".join(kept[-lines:] if lines else ())

    # ---- the engine ---------------------------------------------------------------------------

    @abstractmethod
    def begin(self, plan: Plan, payload: Path) -> None:
        """Start the engine for a payload, which may be moved."""

    @abstractmethod
    def _start(self, *options: str) -> None:
        """Start the engine, unless it is running."""

    def start_again(self) -> None:
        """Start an engine that has ended, for the tasks that failed and the steps that were not done."""
        self._start("again")

    @abstractmethod
    def is_running(self) -> bool:
        """Whether the engine is running, as far as can be seen from here."""

    def revive(self) -> bool:
        """Start the engine again if it has died; return whether it had."""
        if self.is_running():
            return False
        self._start()
        return True

    @abstractmethod
    def cancel(self) -> None:
        """Stop the engine and its jobs."""

    @abstractmethod
    def remove(self) -> None:
        """Stop the engine and its jobs, and remove everything that belongs to the run."""
