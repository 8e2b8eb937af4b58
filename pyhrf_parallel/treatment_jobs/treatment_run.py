"""Runs of treatments, which outlive the process that submitted them."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyhrf_parallel.compressing import (
    is_to_be_compressed,
    packed,
    unpacked,
)
from pyhrf_parallel.engine.plan import EngineState
from pyhrf_parallel.errors import (
    ClusterError,
    RunNotFoundError,
    TransferError,
    TreatmentError,
)
from pyhrf_parallel.files import checksum
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import ProgressOption, reporting
from pyhrf_parallel.runs.following import read_state
from pyhrf_parallel.runs.manifests import Manifest, read_remembered
from pyhrf_parallel.runs.run import Run
from pyhrf_parallel.treatment_jobs.failures import Failure, crash_report
from pyhrf_parallel.treatment_jobs.graph import (
    ARCHIVE,
    BRING_BACK,
    CLEAN,
    MERGE,
    OUTPUT,
    RESULT,
    SPLIT,
)
from pyhrf_parallel.treatment_jobs.ledger import Ledger, result_ledger
from pyhrf_parallel.treatment_jobs.outcome import Collected, Subject, raise_failures
from pyhrf_parallel.treatment_jobs.region_files import result_name
from pyhrf_parallel.treatment_jobs.treatment import JobSpan, ReadsResults
from pyhrf_parallel.worker.run_paths import RunPaths

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
        return [Subject(**values) for values in self.manifest.treatments]

    def _is_over(self, state: EngineState | None, settled: int) -> bool:  # noqa: ARG002
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
        with reporting(progress, tasks, name) as report:
            self.follow_to_end(Outcomes(self.work, report))
        state = read_state(self._connected())
        if state is None:
            raise ClusterError(f"The run's directory {self.manifest.directory} is gone")
        return {s.name: self._collect(n, s, state, progress) for n, s in enumerate(self.subjects)}

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
            If the run is not over yet, or nothing of it has failed.
        """
        status, state = self.status(), read_state(self._connected())
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
        """What a user may do with a run that was kept."""
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

    def _collect(
        self, number: int, subject: Subject, state: EngineState, progress: ProgressOption
    ) -> Collected:
        found = Collected(subject, problem=_problem(state, subject))
        indices = range(subject.start, subject.start + len(subject.roi_ids))
        merged = self._step(number, MERGE)
        is_here = subject.is_sent and self._step(number, BRING_BACK) is not None
        log = RunPaths().log(f"{number}-{BRING_BACK}") if is_here else ""
        by_file: dict[str, Any] = {}
        if merged is not None:
            has_outputs = self._step(number, OUTPUT) is not None
            expected = (
                self._settle(subject, log) if log else self._bring(subject, has_outputs, progress)
            )
            by_file = self._read(subject, merged["outputs"], expected)
            if subject.is_sent and not is_here and state.phase == "done":
                found.problem = ""  # its job could not send it, and it is here now
        if merged is None and not found.problem:
            found.problem = "its results were not merged"
        sizes: Sequence[int | None] = subject.n_voxels or [None] * len(subject.roi_ids)
        rows = zip(indices, subject.roi_ids, subject.files, sizes, strict=True)
        for index, roi_id, file, n_voxels in rows:
            value = by_file.get(result_name(file))
            report = crash_report(value)
            ran = self._outcomes.is_settled(index)
            if report:  # more than the worker says
                failure = Failure.of_report(roi_id, n_voxels, report)
            elif index in self._outcomes.failures:
                failure = Failure.of_exception(roi_id, n_voxels, self._outcomes.failures[index])
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
        found.timeline = list(self._timeline(number, subject, indices))
        return found

    def _read(self, subject: Subject, outputs: Sequence[str], expected: str) -> dict[str, Any]:
        """Return the results of a treatment's regions, by their files."""
        path = Path(subject.result_path)
        treatment = self.treatments().get(subject.name)
        try:
            if isinstance(treatment, ReadsResults):
                values = treatment.read_results(path)
            else:
                values = pickle.loads(unpacked(_read_unchanged(path, expected)))
        except Exception as error:
            raise TreatmentError(
                f"treatment {subject.name!r}: its result is in {path}, and cannot be read here: "
                f"{type(error).__name__}: {error}"
            ) from error
        return dict(zip(outputs, values, strict=True))

    def _settle(self, subject: Subject, log: str) -> str:
        """Note what a job has brought, whose log is given; return its checksum."""
        expected = self._connected().read(log).decode(errors="replace").split()[-1]
        path = Path(subject.result_path)
        ledger = result_ledger(path, subject.outputs)
        is_there = path.is_file() and checksum(path) == expected
        if is_there and not ledger.is_foreign(ledger.path):
            ledger.note({path: expected}, subject.identity)
            ledger.finish(subject.identity, self._told(subject))
        return expected

    def _bring(self, subject: Subject, has_outputs: bool, progress: ProgressOption) -> str:
        """Bring a result here, with what was made of it there; return the checksum of its file.

        All is here before the first file is replaced, and none is that is not of earlier results.
        """
        path = Path(subject.result_path)
        ledger = result_ledger(path, subject.outputs)
        try:
            with TemporaryDirectory(prefix="pyhrf_parallel_", dir=path.parent) as directory:
                result = Path(directory, RESULT)
                self._connected().fetch(f"{subject.place}/{RESULT}", result, progress)
                if is_to_be_compressed(path):
                    result.write_bytes(packed(path, result.read_bytes()))
                files = {path: result}
                if has_outputs:
                    files = self._fetch_outputs(subject, Path(directory), progress) | files
                self._check(ledger, files, f"{subject.place}/{RESULT}")
                for target in files:
                    target.parent.mkdir(parents=True, exist_ok=True)
                checksums = {target: checksum(file) for target, file in files.items()}
                ledger.note(checksums, subject.identity)
                for target, file in files.items():
                    file.replace(target)
        except (OSError, tarfile.TarError) as error:
            raise TransferError(
                f"the results of {subject.name!r} did not get to {path}: "
                f"{getattr(error, 'strerror', None) or error}",
                path=str(path),
            ) from error
        ledger.finish(subject.identity, self._told(subject))
        return checksums[path]

    def _check(self, ledger: Ledger, files: Iterable[Path], result: str) -> None:
        """Check that files may be written; if not, say where the result is until they may be."""
        try:
            ledger.check(files)
        except TreatmentError as error:
            where = f"{self.manifest.settings.get('server') or 'this machine'}"
            raise TreatmentError(
                f"{error}; until then the result is kept on {where}, in {result}, and fetched by "
                f"pyhrf-parallel collect {self.run_id}"
            ) from error

    def _fetch_outputs(
        self, subject: Subject, directory: Path, progress: ProgressOption
    ) -> dict[Path, Path]:
        """Fetch what was made there; return where each file is to go, and where it is."""
        archive, made = directory / ARCHIVE, directory / "made"
        self._connected().fetch(f"{subject.place}/{ARCHIVE}", archive, progress)
        with tarfile.open(archive) as content:
            content.extractall(made, filter="data")
        place = Path(subject.result_path).parent
        return {
            place / path.relative_to(made): path
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }

    def _told(self, subject: Subject) -> dict[str, Any]:
        """Return how a result was made, for people."""
        return {
            "treatment": subject.name,
            "run": self.run_id,
            "submitted": self.manifest.created,
            "by": self.manifest.submitted_by,
            "versions": self.manifest.versions,
        }

    def _step(self, number: int, name: str) -> dict[str, Any] | None:
        """Return what a step has noted at its end; None if it did not end well."""
        with suppress(FileNotFoundError):
            noted: dict[str, Any] = json.loads(
                self._connected().read(RunPaths().done(f"{number}-{name}"))
            )
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


def _read_unchanged(path: Path, sha256: str) -> bytes:
    """Return a pickle that lies where others may be allowed to write, if it is what was sent."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TransferError("it is not what the cluster has sent: somebody has changed it")
    return content


def _problem(state: EngineState, subject: Subject) -> str:
    """Return why a treatment ended early; empty if it did not."""
    if state.phase == "cancelled":
        return "the run was cancelled"
    if state.phase == "failed":
        return f"the jobs could not be run on {state.host}: {state.error}"
    return state.problems.get(subject.label, "")
