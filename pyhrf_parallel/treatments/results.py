"""The results of a treatment: writing them, replacing earlier ones, keeping those of the same analysis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyhrf_parallel.compressing import packed
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.ledger import PROVENANCE, Ledger, result_ledger, write
from pyhrf_parallel.treatment_jobs.read_results import load_results
from pyhrf_parallel.treatment_jobs.region_files import OK, PROTOCOL, failed_result
from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.pickling import dumps
from pyhrf_parallel.treatments.provenance import (
    Identity,
    describe_analysis,
    differences,
    identify,
)
from pyhrf_parallel.treatments.region_analysis import Analyser
from pyhrf_parallel.treatments.region_data import Estimates, ROIData

#: The report of a region that was not analysed.
NO_VOXELS = "no voxel with a usable signal: constant, not finite, or of mean <= 0 in a run"
#: The region, the result of its analysis, and `OK` or a report of the failure.
Result = tuple[ROIData, Any, str]


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the results of the regions whose analysis has failed."""
    return [result for result in results if result[2] not in {OK, NO_VOXELS}]


class ResultFiles:
    """The files of a treatment's results.

    Parameters
    ----------
    directory : Path
        For images, tables and provenance.
    result : Path
        For the list of results.
    data, analyser
        What is analysed, and by what.
    has_outputs : bool
        Whether anything but the list is written.
    """

    def __init__(
        self,
        directory: Path,
        result: Path,
        data: FmriData,
        analyser: Analyser,
        *,
        has_outputs: bool,
    ) -> None:
        self._directory = directory
        self._result = result.absolute()
        self._data, self._analyser = data, analyser
        self._has_outputs = has_outputs

    def check_access(self) -> None:
        """Check that files can be written.

        Raises
        ------
        TreatmentError
            If not.
        """
        for directory in (self._directory, self._result.parent):
            existing = next(each for each in (directory, *directory.parents) if each.exists())
            if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
                raise TreatmentError(f"{directory} cannot be written to ({existing} does not let)")

    def check(self) -> None:
        """Check that only earlier results would be replaced.

        Raises
        ------
        TreatmentError
            If a file would be.
        """
        names: list[str] = []
        if self._has_outputs:
            from pyhrf_parallel.treatments.outputs import planned_names  # with all that draws

            names = planned_names(self._analyser, self._data)
        self._ledger().check([self._directory / name for name in names], self._data.files)

    def load_kept(self) -> dict[int, Result]:
        """Return the results of an earlier run of the same analysis by region, without those that failed.

        Raises
        ------
        TreatmentError
            If it was another analysis, saying what differs.
        """
        if not self._result.exists():
            return {}
        earlier, now = self._ledger().earlier, identify(self._data, self._analyser)
        known = [earlier.get("identity"), earlier.get("unfinished")]
        told: list[str] = [] if any(known) else ["nobody has noted which one"]
        for identity in known:
            if identity is not None:
                told += differences(identity, now, self._data)
        if told:
            raise TreatmentError(
                f"{self._result} is of another analysis ({'; '.join(dict.fromkeys(told))}): "
                "retry_failed=True would mix the two; without it, all regions are analysed"
            )
        results = load_results(self._result, allow_pickle=True)
        return {roi.roi_id: (roi, *rest) for roi, *rest in results if rest[-1] == OK}

    def write(
        self, given: Sequence[Result], identity: Identity, timeline: Sequence[JobSpan]
    ) -> tuple[list[Result], list[Path]]:
        """Write results.

        Parameters
        ----------
        given : sequence of tuple
            Of all regions, the biggest first. One that was lost has no region.
        identity : dict
            The analysis, as it was identified before it began.
        timeline : sequence of JobSpan
            When jobs ran.

        Returns
        -------
        results : list of tuple
            As they were written: those that cannot be have failed.
        files : list of Path
            What was written.

        Raises
        ------
        TreatmentError
            If there are more or fewer results than regions, or a file cannot be written or must stay.
        """
        data, ledger = self._data, self._ledger()
        results, content = dump_results(that_fit(_complete(given, data)))
        outputs = None
        if self._has_outputs:
            from pyhrf_parallel.treatments.outputs import Outputs

            outputs = Outputs(data, results, self._directory, ledger.is_foreign)
        paths = [self._result, *(outputs.paths if outputs else ())]
        ledger.check(paths, data.files)  # again: it may have taken hours
        note = partial(ledger.note, identity=identity)
        content = packed(self._result, content)
        write(self._result, lambda part: part.write_bytes(content), len(content), note)
        provenance = describe_analysis(data, self._analyser, identity, results)
        if outputs is not None:
            outputs.write(provenance, timeline, note)
        ledger.finish(identity, provenance)
        return results, [*paths, ledger.path]

    def _ledger(self) -> Ledger:
        alone = result_ledger(self._result, [self._directory])
        if not self._has_outputs:
            return alone
        return Ledger(self._directory / PROVENANCE, self._result, [alone.path])


def empty_results(data: FmriData) -> list[Result]:
    """Return the results of the regions in which there is nothing to analyse."""
    return [(data.region(roi_id), None, NO_VOXELS) for roi_id in data.empty_ids]


def _complete(given: Sequence[Result], data: FmriData) -> list[Result]:
    """Return results with the regions of those that were lost, and with those of empty regions."""
    ids, empty = data.roi_ids, empty_results(data)
    if len(given) not in {len(ids), len(ids) + len(empty)}:
        raise TreatmentError(f"{len(given)} results are given of {len(ids)} regions")
    results = [
        (roi or data.region(roi_id), found, report)
        for roi_id, (roi, found, report) in zip(ids, given, strict=False)
    ]
    return results + empty


def dump_results(results: Sequence[Result]) -> tuple[list[Result], bytes]:
    """Pickle the list of results; return it as it was pickled, and the pickle.

    A region whose result cannot be pickled has failed.
    """
    try:
        return list(results), dumps(list(results), 5)
    except Exception:
        fitting = [_or_failed(result) for result in results]
        return fitting, dumps(fitting, 5)


def _or_failed(result: Result) -> Result:
    try:
        dumps(result, PROTOCOL)
    except Exception as error:
        reason = f"its result cannot be pickled: {type(error).__name__}: {error}"
        return failed_result(result[0], reason.partition("\n")[0])
    return result


def that_fit(results: Iterable[Result]) -> list[Result]:
    """Return results in which a region has failed if a map of it has another width than in the first region."""
    widths: dict[str, tuple[int, tuple[int, ...]]] = {}
    fitting = []
    for roi, found, report in results:
        result = roi, found, report
        maps = found.maps if report == OK and isinstance(found, Estimates) else {}
        for name, values in maps.items():
            first, width = widths.setdefault(name, (roi.roi_id, values.shape[1:]))
            if values.shape[1:] != width:
                result = failed_result(
                    roi,
                    f"map {name!r} has {_count(values.shape[1:])} for each voxel, and {_count(width)} in "
                    f"region {first}",
                )
        fitting.append(result)
    return fitting


def _count(width: tuple[int, ...]) -> str:
    return f"{width[0]} values" if width else "one value"
