"""Mode ``'remote_cluster'``: jobs of soma-workflow; without a configured cluster, on this machine."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from pyhrf_parallel.backends.base import require
from pyhrf_parallel.claims import Claims
from pyhrf_parallel.cluster.embedded import EmbeddedEngine, JobEnd
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import BackendUnavailableError, SubmissionError
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.records import RecordReader, absorb, lost
from pyhrf_parallel.runner import Cursor
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Outcomes, Work, count_workers
from pyhrf_parallel.worker import CLAIMS, PAYLOAD, command, describe_death, read_log_tail

_POLLS = (0.01, 0.1)  # seconds between two looks at the records: at first, and at most
_HOPELESS = 2  # rounds in a row in which no job ran a task


class RemoteClusterBackend:
    """Runs a few jobs, each of which takes many tasks."""

    raises_original = False

    def run(self, work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
        """Run the tasks; see `Backend`."""
        if configuration.server or configuration.server_id:
            raise BackendUnavailableError(
                f"The configuration names the cluster {configuration.server or configuration.server_id!r}, "
                "but this version runs mode='remote_cluster' on this machine only; leave server and "
                "server_id of [parallel-cluster] out (or None) for that"
            )
        if find_spec("soma_workflow") is None:  # imported in the engine's process only
            require("soma_workflow", "remote_cluster", "cluster")
        require("psutil", "remote_cluster", "cluster")
        slots = min(len(work), count_workers(work.options.n_jobs or configuration.nb_procs))
        with private_directory() as directory:
            write_payload(directory / PAYLOAD, work)
            with EmbeddedEngine(directory, slots) as engine:
                _Rounds(directory, engine, slots, outcomes).run()


class _Rounds:
    """Submits jobs for the tasks without outcome, until there is none."""

    def __init__(
        self, directory: Path, engine: EmbeddedEngine, slots: int, outcomes: Outcomes
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._slots = slots
        self._outcomes = outcomes
        self._deaths: Counter[int] = Counter()

    def run(self) -> None:
        number = vain = 0
        while not self._outcomes.complete:
            before = self._outcomes.settled, self._deaths.total()
            names = [f"round-{number}-job-{slot}" for slot in range(self._slots)]
            Claims.create(f"{self._directory}/{CLAIMS}", self._outcomes.pending(), self._slots)
            self._engine.submit([(name, command(".", name)) for name in names])
            for end in self._wait(names):
                self._account(end)
            number += 1
            progress = before != (self._outcomes.settled, self._deaths.total())
            vain = 0 if progress else vain + 1
            if vain == _HOPELESS:
                tail = read_log_tail(self._directory / f"{names[0]}.log")
                raise SubmissionError(f"The jobs end before they have run a task:\n{tail}")

    def _wait(self, names: list[str]) -> list[JobEnd]:
        """Take in records until all jobs have ended, or nothing is left to wait for."""
        readers = [RecordReader(f"{self._directory}/{name}.records") for name in names]
        pause, longest = _POLLS
        ends: list[JobEnd] | None = None
        while True:
            for reader in readers:
                absorb(reader.new(), self._outcomes)
            if self._outcomes.complete:
                return []
            if ends is not None:  # what they had written when they ended has been read
                return ends
            ends = self._engine.wait(pause)
            pause = min(longest, pause * 1.1)

    def _account(self, end: JobEnd) -> None:
        """Find the task that a job was killed with: the worker itself survives what its tasks do."""
        cursor = Cursor(f"{self._directory}/{end.name}.cursor")
        index = cursor.running
        cursor.close()
        if end.exit_value == 0 or index < 0 or self._outcomes.is_settled(index):
            return
        self._deaths[index] += 1
        if self._deaths[index] > self._outcomes.work.options.retries:
            how = describe_death(end.exit_value) if end.exit_value is not None else end.status
            tail = read_log_tail(self._directory / f"{end.name}.log")
            absorb([lost(index, f"{how}, with the job {end.name}", tail)], self._outcomes)


BACKEND = RemoteClusterBackend()
