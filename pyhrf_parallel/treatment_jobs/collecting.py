"""Collecting what has come of treatments that ran as jobs: their results are fetched, checked and put in place."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyhrf_parallel.compressing import is_to_be_compressed, packed
from pyhrf_parallel.engine.plan import EngineState
from pyhrf_parallel.errors import TransferError, TreatmentError
from pyhrf_parallel.files import checksum
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.treatment_jobs.graph import BRING_BACK, CLEAN, MERGE, OUTPUT, SPLIT
from pyhrf_parallel.treatment_jobs.ledger import Ledger, result_ledger
from pyhrf_parallel.treatment_jobs.outcome import TaskFailure, TreatmentOutcome
from pyhrf_parallel.treatment_jobs.region_files import ARCHIVE, RESULT, crash_report
from pyhrf_parallel.treatment_jobs.subject import Subject
from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.worker.run_paths import RunPaths


@dataclass(frozen=True)
class Collector:
    """Fetches what has come of one treatment of a run.

    Attributes
    ----------
    number : int
        Its position in the run.
    subject : Subject
        The treatment.
    read_results : callable
        Reads the content of its result.
    directory : RunDirectory
        The run's.
    tasks : Outcomes
        What has become of the tasks of the run.
    state : EngineState
        The engine's last word.
    provenance : dict
        How its results were made, for the file beside them.
    where : str
        The machine where it ran, for errors.
    """

    number: int
    subject: Subject
    read_results: Callable[[bytes], list[Any]]
    directory: RunDirectory
    tasks: Outcomes
    state: EngineState
    provenance: dict[str, Any]
    where: str

    def collect(self, progress: ProgressOption) -> TreatmentOutcome:
        """Fetch the result, unless a job has sent it, and tell it from the failures.

        Raises
        ------
        TreatmentError
            If the result cannot be read, or would replace a file that is no earlier result.
        TransferError
            If it cannot be brought here.
        """
        outcome = TreatmentOutcome(self.subject, problem=self._problem())
        merged = self._note_of(MERGE)
        values: dict[str, Any] = {}
        if merged is not None:
            is_sent = bool(self.subject.send_to) and self._note_of(BRING_BACK) is not None
            expected = self._settle() if is_sent else self._fetch(progress)
            values = dict(zip(merged["outputs"], self._read(expected), strict=True))
            if self.subject.send_to and not is_sent and self.state.phase == "done":
                outcome.problem = ""  # its job could not send it, and it is here now
        elif not outcome.problem:
            outcome.problem = "its results were not merged"
        self._enter_regions(outcome, values, is_merged=merged is not None)
        outcome.timeline = self._timeline()
        return outcome

    def _problem(self) -> str:
        """Return why the treatment ended early; empty if it did not."""
        if self.state.phase == "cancelled":
            return "the run was cancelled"
        if self.state.phase == "failed":
            return f"the jobs could not be run on {self.state.host}: {self.state.error}"
        return self.state.problems.get(self.subject.label, "")

    def _note_of(self, step: str) -> dict[str, Any] | None:
        """Return what a step has noted at its end; None if it did not end well."""
        with suppress(FileNotFoundError):
            noted: dict[str, Any] = json.loads(
                self.directory.read(RunPaths().done(f"{self.number}-{step}"))
            )
            return noted
        return None

    def _enter_regions(
        self, outcome: TreatmentOutcome, values: Mapping[str, Any], *, is_merged: bool
    ) -> None:
        """Enter the result or the failure of each region."""
        subject = self.subject
        shapes: Sequence[Any] = subject.roi_shapes or [(None, None)] * len(subject.regions)
        rows = zip(subject.tasks, subject.regions, subject.results, shapes, strict=True)
        for index, roi_id, file, (_, n_voxels) in rows:
            value = values.get(file)
            failure = self._failure(index, roi_id, n_voxels, value, is_merged=is_merged)
            if failure is not None:
                outcome.failures.append(failure)
                value = failure.as_result() if value is None else value
            if is_merged:
                outcome.results.append(value)

    def _failure(
        self, index: int, roi_id: int, n_voxels: int | None, value: Any, *, is_merged: bool
    ) -> TaskFailure | None:
        """Return why a region has no result; None if it has one, or will have when results are merged."""
        report = crash_report(value)
        if report:  # more than the worker says
            return TaskFailure.of_report(roi_id, n_voxels, report)
        if index in self.tasks.failures:
            return TaskFailure.of_task(roi_id, n_voxels, self.tasks.failures[index])
        has_run = self.tasks.is_settled(index)
        if value is not None or (has_run and not is_merged):
            return None
        reason = "it has left no result" if has_run else "it was not run"
        return TaskFailure(roi_id, n_voxels, reason)

    def _timeline(self) -> list[JobSpan]:
        spans = []
        for name in (SPLIT, MERGE, OUTPUT, BRING_BACK, CLEAN):
            noted = self._note_of(name)
            if noted is not None:
                spans.append(JobSpan(name, noted["began"], noted["ended"], noted["host"]))
        for index, roi_id in zip(self.subject.tasks, self.subject.regions, strict=True):
            if self.tasks.values[index] is not None:
                spans.append(JobSpan(f"region {roi_id}", *self.tasks.values[index]))
        return sorted(spans, key=lambda span: span.began)

    def _read(self, expected: str) -> list[Any]:
        """Read the result, which lies where others may be allowed to write, if it is what was sent."""
        path = Path(self.subject.result_path)
        told = (
            f"treatment {self.subject.name!r}: its result is in {path}, and cannot be read here: "
        )
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == expected:
                return self.read_results(content)
        except Exception as error:
            raise TreatmentError(f"{told}{type(error).__name__}: {error}") from error
        raise TreatmentError(f"{told}somebody has changed it since the cluster has sent it")

    def _ledger(self) -> Ledger:
        return result_ledger(Path(self.subject.result_path), self.subject.output_directories)

    def _settle(self) -> str:
        """List the result that a job has sent among ours; return its checksum."""
        log = self.directory.read(RunPaths().log(f"{self.number}-{BRING_BACK}"))
        expected = log.decode(errors="replace").split()[-1]
        path, ledger = Path(self.subject.result_path), self._ledger()
        is_there = path.is_file() and checksum(path) == expected
        if is_there and not ledger.is_foreign(ledger.path):
            ledger.note({path: expected}, self.subject.identity)
            ledger.finish(self.subject.identity, self.provenance)
        return expected

    def _fetch(self, progress: ProgressOption) -> str:
        """Fetch the result, with what was made of it there; return its checksum.

        All is here before the first file is replaced, and nothing is replaced but earlier results.
        """
        subject, ledger = self.subject, self._ledger()
        path = Path(subject.result_path)
        try:
            with TemporaryDirectory(prefix="pyhrf_parallel_", dir=path.parent) as temporary:
                result = Path(temporary, RESULT)
                self.directory.fetch(f"{subject.directory}/{RESULT}", result, progress)
                if is_to_be_compressed(path):
                    result.write_bytes(packed(path, result.read_bytes()))
                files = {path: result}
                if self._note_of(OUTPUT) is not None:
                    files = self._fetch_outputs(Path(temporary), progress) | files
                self._check(ledger, files)
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
        ledger.finish(subject.identity, self.provenance)
        return checksums[path]

    def _check(self, ledger: Ledger, files: Iterable[Path]) -> None:
        """Check that files may be written; if not, say where the result is until they may be."""
        try:
            ledger.check(files)
        except TreatmentError as error:
            raise TreatmentError(
                f"{error}; until then the result is kept on {self.where}, in "
                f"{self.subject.directory}/{RESULT}, and fetched by "
                f"pyhrf-parallel collect {self.provenance['run']}"
            ) from error

    def _fetch_outputs(self, temporary: Path, progress: ProgressOption) -> dict[Path, Path]:
        """Fetch what was made there; return where each file is to go, and where it is."""
        archive, made = temporary / ARCHIVE, temporary / "made"
        self.directory.fetch(f"{self.subject.directory}/{ARCHIVE}", archive, progress)
        with tarfile.open(archive) as content:
            content.extractall(made, filter="data")
        wanted = Path(self.subject.result_path).parent
        return {
            wanted / path.relative_to(made): path
            for path in sorted(made.rglob("*"))
            if path.is_file()
        }
