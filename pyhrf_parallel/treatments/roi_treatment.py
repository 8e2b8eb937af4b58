"""`ROITreatment`: one subject's analysis, region by region."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.backends import Mode, check_mode
from pyhrf_parallel.configuration import ConfigSource
from pyhrf_parallel.errors import NotShippableError, TreatmentError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.tasks import Resources
from pyhrf_parallel.treatment_jobs.ledger import result_ledger
from pyhrf_parallel.treatment_jobs.outcome import TaskFailure, as_error, raise_failures, tell
from pyhrf_parallel.treatment_jobs.region_files import PROTOCOL, RESULT, data_name, read_outline
from pyhrf_parallel.treatment_jobs.submit import submit_treatments
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment
from pyhrf_parallel.treatment_jobs.treatment_run import TreatmentRun
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.provenance import Identity, identify
from pyhrf_parallel.treatments.region_data import ROIData
from pyhrf_parallel.treatments.region_maps import map_regions
from pyhrf_parallel.treatments.result_place import ResultPlace
from pyhrf_parallel.treatments.results import (
    NO_VOXELS,
    Analyser,
    ChecksData,
    EstimateFile,
    Result,
    analyse_region,
    check_analyser,
    failures,
)
from pyhrf_parallel.treatments.xml import from_xml, to_xml

_PARAMETERS = ("fmri_data", "analyser", "output_dir", "make_outputs", "result_dump_file")


class ROITreatment(JobTreatment):
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
    >>> from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROITreatment
    >>> treatment = ROITreatment(
    ...     FmriData.of('bold.nii.gz', 'parcellation.nii.gz', 'events.tsv', tr=2.0),
    ...     GLMAnalyser(contrasts={'audio-video': {'audio': 1, 'video': -1}}),
    ...     output_dir='sub-01',
    ... )
    >>> results = treatment.run('local')  # doctest: +SKIP
    """

    keeps_names = False

    def __init__(
        self,
        fmri_data: FmriData,
        analyser: Analyser | None = None,
        output_dir: str | os.PathLike[str] = ".",
        make_outputs: bool = True,
        result_dump_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if analyser is not None:
            check_analyser(analyser)
        self.fmri_data = fmri_data
        self._analyser = analyser
        self.output_dir = os.path.abspath(output_dir)  # noqa: PTH100
        self.make_outputs = make_outputs
        self.result_dump_file = None if result_dump_file is None else os.fspath(result_dump_file)
        # Of a part: the whole treatment, and the results that it has already.
        self._whole_treatment: ROITreatment | None = None
        self._kept: dict[int, Result] = {}
        self._is_checked = False
        self._identity: Identity | None = None  # of the analysis that was checked

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
        if self.fmri_data.is_temporary:
            raise NotShippableError("data in memory cannot be written as XML: give files")
        return to_xml(self._parameters())

    @property
    def analyser(self) -> Analyser:
        """What works on one region: without any other, a `GLMAnalyser`."""
        if self._analyser is None:
            # It needs nilearn, which takes seconds to import: the split can do without.
            from pyhrf_parallel.treatments.analysers import GLMAnalyser

            self._analyser = GLMAnalyser()
        return self._analyser

    def _parameters(self) -> dict[str, Any]:
        return {
            name: self._analyser if name == "analyser" else getattr(self, name)
            for name in _PARAMETERS
        }

    @property
    def result_path(self) -> Path:
        """Where the list of results goes."""
        return Path(self.result_dump_file or Path(self.output_dir) / RESULT)

    def already_done(self) -> bool:
        """Return whether there is a result in which no region has failed."""
        results = read_outline(self.result_path) if self.result_path.exists() else None
        return isinstance(results, list) and not failures(results)

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
        place = Path(output_dir or ".").absolute()
        if not dry:  # first: the same pass over the images finds the regions
            for roi in self.fmri_data.rois():
                write_then_rename(place / data_name(roi.roi_id), pickle.dumps(roi, PROTOCOL))
        ids = self.fmri_data.roi_ids
        return [str(place / data_name(roi_id)) for roi_id in ids], ids

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""
        return self.fmri_data.files

    def replace_data_dir(self, d: str | os.PathLike[str]) -> None:
        """Look for all data files in another directory, under their own names."""
        self.fmri_data = self.fmri_data.moved(d)

    def replace_data_files(self, paths: Mapping[str, str]) -> None:
        """Read other files: for each of `get_data_files`, the path that takes its place."""
        self.fmri_data = self.fmri_data.renamed(paths)

    @property
    def output_directories(self) -> list[str]:
        """The directory of images, tables and provenance."""
        return [self.output_dir]

    def roi_shapes(self) -> list[tuple[int, int]]:
        """Return how many scans and voxels each region has, the biggest first."""
        return self.fmri_data.roi_shapes

    @property
    def estimation_command(self) -> list[str]:
        """The command that analyses a region, by the analyser in the XML."""
        return ["pyhrf_roi_estim"]

    def drop_analyser(self) -> None:
        """Forget the analyser: the split can do without."""
        self.set_init_param("analyser", None)

    def region_estimator(self) -> EstimateFile:
        """Return what analyses the region of a file, and leaves its result beside it."""
        return EstimateFile(self.analyser)

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the constructor.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        if name not in _PARAMETERS:
            raise ValueError(f"no parameter {name!r}; there are {', '.join(_PARAMETERS)}")
        self.__init__(**self._parameters() | {name: value})  # type: ignore[misc]

    def execute(self) -> list[Result]:
        """Analyse all regions here, one after the other; write nothing."""
        return [
            *(analyse_region(self.analyser, roi) for roi in self.fmri_data.rois()),
            *self._empty(),
        ]

    def run(
        self,
        mode: Mode = "serial",
        n_jobs: int | None = None,
        *,
        retry_failed: bool = False,
        rois_per_job: int | None = None,
        resources: Resources | None = None,
        retries: int = 0,
        config: ConfigSource = None,
    ) -> list[Result]:
        """Analyse all regions and write the results.

        Parameters
        ----------
        mode : {'serial', 'local', 'local_with_dumps', 'remote_cluster'}
            Where regions are analysed, as in `remote_map`. As jobs (``'remote_cluster'``) the data are also
            split and the results merged there: on the configured cluster or, without one, on this machine.
        n_jobs : int, optional
            Simultaneous regions; see `remote_map`.
        retry_failed : bool
            Take the results of regions from an earlier run's file, and analyse only those that failed.
        rois_per_job : int, optional
            In mode ``'remote_cluster'``, regions of each job; by default each takes the next one until none is left.
        resources : mapping, optional
            In mode ``'remote_cluster'``, what each job asks for: ``mem``, ``time``, ``cpus``, ``queue``.
        retries : int
            How often a region is tried again whose process died; on a cluster with twice the memory if it
            had run out of it.
        config : path or mapping, optional
            Instead of ``~/.pyhrf/config.cfg``.

        Returns
        -------
        list of (ROIData, object, str)
            For each region, the biggest first: the region without its signals, its result, and ``'ok'``.

        Raises
        ------
        ConfigurationError
            If there is no such mode.
        TreatmentDataError
            Before anything is analysed, if the data cannot be.
        TreatmentError
            Naming the regions that failed. The results of the others have been written; of jobs, the run is
            kept, so that ``pyhrf-parallel retry`` can run these regions again.
        """
        check_mode(mode)
        self.check()
        kept = self._place().load_kept(self.fmri_data, self.analyser) if retry_failed else {}
        wanted = [roi_id for roi_id in self.fmri_data.roi_ids if roi_id not in kept]
        failed: list[TaskFailure] = []
        found: dict[int, Result] = {}
        hint = "run(retry_failed=True) analyses the failed regions only"
        if mode == "remote_cluster" and wanted:
            given = {"n_jobs": n_jobs, "rois_per_job": rois_per_job, "resources": resources}
            part = self._part(wanted, kept)
            found, failed, kept_run = part._run_jobs(  # noqa: SLF001
                retries=retries, config=config, **given
            )
            hint = f"{kept_run}; or {hint}" if kept_run else hint
            self.timeline = part.timeline
        elif wanted:
            rois = list(self.fmri_data.only(wanted).rois())
            found, failed = map_regions(
                self.analyser, rois, mode=mode, n_jobs=n_jobs, retries=retries,
                resources=resources, config=config,
            )  # fmt: skip
        results = [(kept | found)[roi_id] for roi_id in self.fmri_data.roi_ids]
        results, _ = self._write(results)
        told = {failure.roi_id for failure in failed}
        failed += [
            TaskFailure.of_report(roi.roi_id, roi.n_voxels, report)
            for roi, _, report in failures(results)
            if roi.roi_id not in told
        ]
        if kept:
            self._remove_retried()
        if failed:
            raise as_error(
                tell(self.output_dir, len(results), failed, self.output_dir, hint), failed
            )
        return results

    def submit(
        self,
        n_jobs: int | None = None,
        *,
        rois_per_job: int | None = None,
        resources: Resources | None = None,
        retries: int = 0,
        config: ConfigSource = None,
    ) -> TreatmentRun:
        """Start the analysis as jobs, as `run` in mode ``'remote_cluster'`` does, and leave.

        ``pyhrf-parallel collect`` writes the results when they are there.

        Parameters
        ----------
        n_jobs, rois_per_job, resources, retries, config
            As in `run`.

        Returns
        -------
        TreatmentRun
        """
        self.check()
        if self.fmri_data.is_temporary:
            raise TreatmentError(
                "the data are in memory, and whoever collects the results reads them again: write them to "
                "files, or wait with run('remote_cluster')"
            )
        return self._submit(
            n_jobs=n_jobs, rois_per_job=rois_per_job, resources=resources,
            retries=retries, config=config,
        )  # fmt: skip

    @property
    def _retried_path(self) -> Path:
        """Where the result of a part goes: that of the whole stays until both are one."""
        return self.result_path.with_name(f".retried-{self.result_path.name}")

    def _remove_retried(self) -> None:
        """Remove the result of a part: it is among the others."""
        ledger = result_ledger(self._retried_path)
        if not ledger.is_foreign(self._retried_path):
            self._retried_path.unlink(missing_ok=True)
            if not ledger.is_foreign(ledger.path):
                ledger.path.unlink(missing_ok=True)

    def _part(self, wanted: list[int], kept: dict[int, Result]) -> ROITreatment:
        """Return the treatment of some regions; the others have results."""
        part = copy.copy(self)
        part._is_checked = True  # noqa: SLF001
        if not kept:
            return part
        part._whole_treatment, part._kept = self, kept  # noqa: SLF001
        part.fmri_data = self.fmri_data.only(wanted)
        part.result_dump_file = str(self._retried_path)
        return part

    def _submit(self, **options: Any) -> TreatmentRun:
        name = Path(self.output_dir).name or "treatment"
        places = {name: self.result_path.parent}
        # Fetched: whoever waits or collects writes the outputs of it, and may want to retry.
        run: TreatmentRun = submit_treatments(
            {name: self}, places, label="regions", result_transfer="sftp", **options
        )
        return run

    def _run_jobs(self, **options: Any) -> tuple[dict[int, Result], list[TaskFailure], str]:
        with self._submit(**options) as run:
            (outcome,) = run.finish().values()
        if outcome.problem:
            raise_failures([outcome])
        self.timeline = outcome.timeline
        results = zip(self.fmri_data.roi_ids, outcome.results, strict=True)
        found = {roi_id: self._whole(roi_id, result) for roi_id, result in results}
        return found, outcome.failures, outcome.how_to_go_on

    def _whole(self, roi_id: int, result: Any) -> Result:
        """Return a result with its region: one that was lost does not know it."""
        roi, found, report = result
        return roi or self.fmri_data.region(roi_id), found, report

    def output(self, results: Sequence[Result]) -> list[Path]:
        """Write results, and of them images and tables if `make_outputs`; return the files.

        Files appear under their final name only when complete; what an earlier run has left is replaced.

        Parameters
        ----------
        results : sequence of tuple
            Of all regions, the biggest first.
        """
        return self._write(results)[1]

    def _empty(self) -> list[Result]:
        """Return what is told of the regions in which there is nothing to analyse."""
        return [(self.fmri_data.region(i), None, NO_VOXELS) for i in self.fmri_data.empty_ids]

    def _write(self, given: Sequence[Result]) -> tuple[list[Result], list[Path]]:
        """Write results; return them as they were written, and the files."""
        ids = self.fmri_data.roi_ids
        results = [self._whole(i, result) for i, result in zip(ids, given, strict=False)]
        if len(given) not in {len(ids), len(ids) + len(self.fmri_data.empty_ids)}:
            raise TreatmentError(f"{len(given)} results are given of {len(ids)} regions")
        if self._whole_treatment is not None:
            return results, self._output_with_kept(dict(zip(ids, results, strict=True)))
        return self._place().write(
            self.fmri_data, self.analyser, self._identity, [*results, *self._empty()], self.timeline
        )

    def _output_with_kept(self, found: dict[int, Result]) -> list[Path]:
        """Write the results of the whole treatment, of which this one is a part."""
        whole = self._whole_treatment
        assert whole is not None  # noqa: S101
        whole.timeline = self.timeline
        all_of_them = [(self._kept | found)[roi_id] for roi_id in whole.fmri_data.roi_ids]
        written = whole.output(all_of_them)
        whole._remove_retried()  # noqa: SLF001
        return written

    def check(self) -> None:
        """Find out before hours of work what could not succeed; write nothing.

        Raises
        ------
        TreatmentDataError
            If the data cannot be analysed as they are, or not by this analyser.
        TreatmentError
            If results could not be written, or would replace files that are no results of this library.
        """
        if self._is_checked:
            return
        self._place().check_access()  # the fastest first
        self.check_analysis()
        self.check_outputs()

    def check_analysis(self) -> None:
        """Check data and analyser, wherever the results go; see `check`."""
        if self._is_checked:
            return
        self.fmri_data.check()
        analyser: Any = self.analyser
        if isinstance(analyser, ChecksData):
            analyser.check(self.fmri_data)
        self._identity = identify(self.fmri_data, analyser)

    def check_outputs(self) -> None:
        """Check that results may be written to `output_dir`; see `check`."""
        if self._is_checked:
            return
        self._place().check_access()
        self._place().check(self.fmri_data, self.analyser)

    def identity(self) -> Identity:
        """Return which analysis this is: what its results depend on."""
        return self._identity or identify(self.fmri_data, self.analyser)

    def _place(self) -> ResultPlace:
        return ResultPlace(Path(self.output_dir), self.result_path, has_outputs=self.make_outputs)
