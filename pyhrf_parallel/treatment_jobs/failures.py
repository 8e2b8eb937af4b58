"""What has failed of treatments, and how that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from pyhrf_parallel.errors import RemoteException, TreatmentError

OK = "ok"
_TOLD = 5  # reasons that an error tells
_NAMED = 10  # failed regions that it names for each
_PARTS = 3  # of a region's result: the region, what was found, 'ok' or a traceback


@dataclass(frozen=True)
class Failure:
    """A region that has failed.

    Attributes
    ----------
    roi_id : int
        Its label.
    n_voxels : int or None
        Its size, where that is known.
    reason : str
        Why, in a line.
    details : str
        The traceback in the worker, or all else that is known.
    lost : RemoteException or None
        What the worker's side says.
    """

    roi_id: int
    n_voxels: int | None
    reason: str
    details: str = ""
    lost: RemoteException | None = None

    @classmethod
    def of_exception(cls, roi_id: int, n_voxels: int | None, failure: RemoteException) -> Self:
        """Build a failure from a record of a worker."""
        cause = failure.__cause__
        reason = str(failure.args[0]) if cause is None else f"{type(cause).__name__}: {cause}"
        return cls(roi_id, n_voxels, reason.partition("\n")[0], str(failure), failure)

    @classmethod
    def of_report(cls, roi_id: int, n_voxels: int | None, report: str) -> Self:
        """Build a failure from a traceback, as pyhrf's results have it."""
        return cls(roi_id, n_voxels, last_line(report), report)

    def __str__(self) -> str:
        """Say which region, how big, and why."""
        size = "" if self.n_voxels is None else f" ({self.n_voxels} voxels)"
        return f"region {self.roi_id}{size}: {self.reason}"


def last_line(report: str) -> str:
    """Return the line of a traceback that says what happened."""
    return report.strip().rpartition("\n")[2] or "no reason given"


def crash_report(result: Any) -> str:
    """Return why a region's result is none, as pyhrf says it; empty if it is one."""
    if isinstance(result, (tuple, list)) and len(result) == _PARTS and result[2] != OK:
        return str(result[2])
    return ""


def tell(
    name: str, n_regions: int, failures: list[Failure], where: str, hint: str = ""
) -> list[str]:
    """Say which regions of a treatment have failed, and where the results of the others are."""
    others = n_regions - len(failures)
    kept = f"; the results of the other {others} are in {where}" if where and others else ""
    lines = [f"{name}: {len(failures)} of {n_regions} regions failed or were not run{kept}"]
    lines += [hint] * bool(hint)
    by_reason: dict[str, list[Failure]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(failure)
    groups = list(by_reason.values())
    lines += map(_tell_alike, groups[:_TOLD])
    left = sum(map(len, groups[_TOLD:]))
    if left:
        lines.append(f"and {left} more")
    return lines


def _tell_alike(failures: list[Failure]) -> str:
    """Say of several regions once why they have failed."""
    if len(failures) == 1:
        return str(failures[0])
    named = ", ".join(str(failure.roi_id) for failure in failures[:_NAMED])
    more = f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
    return f"regions {named}{more}: {failures[0].reason}"


def as_error(lines: Iterable[str], failures: list[Failure]) -> TreatmentError:
    """Return an error of lines, with the first failure in full."""
    told = list(lines)
    detailed = next((failure for failure in failures if failure.details), None)
    if detailed is not None:
        told.append(f"--- region {detailed.roi_id} ---\n{detailed.details.rstrip()}")
    error = TreatmentError("\n".join(told))
    error.__cause__ = next((failure.lost for failure in failures if failure.lost), None)
    return error
