"""What jobs ask of a treatment: pyhrf's five methods, and what else it may offer."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pyhrf_parallel.compressing import unpacked
from pyhrf_parallel.errors import NotShippableError, TreatmentError
from pyhrf_parallel.treatment_jobs.region_task import Estimator


@runtime_checkable
class Treatment(Protocol):
    """One subject's analysis, as ``pyhrf.parallel`` uses it.

    pyhrf's own ``FMRITreatment`` has this interface. `pyhrf_parallel.treatments.JobTreatment` has it, too, and
    defaults for all else that a treatment may offer.

    Attributes
    ----------
    result_dump_file : str or None
        Where the merged result goes: the name of the file counts, in the directory that the caller gives.
    """

    @property
    def result_dump_file(self) -> str | None:
        """Where the merged result goes."""

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[int]]:
        """Split the data into regions, the biggest first.

        Parameters
        ----------
        dry : bool
            Write nothing.
        output_dir : str, optional
            Where the files go; the current directory by default.

        Returns
        -------
        files : list of str
            Absolute paths ``roidata_0000.pck``, ..., one for each region.
        roi_ids : list of int
            The labels of the regions, in the same order.
        """

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""

    def replace_data_dir(self, d: str) -> None:
        """Look for all data files in another directory, under their own names."""

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the treatment's constructor."""


@dataclass(frozen=True)
class JobSpan:
    """When something ran, in seconds since the epoch, and where."""

    name: str
    began: float
    ended: float
    host: str


class JobTreatment:
    """A treatment with all that jobs may ask of it: derive yours from this class to offer more than pyhrf's do.

    The five methods of `Treatment` have to be written; everything below has a default. A treatment of another
    class may have any of these methods, too, and lacks what it does not have.

    Attributes
    ----------
    result_dump_file : str or None
        See `Treatment`.
    keeps_names : bool
        Whether the data files have to keep their names where the jobs run. Set it to False with a
        `replace_data_files` of your own: then the names of files in different directories may be equal.
    timeline : sequence of JobSpan
        When the jobs ran; set before `output` is called.
    """

    result_dump_file: str | None = None
    keeps_names = True
    timeline: Sequence[JobSpan] = ()

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[int]]:
        """Split the data into regions; see `Treatment`."""
        raise NotImplementedError

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""
        raise NotImplementedError

    def replace_data_dir(self, d: str) -> None:
        """Look for all data files in another directory, under their own names."""
        raise NotImplementedError

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the treatment's constructor."""
        raise NotImplementedError

    def replace_data_files(self, paths: Mapping[str, str]) -> None:  # noqa: ARG002
        """Read other files: for each of `get_data_files`, the path that takes its place.

        By default, all of them are looked for in the working directory.
        """
        self.replace_data_dir("./")

    def to_xml(self) -> str:
        """Return a text from which the commands build the treatment again.

        Raises
        ------
        NotShippableError
            By default.
        """
        raise NotShippableError(
            f"a {type(self).__name__} cannot be written: it has no method to_xml() that returns a text"
        )

    @property
    def split_command(self) -> list[str]:
        """The words of the command that writes the regions."""
        return ["pyhrf_split_roidata"]

    @property
    def estimation_command(self) -> list[str]:
        """The words of the command that analyses a region."""
        return ["pyhrf_jde_estim"]

    @property
    def check_command(self) -> list[str]:
        """The words of a command that fails, with the reason in its last line, where the treatment cannot run.

        It is run before anything is sent, in any directory. By default, there is none.
        """
        return []

    def region_estimator(self) -> Estimator | None:
        """Return a function that analyses the region of a file, or None if a command does that.

        The function leaves its result beside the file, and raises if it fails. It is pickled by value, so that
        it may be of a script, and called by a worker in the directory of the treatment's files.
        """
        return None

    def drop_analyser(self) -> None:
        """Forget the analyser before the treatment is written, if `region_estimator` goes with the tasks."""

    def output_command(self, result: str, archive: str) -> list[str] | None:  # noqa: ARG002
        """Return a command that makes a tar archive of the merged result where the jobs run; None for none."""
        return None

    def roi_shapes(self) -> list[tuple[int, int]] | None:
        """Return the number of scans and voxels of each region, in the order of `dump_roi_datasets`.

        By these, memory is asked for, and errors give sizes. None if they are not known.
        """
        return None

    def check_analysis(self) -> None:
        """Raise what is wrong with the data or the model, before anything is sent."""

    def check_outputs(self) -> None:
        """Raise what is wrong with the directories that `output` writes to, before anything is sent."""

    @property
    def output_directories(self) -> list[str]:
        """The directories that `output` writes to."""
        return []

    def identity(self) -> Mapping[str, Any] | None:
        """Return what the results depend on, as JSON can have it; None if that is not known."""
        return None

    def read_results(self, content: bytes) -> list[Any]:
        """Return the merged results in the content of a file; by default, it is unpickled."""
        results: list[Any] = pickle.loads(unpacked(content))
        return results

    def output(self, results: list[Any]) -> object:
        """Write files for people of the results, ``(region, found, report)`` of each region."""


class _Adapted(JobTreatment):
    """A treatment of another class: whatever it lacks has its default."""

    def __init__(self, treatment: Treatment) -> None:
        self._treatment = treatment
        self.keeps_names = not hasattr(treatment, "replace_data_files")

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            with suppress(AttributeError):
                return getattr(self._treatment, name)
        return super().__getattribute__(name)

    def to_xml(self) -> str:
        """Write one of pyhrf's, in a process that has pyhrf."""
        kind = type(self._treatment)
        xmlio = sys.modules.get("pyhrf.xmlio")
        if kind.__module__.startswith("pyhrf.") and xmlio is not None:
            text: str = xmlio.to_xml(self._treatment, "fMRI_treatment")
            return text
        raise NotShippableError(
            f"a {kind.__name__} cannot be written: it has no method to_xml() that returns a text"
        )


def as_job_treatment(treatment: Any, name: str = "treatment") -> JobTreatment:
    """Return a treatment of any class with all that jobs may ask of it.

    Parameters
    ----------
    treatment : Treatment
        The treatment.
    name : str
        Its name in errors.

    Raises
    ------
    TreatmentError
        If it lacks a method of `Treatment`.
    """
    if isinstance(treatment, JobTreatment):
        return treatment
    if isinstance(treatment, Treatment):
        return _Adapted(treatment)
    missing = [m for m in dir(Treatment) if not m.startswith("_") and not hasattr(treatment, m)]
    raise TreatmentError(
        f"treatment {name!r} is a {type(treatment).__name__} without {', '.join(missing)}: see "
        "pyhrf_parallel.treatments.Treatment"
    )
