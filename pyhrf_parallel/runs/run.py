"""Runs on a cluster or on this machine, which go on when the process that submitted them ends."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Self

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine.plan import EngineState, JobStatus
from pyhrf_parallel.errors import ClusterError, RunNotFoundError, TransferError
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.runs.follower import Follower
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.runs.manifests import Manifest, RememberedWork, forget, load_manifest
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker.run_paths import RunPaths

_NEAR, _FAR = 0.05, 2.0  # seconds between two looks at a run: at least, and at most
_FAR_HERE = 0.1  # at most, for one on this machine
_PATIENCE = 0.05  # seconds between two looks, per second that it has lasted
_STOPPED = (
    "its engine has ended without a word (killed?): pyhrf-parallel collect {0} starts it again, and "
    "pyhrf-parallel cancel {0} ends what it has left"
)
_REVIVAL = 20.0  # seconds without news after which the engine is started again if it is dead
_HOPELESS = 3  # engines in a row that may end without a word


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes
    ----------
    phase : str
        ``'running'``, ``'done'``, ``'failed'``, ``'cancelled'``; or ``'stopped'`` if the engine has died: whoever
        waits for the run starts it again.
    tasks, returned, failed : int
        The number of tasks, of those that have returned, and of those that have failed.
    jobs : list of JobStatus
        The jobs of the scheduler.
    error : str
        Why the run failed as a whole.
    """

    phase: str
    tasks: int
    returned: int
    failed: int
    jobs: list[JobStatus]
    error: str = ""


def _goes_on(state: EngineState | None) -> bool:
    return state is None or state.phase == "running"


class Run:
    """A run on a cluster or on this machine, which goes on whether or not this process does.

    A context manager that closes the connection and leaves the run alone.

    Attributes
    ----------
    manifest : Manifest
        What was submitted, by whom, and with which settings.
    work : Work
        The tasks; only their text if another process submitted them.
    """

    def __init__(
        self,
        manifest: Manifest,
        run: RunDirectory | None = None,
        work: Work | None = None,
    ) -> None:
        self.manifest = manifest
        self.work: Work = work or RememberedWork.of(manifest)
        self._run = run
        self._outcomes = Outcomes(self.work)
        self._follower: Follower | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Name the run, and how to get at it from elsewhere."""
        name = type(self).__name__
        return f"<{name} {self.run_id!r}: {self.manifest.tasks} x {self.manifest.function}>"

    @property
    def run_id(self) -> str:
        """The name of the run, for `load` and the command line."""
        return self.manifest.run_id

    @classmethod
    def load(cls, run_id: str) -> Self:
        """Return a run that a process of this account submitted.

        Raises
        ------
        RunNotFoundError
            If there is no run of that name on this machine, or it is of another kind.
        """
        manifest = load_manifest(run_id)
        if not cls._knows(manifest):
            raise RunNotFoundError(f"Run {run_id!r} is no {cls.__name__}")
        return cls(manifest)

    @staticmethod
    def _knows(manifest: Manifest) -> bool:  # noqa: ARG004
        return True

    def close(self) -> None:
        """Close the connection; the run goes on."""
        if self._run is not None:
            self._run.close()
            self._run = self._follower = None

    def status(self) -> RunStatus:
        """Return the status of the run, without fetching results."""
        run = self._connected()
        state = run.state()
        is_dead = _goes_on(state) and not run.is_running()
        if is_dead:  # or it has ended in between
            state = run.state()
        if state is None:
            run.sizes()  # raises an error if there is no directory
            state = EngineState("running", 0, "")
        # Results that have arrived here may be newer than the engine's last state.
        known = self._outcomes
        settled, failed = max((state.settled, state.failed), (known.settled, known.failed))
        ended = state.phase in ("failed", "cancelled") and not self._outcomes.complete
        phase = "done" if not ended and self._is_over(state, settled) else state.phase
        if phase == "running" and is_dead:
            phase = "stopped"
        messages = [
            state.error,
            _STOPPED.format(self.run_id) if phase == "stopped" else "",
            *(f"{group}: {text}" for group, text in state.problems.items()),
        ]
        return RunStatus(
            phase, self.manifest.tasks, settled - failed, failed, state.jobs,
            "\n".join(filter(None, messages)),
        )  # fmt: skip

    def _is_over(self, state: EngineState | None, settled: int) -> bool:
        """Whether no further useful result can arrive."""
        return self._outcomes.complete or (
            state is not None and state.phase == "running" and settled == self.manifest.tasks
        )

    def done(self) -> bool:
        """Whether the run is over: it has ended, was cancelled, or failed."""
        return self.status().phase not in ("running", "stopped")

    def cancelled(self) -> bool:
        """Whether the run was cancelled before it had ended."""
        return self.status().phase == "cancelled"

    def cancel(self) -> bool:
        """Stop the jobs; what has ended can still be collected.

        Returns
        -------
        bool
            False if the run had ended already.
        """
        phase = self.status().phase
        self._connected().cancel()
        return phase not in ("done", "failed")

    def _wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the run; raise a TimeoutError after `timeout` seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        began = news = time.monotonic()
        last: object = None
        revived = 0
        while True:
            state = self._look()
            if (state and state.phase == "cancelled") or self._is_over(state, -1):
                self._advise()
                return
            now = time.monotonic()
            if (self._outcomes.settled, state) != last:
                last, news, revived = (self._outcomes.settled, state), now, 0
            elif now - news > _REVIVAL:
                revived += self._revive(revived)
                news = now
            if now >= deadline:
                raise TimeoutError(
                    f"Run {self.run_id} goes on: after {timeout:g} s, {self._outcomes.settled} of "
                    f"{self.manifest.tasks} tasks had ended"
                )
            longest = _FAR_HERE if self.manifest.here else _FAR
            pause = min(longest, max(_NEAR, _PATIENCE * (now - began)))
            time.sleep(max(0, min(pause, deadline - now)))

    def _revive(self, before: int) -> bool:
        """Start the engine again if it has died, but not too often; return whether it had."""
        if not self._connected().revive():
            return False
        if before + 1 == _HOPELESS:
            raise ClusterError(
                f"The engine of run {self.run_id} has ended {_HOPELESS} times without a word (a full disk, "
                f"or a limit of the account?): pyhrf-parallel logs {self.run_id}"
            )
        return True

    def _advise(self) -> None:
        """Add advice to failures because of modules that are missing on the cluster."""
        server = self.manifest.settings.get("server") or "HOST"
        for failure in () if self.manifest.here else self._outcomes.failures.values():
            if isinstance(failure.__cause__, ModuleNotFoundError) and failure.__cause__.name:
                package = failure.__cause__.name.partition(".")[0]
                failure.advice = (
                    f"{package} has to be installed on the cluster, too; if it is a package of the index: "
                    f"pyhrf-parallel setup-cluster {server} --with {package}"
                )

    def clean(self) -> None:
        """Stop the run if it is not over, and remove all of its files, there and here."""
        self._connected().remove()
        forget(self.run_id)

    def forget(self) -> None:
        """Remove the run's files on this machine only, if its cluster cannot be reached any more."""
        self.close()
        forget(self.run_id)

    def logs(self, lines: int | None = 50) -> dict[str, str]:
        """Return the last lines that each job and the ``'engine'`` have written, by name; None for all.

        Those that have written nothing are left out.
        """
        run = self._connected()
        return {
            job: run.log(name, size, lines)
            for name, size in sorted(run.sizes().items())
            if size and (job := RunPaths.job_of_log(name))
        }

    def follow(self, outcomes: Outcomes, timeout: float | None = None) -> None:
        """Wait for the end of the run, entering the outcomes of the tasks.

        Raises
        ------
        TimeoutError
            If the run is not over after `timeout` seconds; it goes on.
        """
        self._outcomes, self._follower = outcomes, None
        self._wait(timeout)

    def follow_to_end(self, outcomes: Outcomes, timeout: float | None = None) -> str:
        """Follow the run; return why the engine gave up, an empty string if it did not."""
        try:
            self.follow(outcomes, timeout)
        except TransferError:
            raise
        except ClusterError as error:
            if error.transient:
                raise
            return str(error)
        return ""

    def _connected(self) -> RunDirectory:
        if self._run is None:
            run = self._find()
            try:
                run.check()
            except BaseException:
                run.close()
                raise
            self._run = run
        return self._run

    def _find(self) -> RunDirectory:
        if self.manifest.here:
            return LocalRunDirectory(self.manifest.directory)
        from pyhrf_parallel.runs.cluster import Cluster
        from pyhrf_parallel.runs.remote import RemoteRunDirectory

        cluster = Cluster(Configuration(**self.manifest.settings))
        return RemoteRunDirectory(cluster, self.manifest.directory)

    def _look(self) -> EngineState | None:
        if self._follower is None:
            self._follower = Follower(self._connected(), self._outcomes)
        return self._follower.look()
