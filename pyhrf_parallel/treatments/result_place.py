"""Where the results of a treatment go: what may be replaced there, which analysis has left what, and writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pyhrf_parallel.compressing import packed
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.ledger import PROVENANCE, Ledger, result_ledger, write
from pyhrf_parallel.treatment_jobs.read_results import load_results
from pyhrf_parallel.treatment_jobs.region_files import OK
from pyhrf_parallel.treatment_jobs.treatment import JobSpan
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.provenance import Identity, differences, identify
from pyhrf_parallel.treatments.results import (
    Analyser,
    Result,
    dump_results,
    that_fit,
)


class ResultPlace:
    """The files of a treatment's results.

    Parameters
    ----------
    directory : Path
        For images, tables and provenance.
    result : Path
        For the list of results.
    has_outputs : bool
        Whether anything but the list is written.
    """

    def __init__(self, directory: Path, result: Path, *, has_outputs: bool) -> None:
        self._directory = directory
        self._result = result.absolute()
        self._has_outputs = has_outputs

    def check_access(self) -> None:
        """Check that files can be written.

        Raises
        ------
        TreatmentError
            If not.
        """
        for directory in (self._directory, self._result.parent):
            existing = next(place for place in (directory, *directory.parents) if place.exists())
            if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
                raise TreatmentError(f"{directory} cannot be written to ({existing} does not let)")

    def check(self, data: FmriData, analyser: Analyser) -> None:
        """Check that nothing would be replaced but earlier results.

        Raises
        ------
        TreatmentError
            If a file would be.
        """
        names: list[str] = []
        if self._has_outputs:
            from pyhrf_parallel.treatments.outputs import planned_names  # with all that draws

            names = planned_names(analyser, data)
        self._ledger().check([self._directory / name for name in names], data.files)

    def load_kept(self, data: FmriData, analyser: Analyser) -> dict[int, Result]:
        """Return by regions what an earlier run of the same analysis has found.

        Raises
        ------
        TreatmentError
            If it was another analysis, saying what differs.
        """
        if not self._result.exists():
            return {}
        earlier, now = self._ledger().earlier, identify(data, analyser)
        known = [earlier.get("identity"), earlier.get("unfinished")]
        told: list[str] = [] if any(known) else ["nobody has noted which one"]
        for identity in known:
            if identity is not None:
                told += differences(identity, now, data)
        if told:
            raise TreatmentError(
                f"{self._result} is of another analysis ({'; '.join(dict.fromkeys(told))}): "
                "retry_failed=True would mix the two; without it, all regions are analysed"
            )
        return {r[0].roi_id: r for r in load_results(self._result, allow_pickle=True) if r[2] == OK}

    def write(
        self, data: FmriData, analyser: Analyser, identity: Identity | None,
        results: Sequence[Result], timeline: Sequence[JobSpan],
    ) -> tuple[list[Result], list[Path]]:  # fmt: skip
        """Write results.

        Parameters
        ----------
        data, analyser
            What was analysed, and by what.
        identity : Identity or None
            What `check` has returned before the analysis.
        results : sequence of tuple
            Of all regions.
        timeline : sequence of JobSpan
            When jobs ran.

        Returns
        -------
        results : list of tuple
            As they were written: those that cannot be have failed.
        files : list of Path
            What was written.
        """
        from pyhrf_parallel.treatments.outputs import Outputs, tell_provenance

        ledger = self._ledger()
        identity = identity or identify(data, analyser)
        written, content = dump_results(that_fit(results))
        outputs = None
        if self._has_outputs:
            outputs = Outputs(data, written, self._directory, ledger.is_foreign)
        paths = [self._result, *(outputs.paths if outputs else ())]
        ledger.check(paths, data.files)  # again: it may have taken hours
        note = partial(ledger.note, identity=identity)
        content = packed(self._result, content)
        write(self._result, lambda part: part.write_bytes(content), len(content), note)
        told = tell_provenance(data, analyser, identity, written)
        if outputs is not None:
            outputs.write(told, timeline, note)
        ledger.finish(identity, told)
        return written, [*paths, ledger.path]

    def _ledger(self) -> Ledger:
        alone = result_ledger(self._result, [self._directory])
        if not self._has_outputs:
            return alone
        return Ledger(self._directory / PROVENANCE, self._result, [alone.path])
