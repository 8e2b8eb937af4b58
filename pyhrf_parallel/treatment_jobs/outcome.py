"""What comes of a treatment: results, regions that have failed, and what errors say about them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from pyhrf_parallel.errors import RemoteException, TreatmentError
from pyhrf_parallel.treatment_jobs.region_files import failed_result, last_line
from pyhrf_parallel.treatment_jobs.subject import Subject
from pyhrf_parallel.treatment_jobs.treatment import JobSpan, Treatment, as_job_treatment

_TOLD = 5  # reasons that an error tells
_NAMED = 10  # failed regions that it names for each


@dataclass(frozen=True)
class TaskFailure:
    """A region that has failed.

    Attributes
    ----------
    roi_id : int
        Its label.
    n_voxels : int or None
        Its size, if that is known.
    reason : str
        Why it failed, in a line.
    details : str
        The traceback in the worker, or all else that is known.
    cause : RemoteException or None
        The exception of its task, if that has failed as a task.
    """

    roi_id: int
    n_voxels: int | None
    reason: str
    details: str = ""
    cause: RemoteException | None = None

    @classmethod
    def of_task(cls, roi_id: int, n_voxels: int | None, error: RemoteException) -> Self:
        """Build a failure from the exception of a task."""
        cause = error.__cause__
        reason = str(error.args[0]) if cause is None else f"{type(cause).__name__}: {cause}"
        return cls(roi_id, n_voxels, reason.partition("\n")[0], str(error), error)

    @classmethod
    def of_report(cls, roi_id: int, n_voxels: int | None, report: str) -> Self:
        """Build a failure from the traceback in a region's result."""
        return cls(roi_id, n_voxels, last_line(report), report)

    def as_result(self, region: Any = None) -> tuple[Any, None, str]:
        """Return what takes the place of the region's result: its last line is the reason."""
        report = self.details.rstrip()
        if not report or last_line(report) != self.reason:
            report = f"{report}\n{self.reason}".lstrip()
        return failed_result(region, report)

    def __str__(self) -> str:
        """Say which region failed, its size, and why."""
        size = "" if self.n_voxels is None else f" ({self.n_voxels} voxels)"
        return f"region {self.roi_id}{size}: {self.reason}"


def tell(
    name: str, n_regions: int, failures: list[TaskFailure], where: str, hint: str = ""
) -> list[str]:
    """Say which regions of a treatment have failed, and where the results of the others are.

    Parameters
    ----------
    name : str
        The treatment.
    n_regions : int
        The number of its regions.
    failures : list of TaskFailure
        Those that have failed.
    where : str
        The file or directory of the results; empty if there are none.
    hint : str
        What to do, if that is to be said first.

    Returns
    -------
    list of str
        Lines.
    """
    others = n_regions - len(failures)
    kept = f"; the results of the other {others} are in {where}" if where and others else ""
    lines = [f"{name}: {len(failures)} of {n_regions} regions failed or were not run{kept}"]
    lines += [hint] * bool(hint)
    by_reason: dict[str, list[TaskFailure]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(failure)
    groups = list(by_reason.values())
    lines += map(_tell_alike, groups[:_TOLD])
    left = sum(map(len, groups[_TOLD:]))
    if left:
        lines.append(f"and {left} more")
    return lines


def _tell_alike(failures: list[TaskFailure]) -> str:
    """Say once why several regions have failed."""
    if len(failures) == 1:
        return str(failures[0])
    named = ", ".join(str(failure.roi_id) for failure in failures[:_NAMED])
    more = f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
    return f"regions {named}{more}: {failures[0].reason}"


def as_error(lines: Iterable[str], failures: list[TaskFailure]) -> TreatmentError:
    """Return an error of lines, with the first failure in full."""
    told = list(lines)
    detailed = next((failure for failure in failures if failure.details), None)
    if detailed is not None:
        told.append(f"--- region {detailed.roi_id} ---\n{detailed.details.rstrip()}")
    error = TreatmentError("\n".join(told))
    error.__cause__ = next((failure.cause for failure in failures if failure.cause), None)
    return error


@dataclass
class TreatmentOutcome:
    """What has come of one treatment of a run.

    Attributes
    ----------
    subject : Subject
        The treatment.
    results : list of tuple
        ``(region, found, report)`` of each region, the biggest first; ``(None, None, reason)`` for one whose
        result is lost. Empty if the results were not merged.
    failures : list of TaskFailure
        The regions that failed or were not run.
    problem : str
        Why the treatment ended early; empty if it did not.
    timeline : list of JobSpan
        When its jobs ran.
    how_to_go_on : str
        What a user may do with the run, if it was kept.
    """

    subject: Subject
    results: list[Any] = field(default_factory=list)
    failures: list[TaskFailure] = field(default_factory=list)
    problem: str = ""
    timeline: list[JobSpan] = field(default_factory=list)
    how_to_go_on: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing has failed."""
        return not (self.failures or self.problem)

    @property
    def has_finished_regions(self) -> bool:
        """Whether some regions were analysed."""
        return len(self.failures) < len(self.subject.regions)

    def write_outputs(self, treatment: Treatment) -> None:
        """Let the treatment write its files for people, if it was to and there are results."""
        if self.subject.makes_outputs and self.results:
            one = copy.copy(as_job_treatment(treatment))  # the caller's stays as it is
            one.timeline = self.timeline
            one.output(self.results)


def raise_failures(outcomes: Iterable[TreatmentOutcome], *, only_problems: bool = False) -> None:
    """Raise an error that tells all that failed, if something did.

    Parameters
    ----------
    outcomes : iterable of TreatmentOutcome
        Of the treatments of a run.
    only_problems : bool
        Whether single regions may fail, if their treatment has a result.

    Raises
    ------
    TreatmentError
        With treatments, regions, the first failure in full, and where the results of the others are.
    """
    lines: list[str] = []
    failures: list[TaskFailure] = []
    for one in outcomes:
        subject = one.subject
        if one.problem:
            lines.append(f"treatment {subject.name!r} ended early: {one.problem}")
        if one.failures and (one.problem or not only_problems):
            where = subject.result_path if one.results else ""
            lines += tell(f"treatment {subject.name!r}", len(subject.regions), one.failures, where)
            failures += one.failures
        if lines and one.how_to_go_on:
            lines.append(one.how_to_go_on)
    if lines:
        raise as_error(lines, failures)
