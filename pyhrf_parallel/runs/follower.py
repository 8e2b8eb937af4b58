"""Following a run: its records are taken in while they are written."""

from __future__ import annotations

from contextlib import suppress

from pyhrf_parallel.engine.plan import EngineState
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import LARGE
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.worker.record_files import RecordStream
from pyhrf_parallel.worker.records import absorb
from pyhrf_parallel.worker.run_paths import RunPaths


class Follower:
    """Takes in the news of a run at each look.

    Parameters
    ----------
    run : RunDirectory
        The run.
    outcomes : Outcomes
        Filled in.
    """

    def __init__(self, run: RunDirectory, outcomes: Outcomes) -> None:
        self._run = run
        self._outcomes = outcomes
        self._streams: dict[str, RecordStream] = {}

    def look(self) -> EngineState | None:
        """Take in all new records; return the engine's state from just before.

        Raises
        ------
        ClusterError
            If the engine has given up.
        """
        state = self._run.state()
        for name, size in self._run.sizes().items():
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
                for piece in self._run.pieces(name, stream.position):
                    absorb(stream.feed(piece), self._outcomes)
                    if size >= LARGE:
                        done = f"{stream.position / 1e6:,.0f} of {size / 1e6:,.0f} MB"
                        self._outcomes.note_jobs(f"received {done}")
