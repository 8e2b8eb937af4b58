"""`ROITreatment`: one subject's analysis, region by region."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pyhrf_parallel.configuration import ConfigSource
from pyhrf_parallel.errors import RemoteException, TreatmentError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.mapping import remote_map
from pyhrf_parallel.treatments.analysers import GLMAnalyser
from pyhrf_parallel.treatments.fmri_data import FmriData, ROIData
from pyhrf_parallel.treatments.outputs import write_outputs
from pyhrf_parallel.treatments.region_files import PROTOCOL, data_name
from pyhrf_parallel.treatments.results import (
    OK,
    RESULT_FILE,
    Analyser,
    Result,
    analyse_region,
    failures,
)
from pyhrf_parallel.treatments.serialising import from_xml, to_xml

_MODES = {None: "serial", "local": "local", "cluster": "remote_cluster"}
_PARAMETERS = ("fmri_data", "analyser", "output_dir", "make_outputs", "result_dump_file")
_TOLD = 5  # failed regions that an error names


class ROITreatment:
    """One subject's analysis, which can be spread over processes and machines by region.

    Parameters
    ----------
    fmri_data : FmriData
        The subject's files.
    analyser : callable
        Takes the `ROIData` of a region. What it returns is kept as the region's result; maps and
        responses are written of `Estimates`. An analyser of your own is a function.
    output_dir : path
        Where results go.
    make_outputs : bool
        Whether images, tables and provenance are written, or the result alone.
    result_dump_file : path, optional
        Where the list of results goes; ``result.pck`` of `output_dir` by default.

    Examples
    --------
    >>> treatment = ROITreatment(
    ...     FmriData.of('bold.nii.gz', 'parcellation.nii.gz', 'events.tsv', tr=2.0),
    ...     GLMAnalyser(contrasts={'audio-video': {'audio': 1, 'video': -1}}),
    ...     output_dir='sub-01',
    ... )
    >>> results = treatment.run(parallel='local')  # doctest: +SKIP
    """

    def __init__(
        self,
        fmri_data: FmriData,
        analyser: Analyser | None = None,
        output_dir: str | os.PathLike[str] = ".",
        make_outputs: bool = True,
        result_dump_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.fmri_data = fmri_data
        self.analyser = analyser if analyser is not None else GLMAnalyser()
        self.output_dir = os.path.abspath(output_dir)  # noqa: PTH100
        self.make_outputs = make_outputs
        self.result_dump_file = None if result_dump_file is None else os.fspath(result_dump_file)

    @classmethod
    def from_xml(cls, text: str) -> Self:
        """Make a treatment of what `to_xml` has written.

        Raises
        ------
        TreatmentDataError
            If it is anything else.
        """
        return cls(**from_xml(text))

    def to_xml(self) -> str:
        """Return a text that describes this treatment: its files, not what is in them.

        Raises
        ------
        NotShippableError
            If the analyser is a function that cannot be imported, such as a lambda.
        """
        return to_xml(vars(self))

    @property
    def result_path(self) -> Path:
        """Where the list of results goes."""
        return Path(self.result_dump_file or Path(self.output_dir) / RESULT_FILE)

    def already_done(self) -> bool:
        """Tell whether there is a result in which no region has failed."""
        return self.result_path.exists() and not failures(load_results(self.result_path))

    def split(self) -> list[ROIData]:
        """Return the data of each region, the biggest first.

        Raises
        ------
        TreatmentDataError
            If the data cannot be analysed as they are.
        """
        return list(self.fmri_data.rois())

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | os.PathLike[str] | None = None
    ) -> tuple[list[str], list[int]]:
        """Write the data of each region to a file; see `Treatment`."""
        place = os.path.abspath(output_dir or ".")  # noqa: PTH100
        ids = self.fmri_data.roi_ids
        files = [os.path.join(place, data_name(roi_id)) for roi_id in ids]  # noqa: PTH118
        if not dry:
            for path, roi in zip(files, self.fmri_data.rois(), strict=True):
                write_then_rename(Path(path), pickle.dumps(roi, PROTOCOL))
        return files, ids

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""
        return self.fmri_data.files

    def replace_data_dir(self, d: str | os.PathLike[str]) -> None:
        """Look for all data files in another directory, under their own names."""
        self.fmri_data = self.fmri_data.moved(d)

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the constructor.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        if name not in _PARAMETERS:
            raise ValueError(f"no parameter {name!r}; there are {', '.join(_PARAMETERS)}")
        setattr(self, name, value)

    def execute(self) -> list[Result]:
        """Analyse all regions here, one after the other; write nothing."""
        return [analyse_region(self.analyser, roi) for roi in self.fmri_data.rois()]

    def run(
        self,
        parallel: Literal["local", "cluster"] | None = None,
        n_jobs: int | None = None,
        *,
        retry_failed: bool = False,
        config: ConfigSource = None,
    ) -> list[Result]:
        """Analyse all regions and write the results.

        Parameters
        ----------
        parallel : {None, 'local', 'cluster'}
            In this process, in processes of this machine, or as jobs of the configured cluster (without
            one, of this machine).
        n_jobs : int, optional
            Simultaneous regions; see `remote_map`.
        retry_failed : bool
            Take the results of regions from an earlier run's file, and analyse only those that failed.
        config : path or mapping, optional
            Instead of ``~/.pyhrf/config.cfg``.

        Returns
        -------
        list of (ROIData, object, str)
            For each region, the biggest first: the region without its signals, its result, and ``'ok'``.

        Raises
        ------
        TreatmentDataError
            Before anything is analysed, if the data cannot be.
        TreatmentError
            Naming the regions that failed. The results of the others have been written.
        """
        if parallel not in _MODES:
            raise ValueError(f"parallel is {parallel!r}; accepted: None, 'local', 'cluster'")
        self._check_output()
        kept = self._kept() if retry_failed else {}
        rois = [roi for roi in self.fmri_data.rois() if roi.roi_id not in kept]
        outcomes = remote_map(
            analyse_region,
            [(self.analyser, roi) for roi in rois],
            mode=_MODES[parallel],
            n_jobs=n_jobs,
            on_error="return",
            config=config,
        )
        found = {
            roi.roi_id: _as_result(roi, outcome)
            for roi, outcome in zip(rois, outcomes, strict=True)
        }
        results = [(kept | found)[roi_id] for roi_id in self.fmri_data.roi_ids]
        self.output(results)
        _raise_failures(self.output_dir, results, outcomes)
        return results

    def output(self, results: Sequence[Result]) -> list[Path]:
        """Write results, and of them images and tables if `make_outputs`; return the files.

        A file has its name when it is complete; what an earlier run has left is replaced.
        """
        self.result_path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(self.result_path, pickle.dumps(list(results), 5))
        if not self.make_outputs:
            return [self.result_path]
        made = write_outputs(self.fmri_data, self.analyser, results, Path(self.output_dir))
        return [self.result_path, *made]

    def _check_output(self) -> None:
        """Find out before hours of work whether their result can be written."""
        for directory in (Path(self.output_dir), self.result_path.parent):
            existing = next(place for place in (directory, *directory.parents) if place.exists())
            if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
                raise TreatmentError(f"{directory} cannot be written to ({existing} does not let)")

    def _kept(self) -> dict[int, Result]:
        if not self.result_path.exists():
            return {}
        return {r[0].roi_id: r for r in load_results(self.result_path) if r[2] == OK}


def load_results(path: str | os.PathLike[str]) -> list[Result]:
    """Read the list of results that a treatment has written. It is a pickle: trust who wrote it."""
    results: list[Result] = pickle.loads(Path(path).read_bytes())
    return results


def _as_result(roi: ROIData, outcome: Any) -> Result:
    if isinstance(outcome, RemoteException):  # its worker died
        return roi.without_signals(), None, str(outcome)
    result: Result = outcome
    return result


def _raise_failures(name: str, results: Sequence[Result], outcomes: Sequence[Any]) -> None:
    failed = failures(results)
    if not failed:
        return
    done = len(results) - len(failed)
    lines = [
        f"{len(failed)} of {len(results)} regions failed; the results of the other {done} are in {name}",
        "run(retry_failed=True) analyses the failed regions only",
    ]
    for roi, _, report in failed[:_TOLD]:
        reason = report.strip().splitlines()
        lines.append(f"region {roi.roi_id} ({roi.n_voxels} voxels): {reason[-1]}")
    if len(failed) > _TOLD:
        lines.append(f"and {len(failed) - _TOLD} more")
    lines.append(f"--- region {failed[0][0].roi_id} ---\n{failed[0][2].rstrip()}")
    lost = next((o for o in outcomes if isinstance(o, RemoteException)), None)
    raise TreatmentError("\n".join(lines)) from lost
