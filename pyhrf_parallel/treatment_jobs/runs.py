"""Runs of treatments, which outlive the process that submitted them."""

from __future__ import annotations

import copy
import json
import pickle
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyhrf_parallel.cluster.following import read_state
from pyhrf_parallel.cluster.layout import State
from pyhrf_parallel.cluster.manifests import Manifest, directory_of
from pyhrf_parallel.cluster.step import DONE
from pyhrf_parallel.errors import (
    RunNotFoundError,
    SubmissionError,
    TransferError,
    TreatmentError,
)
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.progress import ProgressOption, reporting
from pyhrf_parallel.runs import Run
from pyhrf_parallel.tasks import Outcomes
from pyhrf_parallel.treatment_jobs.failures import Failure, as_error, crash_report, tell
from pyhrf_parallel.treatment_jobs.graph import (
    ARCHIVE,
    BRING_BACK,
    CLEAN,
    MERGE,
    OUTPUT,
    RESULT,
    SPLIT,
)
from pyhrf_parallel.treatment_jobs.interface import (
    JobSpan,
    MakesOutputs,
    ReadsResults,
    ShowsTimeline,
)
from pyhrf_parallel.treatment_jobs.region_files import result_name

#: The file with the treatments themselves, beside the manifest.
TREATMENTS = "treatments.pck"


@dataclass(frozen=True)
class Subject:
    """What is known of one treatment of a run wherever it is looked at from.

    Attributes
    ----------
    name, label : str
        How the caller calls it, and the group of its jobs.
    start : int
        The index of its first task.
    roi_ids : list of int
        Its regions, in the order of the tasks.
    files : list of str
        The files with their data.
    n_voxels : list of int or None
        Their sizes, where the treatment knows them.
    has_outputs : bool
        Whether its files for people are made there.
    place : str
        The directory where it runs.
    result_path : str
        The file here that its result goes to.
    is_sent : bool
        Whether the jobs bring the result there.
    """

    name: str
    label: str
    start: int
    roi_ids: list[int]
    files: list[str]
    place: str
    result_path: str
    is_sent: bool
    n_voxels: list[int] | None = None
    has_outputs: bool = False


@dataclass
class Collected:
    """What has come of one treatment.

    Attributes
    ----------
    subject : Subject
        The treatment.
    results : list of tuple
        Of its regions, the biggest first, as they were left; ``(None, None, reason)`` for one that has
        left nothing.
    failures : list of Failure
        The regions that failed or were not run.
    problem : str
        Why the treatment ended early.
    timeline : list of JobSpan
        What ran when.
    """

    subject: Subject
    results: list[Any] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    problem: str = ""
    timeline: list[JobSpan] = field(default_factory=list)

    @property
    def has_finished_regions(self) -> bool:
        """Whether some regions were analysed, of which there is no result here."""
        return not self.results and len(self.failures) < len(self.subject.roi_ids)


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
        return [Subject(**values) for values in self.manifest.treatments]

    def _is_over(self, state: State | None, settled: int) -> bool:  # noqa: ARG002
        # After the last region, results are still to be merged.
        return state is not None and state.phase in ("done", "failed")

    def collect(self, *, progress: ProgressOption = False) -> dict[str, Collected]:
        """Wait for the end, and bring the results here: to the file that each treatment is to have.

        The run keeps its files until `clean` is called.

        Parameters
        ----------
        progress : bool or callable, optional
            See `pyhrf_parallel.remote_map`.

        Returns
        -------
        dict of str to Collected
            What has come of each treatment, failed regions included.

        Raises
        ------
        TransferError
            If a result cannot be brought here.
        """
        tasks, name = self.manifest.tasks, self.manifest.function
        # An engine that has given up is told below, with what there is.
        with reporting(progress, tasks, name) as report, suppress(SubmissionError):
            self.follow(Outcomes(self.work, report))
        state = read_state(self._connected())
        if state is None:
            raise SubmissionError(f"The run's directory {self.manifest.directory} is gone")
        return {s.name: self._collect(n, s, state) for n, s in enumerate(self.subjects)}

    def results(self, *, on_error: str = "raise") -> dict[str, list[Any]]:
        """Wait for the end; return the results of each treatment, in the order of its regions.

        Parameters
        ----------
        on_error : {'raise', 'return'}
            What to do about regions that failed. If they are returned, one that has left nothing is
            ``(None, None, reason)``.

        Raises
        ------
        TreatmentError
            Naming treatments, regions and reasons.
        """
        collected = self.collect()
        raise_failures(collected.values(), only_problems=on_error == "return")
        return {name: one.results for name, one in collected.items()}

    def retry(self) -> None:
        """Run the regions again that failed or were not run, and the steps that were not done.

        Raises
        ------
        TreatmentError
            If the run is not over yet, or what is needed for that was removed.
        """
        state = read_state(self._connected())
        if state is None or state.phase == "running":
            raise TreatmentError(f"run {self.run_id} is not over")
        for number, subject in enumerate(self.subjects):
            if self._step(number, CLEAN) is not None and self._has_failed(subject):
                raise TreatmentError(
                    f"treatment {subject.name!r} cannot be run again: its result was sent by scp, and its "
                    "files were removed then"
                )
        self._connected().start_again()
        self._outcomes, self._follower = Outcomes(self.work), None

    def _has_failed(self, subject: Subject) -> bool:
        with suppress(SubmissionError):
            self._look()
        last = subject.start + len(subject.roi_ids)
        return any(subject.start <= index < last for index in self._outcomes.failures)

    def treatments(self) -> dict[str, Any]:
        """Return the treatments themselves, as they were submitted.

        Raises
        ------
        RunNotFoundError
            If they were not kept.
        """
        try:
            content = (directory_of(self.run_id) / TREATMENTS).read_bytes()
        except OSError as error:
            raise RunNotFoundError(f"The treatments of {self.run_id} were not kept") from error
        treatments: dict[str, Any] = pickle.loads(content)
        return treatments

    def _collect(self, number: int, subject: Subject, state: State) -> Collected:
        found = Collected(subject, problem=_problem(state, subject))
        indices = range(subject.start, subject.start + len(subject.roi_ids))
        merged = self._step(number, MERGE)
        is_here = subject.is_sent and self._step(number, BRING_BACK) is not None
        by_file = {} if merged is None else self._fetch(subject, merged["outputs"], is_here=is_here)
        if merged is None and not found.problem:
            found.problem = "its results were not merged"
        sizes: Sequence[int | None] = subject.n_voxels or [None] * len(subject.roi_ids)
        rows = zip(indices, subject.roi_ids, subject.files, sizes, strict=True)
        for index, roi_id, file, n_voxels in rows:
            value = by_file.get(result_name(file))
            report = crash_report(value)
            ran = self._outcomes.is_settled(index)
            if index in self._outcomes.failures:
                failure = Failure.of_exception(roi_id, n_voxels, self._outcomes.failures[index])
            elif report:
                failure = Failure.of_report(roi_id, n_voxels, report)
            elif merged is None and ran:
                continue  # its result is still there
            elif value is None:
                reason = "it has left no result" if ran else "it was not run"
                failure = Failure(roi_id, n_voxels, reason)
            else:
                found.results.append(value)
                continue
            found.failures.append(failure)
            nothing = (None, None, failure.details or failure.reason)
            found.results.append(nothing if value is None else value)
        if merged is None:
            found.results.clear()
        if self._step(number, OUTPUT) is not None:
            self._fetch_outputs(subject)
        found.timeline = list(self._timeline(number, subject, indices))
        return found

    def _fetch(self, subject: Subject, outputs: Sequence[str], *, is_here: bool) -> dict[str, Any]:
        """Bring the result of a treatment here; return those of its regions, by their files."""
        path = Path(subject.result_path)
        if not is_here:
            self._connected().fetch(f"{subject.place}/{RESULT}", path)
        treatment = self.treatments().get(subject.name)
        try:
            if isinstance(treatment, ReadsResults):
                values = treatment.read_results(path)
            else:
                values = pickle.loads(path.read_bytes())
        except Exception as error:
            raise TreatmentError(
                f"treatment {subject.name!r}: its result is in {path}, and cannot be read here: "
                f"{type(error).__name__}: {error}"
            ) from error
        return dict(zip(outputs, values, strict=True))

    def _fetch_outputs(self, subject: Subject) -> None:
        """Bring what was made there to the directory of the result."""
        with private_directory() as directory:
            archive = directory / ARCHIVE
            self._connected().fetch(f"{subject.place}/{ARCHIVE}", archive)
            place = Path(subject.result_path).parent
            try:
                with tarfile.open(archive) as content:
                    content.extractall(place, filter="data")
            except (OSError, tarfile.TarError) as error:
                raise TransferError(
                    f"the outputs of {subject.name!r} did not get to {place}: {error}",
                    path=str(place),
                ) from error

    def _step(self, number: int, name: str) -> dict[str, Any] | None:
        """Return what a step has noted at its end; None if it did not end well."""
        with suppress(FileNotFoundError):
            noted: dict[str, Any] = json.loads(self._connected().read(f"{number}-{name}{DONE}"))
            return noted
        return None

    def _timeline(self, number: int, subject: Subject, indices: Sequence[int]) -> Sequence[JobSpan]:
        spans = []
        for name in (SPLIT, MERGE, OUTPUT, BRING_BACK, CLEAN):
            noted = self._step(number, name)
            if noted is not None:
                spans.append(JobSpan(name, noted["began"], noted["ended"], noted["host"]))
        for index, roi_id in zip(indices, subject.roi_ids, strict=True):
            if self._outcomes.values[index] is not None:
                spans.append(JobSpan(f"region {roi_id}", *self._outcomes.values[index]))
        return sorted(spans, key=lambda span: span.began)


def _problem(state: State, subject: Subject) -> str:
    """Return why a treatment ended early; empty if it did not."""
    if state.phase == "cancelled":
        return "the run was cancelled"
    if state.phase == "failed":
        return f"the jobs could not be run on {state.host}: {state.error}"
    return state.problems.get(subject.label, "")


def write_outputs(treatment: Any, found: Collected) -> None:
    """Let a treatment make files for people, if it can."""
    if isinstance(treatment, MakesOutputs) and found.results:
        if isinstance(treatment, ShowsTimeline):
            treatment = copy.copy(treatment)  # the caller's stays as it is
            treatment.timeline = found.timeline
        treatment.output(found.results)


def raise_failures(collected: Iterable[Collected], *, only_problems: bool = False) -> None:
    """Raise an error that tells all that failed, if something did.

    Parameters
    ----------
    collected : iterable of Collected
        What has come.
    only_problems : bool
        Whether single regions may fail, if their treatment has a result.

    Raises
    ------
    TreatmentError
        With treatments, regions, the first failure in full, and where the results of the others are.
    """
    lines: list[str] = []
    failures: list[Failure] = []
    for one in collected:
        subject = one.subject
        if one.problem:
            lines.append(f"treatment {subject.name!r} ended early: {one.problem}")
        if one.failures and (one.problem or not only_problems):
            where = subject.result_path if one.results else ""
            name = f"treatment {subject.name!r}"
            lines += tell(name, len(subject.roi_ids), one.failures, where)
            failures += one.failures
    if lines:
        raise as_error(lines, failures)
