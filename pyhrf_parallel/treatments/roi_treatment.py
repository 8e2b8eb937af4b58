"""`ROITreatment`: one subject's analysis, region by region."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.backends import Mode
from pyhrf_parallel.configuration import ConfigSource
from pyhrf_parallel.errors import NotShippableError, TreatmentError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.tasks import Resources
from pyhrf_parallel.treatment_jobs.region_files import PROTOCOL, RESULT, data_name, read_outline
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment
from pyhrf_parallel.treatment_jobs.treatment_run import TreatmentRun
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.provenance import Identity, identify
from pyhrf_parallel.treatments.region_analysis import (
    Analyser,
    ChecksData,
    EstimateFile,
    check_analyser,
)
from pyhrf_parallel.treatments.region_data import ROIData
from pyhrf_parallel.treatments.results import Result, ResultFiles, empty_results, failures
from pyhrf_parallel.treatments.xml import from_xml, to_xml

_PARAMETERS = ("fmri_data", "analyser", "output_dir", "make_outputs", "result_dump_file")


class ROITreatment(JobTreatment):
    """One subject's analysis, which can be spread over processes and machines by region.

    Parameters
    ----------
    fmri_data : FmriData
        The subject's files.
    analyser : callable
        Takes the `ROIData` of a region. If it returns `Estimates`, maps and responses are written; other
        results go to the list only. An analyser of your own is a function; the default is `GLMAnalyser`.
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
        self, fmri_data: FmriData, analyser: Analyser | None = None,
        output_dir: str | os.PathLike[str] = ".", make_outputs: bool = True,
        result_dump_file: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        if analyser is not None:
            check_analyser(analyser)
        self.fmri_data: FmriData = fmri_data
        self._analyser = analyser
        self.output_dir: str = os.path.abspath(output_dir)  # noqa: PTH100
        self.make_outputs = make_outputs
        dump = result_dump_file
        self.result_dump_file: str | None = None if dump is None else os.fspath(dump)
        self._identity: Identity | None = None  # of the analysis that was checked

    @classmethod
    def from_xml(cls, text: str) -> Self:
        """Rebuild a treatment from what `to_xml` has written; anything else is a TreatmentDataError."""
        return cls(**from_xml(text))

    def to_xml(self) -> str:
        """Return a text that names the files of this treatment, its analyser and its parameters.

        Raises
        ------
        NotShippableError
            If the analyser is a function that cannot be imported, such as a lambda.
        """
        if self.fmri_data.is_temporary:
            raise NotShippableError("data in memory cannot be written as XML: give files")
        return to_xml(self.parameters())

    @property
    def analyser(self) -> Analyser:
        """The analyser of regions; a `GLMAnalyser` by default."""
        if self._analyser is None:
            # Imported late: it needs nilearn, which takes seconds, and the split does without.
            from pyhrf_parallel.treatments.analysers import GLMAnalyser

            self._analyser = GLMAnalyser()
        return self._analyser

    def parameters(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: vars(self).get(name, self._analyser) for name in _PARAMETERS}

    @property
    def result_path(self) -> Path:
        """Where the list of results goes."""
        return Path(self.result_dump_file or Path(self.output_dir) / RESULT)

    def already_done(self) -> bool:
        """Whether there is a result in which no region has failed."""
        results = read_outline(self.result_path) if self.result_path.exists() else None
        return isinstance(results, list) and not failures(results)

    def split(self) -> list[ROIData]:
        """Return the data of each region, the biggest first."""
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
        return [str(place / data_name(i)) for i in ids], ids

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""
        return self.fmri_data.files

    def replace_data_dir(self, d: str | os.PathLike[str]) -> None:
        """Look for all data files in another directory, under their own names."""
        self.fmri_data = self.fmri_data.moved(d)

    def replace_data_files(self, paths: Mapping[str, str]) -> None:
        """Read other files: for each of `get_data_files`, the path that takes its place."""
        self.fmri_data = self.fmri_data.renamed(paths)

    def roi_shapes(self) -> list[tuple[int, int]]:
        """Return the numbers of scans and voxels of each region, the biggest first."""
        return self.fmri_data.roi_shapes

    @property
    def output_directories(self) -> list[str]:
        """The directory of images, tables and provenance."""
        return [self.output_dir]

    @property
    def estimation_command(self) -> list[str]:
        """The command that analyses a region by the analyser in the XML."""
        return ["pyhrf_roi_estim"]

    def drop_analyser(self) -> None:
        """Forget the analyser, which the split does not need."""
        self.set_init_param("analyser", None)

    def region_estimator(self) -> EstimateFile:
        """Return a callable that analyses the region of a file and writes the result beside it."""
        return EstimateFile(self.analyser)

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the constructor."""
        if name not in _PARAMETERS:
            raise ValueError(f"no parameter {name!r}; there are {', '.join(_PARAMETERS)}")
        self.__init__(**self.parameters() | {name: value})  # type: ignore[misc]

    def execute(self) -> list[Result]:
        """Analyse all regions here, one after the other; write nothing."""
        from pyhrf_parallel.treatments.running import run_as_map  # which knows this class

        found, _ = run_as_map(self, mode="serial")
        return [*found.values(), *empty_results(self.fmri_data)]

    def run(
        self, mode: Mode = "serial", n_jobs: int | None = None, *, retry_failed: bool = False,
        rois_per_job: int | None = None, resources: Resources | None = None,
        retries: int = 0, config: ConfigSource = None,
    ) -> list[Result]:  # fmt: skip
        """Analyse all regions and write the results.

        Parameters
        ----------
        mode : {'serial', 'local', 'local_with_dumps', 'remote_cluster'}
            Where regions are analysed, as in `remote_map`. As jobs (``'remote_cluster'``) the data are also
            split and the results merged there: on the configured cluster or, without one, on this machine.
        n_jobs : int, optional
            Simultaneous regions; see `remote_map`.
        retry_failed : bool
            Analyse only regions that failed in an earlier run; results of the others are unpickled from its file.
        rois_per_job : int, optional
            Regions of each job in mode ``'remote_cluster'``; by default each takes the next until none is left.
        resources : mapping, optional
            What each job asks for in mode ``'remote_cluster'``: ``mem``, ``time``, ``cpus``, ``queue``.
        retries : int
            Retries for a region whose process died; on a cluster with twice the memory if it had run out of it.
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
            If the data cannot be analysed, before anything is.
        TreatmentError
            If regions failed, naming them; the results of the others have been written. A run of jobs is kept,
            so that ``pyhrf-parallel retry`` can run these regions again.
        """
        from pyhrf_parallel.treatments.running import run  # which knows this class

        return run(
            self, mode, n_jobs=n_jobs, retry_failed=retry_failed, rois_per_job=rois_per_job,
            resources=resources, retries=retries, config=config,
        )  # fmt: skip

    def submit(
        self, n_jobs: int | None = None, *, rois_per_job: int | None = None,
        resources: Resources | None = None, retries: int = 0, config: ConfigSource = None,
    ) -> TreatmentRun:  # fmt: skip
        """Start the analysis as jobs and return; ``pyhrf-parallel collect`` writes the results later.

        Parameters
        ----------
        n_jobs, rois_per_job, resources, retries, config
            As in `run`.
        """
        self.check()
        if self.fmri_data.is_temporary:
            raise TreatmentError(
                "data in memory cannot be collected later: write them to files, or use run('remote_cluster')"
            )
        from pyhrf_parallel.treatments.running import submit

        return submit(
            self, n_jobs=n_jobs, rois_per_job=rois_per_job, resources=resources, retries=retries,
            config=config,
        )  # fmt: skip

    def output(self, results: Sequence[Result]) -> list[Path]:
        """Write results, and images and tables if `make_outputs`; return the files.

        Files appear under their final name only when complete. Those of an earlier run are replaced.

        Parameters
        ----------
        results : sequence of tuple
            Of all regions, the biggest first.
        """
        return self.files.write(results, self.identity(), self.timeline)[1]

    def check(self) -> None:
        """Check everything that can be checked before hours of work; write nothing.

        Raises
        ------
        TreatmentError
            If the data cannot be analysed (TreatmentDataError), or results cannot be written or would replace other files.
        """
        self.files.check_access()  # the fastest first
        self.check_analysis()
        self.check_outputs()

    def check_analysis(self) -> None:
        """Check data and analyser, wherever the results go; see `check`."""
        self.fmri_data.check()
        analyser: Any = self.analyser
        if isinstance(analyser, ChecksData):
            analyser.check(self.fmri_data)
        self._identity = identify(self.fmri_data, analyser)

    def check_outputs(self) -> None:
        """Check that results may be written to `output_dir`; see `check`."""
        self.files.check_access()
        self.files.check()

    def identity(self) -> Identity:
        """Return the identity of this analysis: all that its results depend on."""
        return self._identity or identify(self.fmri_data, self.analyser)

    @property
    def files(self) -> ResultFiles:
        """The files of the results."""
        return ResultFiles(
            Path(self.output_dir), self.result_path, self.fmri_data, self.analyser,
            has_outputs=self.make_outputs,
        )  # fmt: skip
