"""Runs of treatments, which outlive the process that submitted them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import cloudpickle

from pyhrf_parallel.engine.plan import EngineState
from pyhrf_parallel.errors import ClusterError, RunNotFoundError, TreatmentError
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import ProgressOption, reporting
from pyhrf_parallel.runs.manifests import Manifest, read_remembered
from pyhrf_parallel.runs.run import Run
from pyhrf_parallel.tasks import check_on_error
from pyhrf_parallel.treatment_jobs.collecting import Collector
from pyhrf_parallel.treatment_jobs.outcome import TreatmentOutcome, raise_failures
from pyhrf_parallel.treatment_jobs.subject import Subject
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment, as_job_treatment

#: The file with the treatments themselves, beside the manifest.
TREATMENTS = "treatments.pck"


class TreatmentRun(Run):
    """Treatments that run as jobs, on a cluster or on this machine, whether or not this process does.

    Made by `submit_treatments`, or by `TreatmentRun.load` in another process; a context manager that closes
    the connection and leaves the run alone.

    Attributes
    ----------
    manifest : Manifest
        What was submitted, by whom, with what.
    """

    @staticmethod
    def _knows(manifest: Manifest) -> bool:
        return bool(manifest.treatments)

    @property
    def subjects(self) -> list[Subject]:
        """The treatments."""
        return [Subject.from_json(values) for values in self.manifest.treatments]

    def _is_over(self, state: EngineState | None, settled: int) -> bool:  # noqa: ARG002
        # After the last region, results are still to be merged.
        return state is not None and state.phase in ("done", "failed")

    def collect(
        self, timeout: float | None = None, *, progress: ProgressOption = False
    ) -> dict[str, TreatmentOutcome]:
        """Wait for the end, and bring the result of each treatment to its file here.

        The run keeps its files until `clean` is called.

        Parameters
        ----------
        timeout : float, optional
            How long to wait, in seconds.
        progress : bool or callable, optional
            See `pyhrf_parallel.remote_map`.

        Returns
        -------
        dict of str to TreatmentOutcome
            What has come of each treatment, failed regions included.

        Raises
        ------
        TimeoutError
            If the run is not over in time; it goes on.
        TreatmentError
            If results would replace files that are no earlier results, or cannot be read; those of the other
            treatments have been brought here.
        TransferError
            If a result cannot be brought here.
        """
        tasks, name = self.manifest.tasks, self.manifest.function
        # If the engine has given up, the outcomes say so.
        with reporting(progress, tasks, name) as report:
            self.follow_to_end(Outcomes(self.work, report), timeout)
        directory = self._connected()
        state = directory.state()
        if state is None:
            raise ClusterError(f"The run's directory {self.manifest.directory} is gone")
        where = str(self.manifest.settings.get("server") or "this machine")
        outcomes: dict[str, TreatmentOutcome] = {}
        refused: list[TreatmentError] = []
        for number, subject in enumerate(self.subjects):
            collector = Collector(
                number, subject, partial(self._read_results, subject.name), directory, self._outcomes, state,
                self._provenance(subject), where,
            )  # fmt: skip
            try:
                outcomes[subject.name] = collector.collect(progress)
            except TreatmentError as error:  # the results of the others are wanted all the same
                refused.append(error)
        if refused:
            raise TreatmentError("\n".join(map(str, refused))) from refused[0]
        return outcomes

    def finish(
        self, progress: ProgressOption = None, *, keep_failed: bool = True
    ) -> dict[str, TreatmentOutcome]:
        """Wait for the end, bring the results here, and remove the run unless something of it is still of use.

        Parameters
        ----------
        progress : bool or callable, optional
            See `pyhrf_parallel.remote_map`.
        keep_failed : bool
            Whether it is kept for single regions that have failed, so that they can be run again.

        Returns
        -------
        dict of str to TreatmentOutcome
            What has come of each treatment, failed regions included.

        Raises
        ------
        Exception
            If the run cannot be followed, or results cannot be brought here or read; the run is kept then.
        """
        try:
            outcomes = self.collect(progress=progress)
        except Exception as error:  # the run goes on, or holds what others have computed for hours
            error.add_note(self.how_to_go_on)
            raise
        except BaseException:  # Ctrl-C
            self.clean()
            raise
        failed = [o for o in outcomes.values() if o.problem or (keep_failed and o.failures)]
        if any(outcome.has_finished_regions for outcome in failed):
            failed[-1].how_to_go_on = self.how_to_go_on
        else:  # to begin anew costs no more than to go on
            self.clean()
        return outcomes

    def result(
        self, timeout: float | None = None, *, on_error: str = "raise"
    ) -> dict[str, list[Any]]:
        """Wait for the end; return the results of each treatment, in the order of its regions.

        Parameters
        ----------
        timeout : float, optional
            How long to wait, in seconds.
        on_error : {'raise', 'return'}
            What to do about regions that failed. If they are returned, one that has left nothing is
            ``(None, None, reason)``.

        Raises
        ------
        TimeoutError
            If the run is not over in time; it goes on.
        concurrent.futures.CancelledError
            If it was cancelled before it had ended.
        TreatmentError
            Naming treatments, regions and reasons.
        ConfigurationError
            For another `on_error`.
        """
        wanted = check_on_error(on_error)
        outcomes = self.collect(timeout)
        if self.cancelled():
            raise CancelledError(f"Run {self.run_id} was cancelled. {self.how_to_go_on}")
        raise_failures(outcomes.values(), only_problems=wanted == "return")
        return {name: outcome.results for name, outcome in outcomes.items()}

    def retry(self) -> None:
        """Run the regions again that failed or were not run, and the steps that were not done.

        Raises
        ------
        TreatmentError
            If the run is not over yet, or nothing of it has failed.
        """
        status, state = self.status(), self._connected().state()
        if status.phase == "running":
            raise TreatmentError(f"run {self.run_id} is not over")
        returned = status.returned
        if (
            state is not None
            and state.phase == "done"
            and returned == self.manifest.tasks
            and not state.problems
        ):
            raise TreatmentError(
                f"nothing of run {self.run_id} has failed: pyhrf-parallel collect {self.run_id}"
            )
        self._connected().start_again()
        self._outcomes, self._follower = Outcomes(self.work), None

    @property
    def how_to_go_on(self) -> str:
        """The commands that go on with a run that was kept."""
        return (
            f"The run was kept: pyhrf-parallel retry {self.run_id}, then pyhrf-parallel collect {self.run_id} "
            f"(or pyhrf-parallel clean {self.run_id})"
        )

    def treatments(self) -> dict[str, Any]:
        """Return the treatments themselves, as they were submitted.

        Raises
        ------
        RunNotFoundError
            If they were not kept.
        """
        try:
            content = read_remembered(self.run_id, TREATMENTS)
        except FileNotFoundError as error:
            raise RunNotFoundError(f"The treatments of {self.run_id} were not kept") from error
        treatments: dict[str, Any] = pickle.loads(content)
        return treatments

    def _read_results(self, name: str, content: bytes) -> list[Any]:
        """Read a result as its treatment does, or as the default if that could not be kept."""
        treatment = self.treatments().get(name, JobTreatment())
        return as_job_treatment(treatment).read_results(content)

    def _provenance(self, subject: Subject) -> dict[str, Any]:
        """Return how a result was made, for people."""
        return {
            "treatment": subject.name,
            "run": self.run_id,
            "submitted": self.manifest.created,
            "by": self.manifest.submitted_by,
            "versions": self.manifest.versions,
        }


def dump_treatments(treatments: Mapping[str, object]) -> bytes:
    """Pickle treatments for other processes; without them, these make no outputs."""
    try:
        content: bytes = cloudpickle.dumps(dict(treatments))
    except Exception:  # whatever a treatment holds
        content = cloudpickle.dumps({})
    return content
