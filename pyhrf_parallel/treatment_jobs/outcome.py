"""What has come of treatments: results, failures, and what is made of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyhrf_parallel.treatment_jobs.failures import Failure, as_error, tell
from pyhrf_parallel.treatment_jobs.treatment import JobSpan, MakesOutputs, ShowsTimeline


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
    place : str
        The directory where it runs.
    result_path : str
        The file here that its result goes to.
    is_sent : bool
        Whether the jobs bring the result there.
    makes_outputs : bool
        Whether the treatment makes files for people of the result, when it is there.
    outputs : list of str
        Directories that it writes such files to.
    identity : dict or None
        Which analysis it is, where the treatment knows it.
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
    makes_outputs: bool = True
    outputs: list[str] = field(default_factory=list)
    identity: dict[str, Any] | None = None


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
    how_to_go_on : str
        What a user may do with the run, if it was kept.
    """

    subject: Subject
    results: list[Any] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
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
        return len(self.failures) < len(self.subject.roi_ids)


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
        if lines and one.how_to_go_on:
            lines.append(one.how_to_go_on)
    if lines:
        raise as_error(lines, failures)
