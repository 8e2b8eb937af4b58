"""Where the results of a treatment go: what may be replaced there, which analysis has left what, and writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.failures import OK
from pyhrf_parallel.treatment_jobs.interface import JobSpan
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.ledger import PROVENANCE, Ledger
from pyhrf_parallel.treatments.provenance import Identity, differences, identify
from pyhrf_parallel.treatments.results import (
    Analyser,
    Result,
    dump_results,
    load_results,
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

    def check(self, data: FmriData, analyser: Analyser) -> Identity:
        """Check that nothing would be replaced but earlier results; return which analysis this is.

        Raises
        ------
        TreatmentError
            If a file would be.
        """
        names: list[str] = []
        if self._has_outputs:
            from pyhrf_parallel.treatments.outputs import planned_names  # with all that draws

            names = planned_names(analyser, data)
        self._ledger().check(names, data.files)
        return identify(data, analyser)

    def begin(self, identity: Identity) -> None:
        """Note that results are to come, and of which analysis: one that was killed is known, too."""
        self._ledger().claim([self._result], identity)

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
        told: list[str] = []
        for identity in (earlier.get("identity"), earlier.get("unfinished")):
            if identity is not None:
                told += differences(identity, now, data)
        if told:
            raise TreatmentError(
                f"{self._result} is of another analysis ({'; '.join(dict.fromkeys(told))}): "
                "retry_failed=True would mix the two; without it, all regions are analysed"
            )
        return {r[0].roi_id: r for r in load_results(self._result) if r[2] == OK}

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
        ledger.check((), data.files, has_result=identity is not None)
        identity = identity or identify(data, analyser)
        paths = [self._result]
        ledger.claim(paths, identity)
        written = dump_results(that_fit(results), self._result)
        told = tell_provenance(data, analyser, identity, written)
        if self._has_outputs:
            outputs = Outputs(data, written, self._directory, ledger.is_foreign)
            paths += outputs.paths
            ledger.claim(paths, identity)
            outputs.write(told, timeline)
        ledger.finish(paths, identity, told)
        return written, [*paths, ledger.path]

    def _ledger(self) -> Ledger:
        with_outputs = self._directory / PROVENANCE
        alone = self._result.with_name(f"{self._result.name}.{PROVENANCE}")
        own, other = (with_outputs, alone) if self._has_outputs else (alone, with_outputs)
        return Ledger(own, self._result, other)
