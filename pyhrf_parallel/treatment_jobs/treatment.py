"""What a treatment has to offer, so that its regions can be analysed elsewhere; and what it may offer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Treatment(Protocol):
    """One subject's analysis, as ``pyhrf.parallel`` uses it.

    pyhrf's own ``FMRITreatment`` has this interface, and so has
    `pyhrf_parallel.treatments.ROITreatment`.

    Attributes
    ----------
    result_dump_file : str or None
        Where the merged result is wanted, besides the place that the caller names.
    """

    @property
    def result_dump_file(self) -> str | None:
        """Where the merged result is wanted."""

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


@runtime_checkable
class WritesItself(Protocol):
    """A treatment that knows how to become a text."""

    def to_xml(self) -> str:
        """Return a text of which the commands make the treatment again."""


@runtime_checkable
class RenamesFiles(Protocol):
    """A treatment that can read each of its files by another name, so that names may be equal."""

    def replace_data_files(self, paths: Mapping[str, str]) -> None:
        """Read other files: for each of `get_data_files`, the path that takes its place."""


@runtime_checkable
class EstimatesItself(Protocol):
    """A treatment that knows better than to start a command anew for each region."""

    def region_estimator(self) -> Callable[[str], None]:
        """Return what analyses the region of a file, leaves its result beside it, and raises if it fails.

        It is pickled by value, so that it may be of a script, and called in the process of a worker, in the
        directory of the treatment's files. The treatment that is sent for the split has no analyser then,
        its parameter ``analyser`` is set to None, unless it names commands, which may need it.
        """


@runtime_checkable
class NamesCommands(Protocol):
    """A treatment that knows the commands which its regions are made and analysed by.

    Attributes
    ----------
    split_command, estimation_command : list of str
        Words; see `pyhrf_parallel.run_soma_workflow`.
    """

    @property
    def split_command(self) -> list[str]:
        """What writes the regions."""

    @property
    def estimation_command(self) -> list[str]:
        """What analyses one."""


@runtime_checkable
class ChecksPlace(Protocol):
    """A treatment that needs more where its jobs run than this package.

    Attributes
    ----------
    check_command : list of str
        Words of a command that fails where the treatment cannot run, and says why in its last line. It is run
        before anything is sent, in any directory.
    """

    @property
    def check_command(self) -> list[str]:
        """Check that it can run."""


@runtime_checkable
class MakesOutputsThere(Protocol):
    """A treatment whose files for people are made where the jobs run."""

    def output_command(self, result: str, archive: str) -> list[str] | None:
        """Return what makes a tar archive of the merged result; None if they are not wanted."""


@runtime_checkable
class ReadsResults(Protocol):
    """A treatment whose results are no pickles that anybody may just load."""

    def read_results(self, path: str | os.PathLike[str]) -> list[Any]:
        """Return the merged results of a file."""


@runtime_checkable
class KnowsSizes(Protocol):
    """A treatment that knows how big its regions are: so much memory is asked for, and errors tell it."""

    def roi_shapes(self) -> list[tuple[int, int]]:
        """Return how many scans and voxels each region has, in the order of `dump_roi_datasets`."""


@runtime_checkable
class ChecksItself(Protocol):
    """A treatment that can tell, before anything is sent, that it could not succeed."""

    def check_analysis(self) -> None:
        """Raise what is wrong with the data or the model, wherever the results go."""


@runtime_checkable
class LabelsResults(Protocol):
    """A treatment that knows which analysis its results are of, and where it writes files for people.

    Attributes
    ----------
    output_dir : str
        The directory of these files.
    """

    output_dir: str

    def check_outputs(self) -> None:
        """Raise what is wrong with that directory."""

    def identity(self) -> dict[str, Any]:
        """Return what the results depend on, so that it can be written as JSON."""


@runtime_checkable
class MakesOutputs(Protocol):
    """A treatment that writes files for people of its results."""

    def output(self, results: list[Any]) -> object:
        """Write them."""


def analyser_travels(treatment: Treatment) -> bool:
    """Return whether the analyser goes with the tasks, and no command of the treatment's own reads it."""
    return isinstance(treatment, EstimatesItself) and not isinstance(treatment, NamesCommands)


@dataclass(frozen=True)
class JobSpan:
    """When something ran, in seconds since the epoch, and where."""

    name: str
    began: float
    ended: float
    host: str


@runtime_checkable
class ShowsTimeline(Protocol):
    """A treatment that shows people when its jobs ran.

    Attributes
    ----------
    timeline : list of JobSpan
        Set before `output` is called.
    """

    timeline: list[JobSpan]
