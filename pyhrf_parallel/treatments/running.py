"""Running a treatment: its regions as the tasks of a map or as jobs, all of them or those without a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.backends import Mode, check_mode
from pyhrf_parallel.errors import RemoteException
from pyhrf_parallel.mapping import remote_map
from pyhrf_parallel.treatment_jobs.ledger import result_ledger
from pyhrf_parallel.treatment_jobs.outcome import TaskFailure, as_error, raise_failures, tell
from pyhrf_parallel.treatment_jobs.region_files import OK
from pyhrf_parallel.treatment_jobs.submit import submit_treatments
from pyhrf_parallel.treatment_jobs.treatment_run import TreatmentRun
from pyhrf_parallel.treatments.provenance import Identity
from pyhrf_parallel.treatments.region_analysis import analyse
from pyhrf_parallel.treatments.results import Result, failures
from pyhrf_parallel.treatments.roi_treatment import ROITreatment

_AGAIN = "run(retry_failed=True) analyses the failed regions only"


def run(
    treatment: ROITreatment, mode: Mode, *, retry_failed: bool, rois_per_job: int | None,
    **options: Any,
) -> list[Result]:  # fmt: skip
    """Analyse regions and write the results; see `ROITreatment.run`."""
    check_mode(mode)
    treatment.check()
    kept = treatment.files.load_kept() if retry_failed else {}
    found: dict[int, Result] = {}
    failed: list[TaskFailure] = []
    hint = _AGAIN
    if len(kept) < len(treatment.fmri_data.roi_ids):
        part = UnfinishedRegions.of(treatment, kept)
        if mode == "remote_cluster":
            found, failed, hint = _run_as_jobs(part, rois_per_job=rois_per_job, **options)
            treatment.timeline = part.timeline
        else:
            found, failed = run_as_map(part, mode=mode, **options)
    given = [(kept | found)[roi_id] for roi_id in treatment.fmri_data.roi_ids]
    results, _ = treatment.files.write(given, treatment.identity(), treatment.timeline)
    known = {failure.roi_id for failure in failed}
    failed += [
        TaskFailure.of_report(roi.roi_id, roi.n_voxels, report)
        for roi, _, report in failures(results)
        if roi.roi_id not in known
    ]
    if kept:
        _remove_result_of_part(treatment.result_path)
    if failed:
        where = treatment.output_dir
        raise as_error(tell(where, len(results), failed, where, hint), failed)
    return results


def run_as_map(
    treatment: ROITreatment, **options: Any
) -> tuple[dict[int, Result], list[TaskFailure]]:
    """Analyse regions by `remote_map`; return the results by region, and the failures."""
    rois = list(treatment.fmri_data.rois())
    tasks = [(treatment.analyser, roi) for roi in rois]
    outcomes = remote_map(analyse, tasks, on_error="return", **options)
    found: dict[int, Result] = {}
    failed = []
    for roi, outcome in zip(rois, outcomes, strict=True):
        region = roi.without_signals()
        if isinstance(outcome, RemoteException):
            failed.append(TaskFailure.of_task(roi.roi_id, roi.n_voxels, outcome))
            found[roi.roi_id] = failed[-1].as_result(region)
        else:
            found[roi.roi_id] = region, outcome, OK
    return found, failed


def _run_as_jobs(
    treatment: ROITreatment, **options: Any
) -> tuple[dict[int, Result], list[TaskFailure], str]:
    """Analyse regions as jobs; return the results by region, the failures, and how to try these again."""
    with submit(treatment, **options) as submitted:
        (outcome,) = submitted.finish().values()
    if outcome.problem:
        raise_failures([outcome])
    treatment.timeline = outcome.timeline
    found = dict(zip(treatment.fmri_data.roi_ids, outcome.results, strict=True))
    kept_run = outcome.how_to_go_on
    return found, outcome.failures, f"{kept_run}; or {_AGAIN}" if kept_run else _AGAIN


def submit(treatment: ROITreatment, **options: Any) -> TreatmentRun:
    """Start the jobs of a treatment; see `ROITreatment.submit`."""
    name = Path(treatment.output_dir).name or "treatment"
    directories = {name: treatment.result_path.parent}
    # Fetched by SFTP: whoever waits or collects writes the outputs, and may want to retry.
    run: TreatmentRun = submit_treatments(
        {name: treatment}, directories, label="regions", result_transfer="sftp", **options
    )
    return run


class UnfinishedRegions(ROITreatment):
    """The regions of a treatment that have no result yet.

    The treatment has been checked. The results are written with those of the other regions, also by a process
    that collects them later.
    """

    _whole: ROITreatment
    _kept: Mapping[int, Result]

    @classmethod
    def of(cls, whole: ROITreatment, kept: Mapping[int, Result]) -> Self:
        """Return the regions of `whole` without a result in `kept`."""
        part = cls(**whole.parameters())
        part._whole, part._kept = whole, kept
        if kept:
            wanted = [roi_id for roi_id in whole.fmri_data.roi_ids if roi_id not in kept]
            part.fmri_data = whole.fmri_data.only(wanted)
            part.result_dump_file = str(_result_of_part(whole.result_path))
        return part

    def check_analysis(self) -> None:
        """Do nothing: the whole treatment has been checked."""

    def check_outputs(self) -> None:
        """Do nothing: the whole treatment has been checked."""

    def identity(self) -> Identity:
        """Return the identity of the whole treatment's analysis."""
        return self._whole.identity()

    def output(self, results: Sequence[Result]) -> list[Path]:
        """Write the results of the whole treatment; return the files."""
        self._whole.timeline = self.timeline
        found = dict(self._kept) | dict(zip(self.fmri_data.roi_ids, results, strict=False))
        written = self._whole.output([found[i] for i in self._whole.fmri_data.roi_ids])
        _remove_result_of_part(self._whole.result_path)
        return written


def _result_of_part(path: Path) -> Path:
    """Return the path for the result of some regions; that of all stays until both are merged."""
    return path.with_name(f".retried-{path.name}")


def _remove_result_of_part(path: Path) -> None:
    """Remove the result of some regions once it is merged."""
    part = _result_of_part(path)
    ledger = result_ledger(part)
    if not ledger.is_foreign(part):
        part.unlink(missing_ok=True)
        if not ledger.is_foreign(ledger.path):
            ledger.path.unlink(missing_ok=True)
