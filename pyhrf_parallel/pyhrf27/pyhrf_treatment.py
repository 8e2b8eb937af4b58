"""`PyhrfTreatment`: an XML configuration of pyhrf, as a treatment."""

from __future__ import annotations

import copy
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.pyhrf27 import allowed, xml_tree
from pyhrf_parallel.pyhrf27.find_regions import count_scans, find_regions
from pyhrf_parallel.pyhrf27.region_server import EstimateByPyhrf
from pyhrf_parallel.treatment_jobs.read_results import parse_results
from pyhrf_parallel.treatment_jobs.region_files import CONFIG, RESULT, data_name
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment

#: What is sent with the data: pyhrf has no command that splits.
SPLIT_SCRIPT, ESTIMATION_SCRIPT, OUTPUT_SCRIPT, _ = SCRIPTS = [
    Path(__file__).with_name("scripts") / name
    for name in ("split_roidata.py", "estimate_regions.py", "make_outputs.py", "own_home.py")
]
#: What is run before anything is sent.
CHECK_SCRIPT = Path(__file__).with_name("scripts") / "check_python.py"
_DATA, _MASKS = "fmri_data", ("mask_file", "roi_mask_file")
_BOLD = ("bold_file", "bold_files")
_OUTPUTS = "make_outputs"
#: Where pyhrf is to write, elsewhere.
_WRITTEN = {"output_dir": "./", "result_dump_file": RESULT}
_PATH_HINTS = ("file", "dir")


class PyhrfTreatment(JobTreatment):
    """An XML configuration of pyhrf 0.5, analysed by pyhrf on Python 2.7 where the jobs run.

    pyhrf need not be installed here: data files and regions are read from the XML and the images.

    Parameters
    ----------
    root : xml.etree.ElementTree.Element
        The configuration.
    base : path
        The directory of its relative paths.
    python : path
        The Python 2.7 that has pyhrf, where the jobs run.

    Raises
    ------
    TreatmentDataError
        If it is not the configuration of a treatment of files.
    """

    keeps_names = False

    def __init__(
        self,
        root: ET.Element,
        base: str | os.PathLike[str],
        python: str | os.PathLike[str] = "python2.7",
    ) -> None:
        self._root = root
        self._base = os.path.abspath(base)  # noqa: PTH100
        self.python: str = os.fspath(python)
        if not self.python:
            raise TreatmentDataError("python is empty: name the Python 2.7 that has pyhrf")
        simulated = [name for name in xml_tree.made_by(root) if "simu" in name.lower()]
        if simulated:
            raise TreatmentDataError(
                f"its data are a simulation ({simulated[0]}): their regions are in a pickle, which is not read; "
                "run it with pyhrf, and analyse the images that it writes"
            )
        allowed.check(root)
        data = root.find(_DATA)
        if xml_tree.kind(root) != "Initable" or data is None:
            raise TreatmentDataError(f"<{root.tag}> is no treatment of pyhrf: it has no <{_DATA}>")
        self._data = data

    @classmethod
    def from_xml(
        cls, path: str | os.PathLike[str], python: str | os.PathLike[str] = "python2.7"
    ) -> Self:
        """Read a configuration that ``pyhrf_jde_buildcfg`` or ``pyhrf.xmlio`` has written.

        Parameters
        ----------
        path : path
            The file; relative paths in it are relative to its directory.
        python : path
            The Python 2.7 that has pyhrf, where the jobs run.

        Raises
        ------
        TreatmentDataError
            If it is anything else, or cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TreatmentDataError(f"{path} cannot be read: {error}") from error
        try:
            return cls(xml_tree.parse(text), Path(path).absolute().parent, python)
        except TreatmentDataError as error:
            raise TreatmentDataError(f"{path}: {error}") from error

    @property
    def result_dump_file(self) -> str | None:  # type: ignore[override]
        """The path of the result in the configuration."""
        found: str | None = self._parameter("result_dump_file")
        return found

    @property
    def tr(self) -> float | None:
        """Repetition time, in seconds."""
        element = self._data.find("tr")
        return None if element is None else xml_tree.value(element)

    def _parameter(self, name: str) -> Any:
        element = self._root.find(name)
        return None if element is None else xml_tree.value(element)

    def _path(self, text: str) -> str:
        return os.path.normpath(os.path.join(self._base, text))  # noqa: PTH118

    def _files(self) -> list[tuple[str, ET.Element]]:
        """Return the names of the parameters that are paths of data, with their elements."""
        found = []
        for name, element in xml_tree.texts(self._data):
            path = self._path(element.text or "")
            if element.text and os.path.isfile(path):  # noqa: PTH113
                found.append((name, element))
            elif element.text and any(hint in name for hint in _PATH_HINTS):
                hint = "; pyhrf would go on with a mask of its own" if name in _MASKS else ""
                raise TreatmentDataError(f"there is no file {path} ({name}){hint}")
        return found

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads, and the scripts that pyhrf lacks."""
        paths = dict.fromkeys(self._path(element.text or "") for _, element in self._files())
        return [*paths, *map(str, SCRIPTS)]

    def _bold(self) -> list[str]:
        """Return the paths of the BOLD images."""
        return [self._path(e.text or "") for name, e in self._files() if name in _BOLD]

    @cached_property
    def roi_sizes(self) -> dict[int, int]:
        """The labels of the regions with their sizes, the biggest first, as pyhrf splits."""
        masks = [self._path(e.text or "") for name, e in self._files() if name in _MASKS]
        if len(masks) != 1:
            raise TreatmentDataError(f"its data have {len(masks)} masks, and one is needed")
        element = self._data.find("background_label")
        background = (None if element is None else xml_tree.value(element)) or 0
        return find_regions(masks[0], self._bold(), background)

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | os.PathLike[str] | None = None
    ) -> tuple[list[str], list[int]]:
        """Return the files and labels of the regions; only pyhrf can write these files, where the jobs run.

        Raises
        ------
        TreatmentDataError
            If they are to be written.
        """
        if not dry:
            raise TreatmentDataError(
                "the regions are written by pyhrf, in a job: see split_command"
            )
        place = Path(output_dir or ".").absolute()
        ids = list(self.roi_sizes)
        return [str(place / data_name(roi_id)) for roi_id in ids], ids

    def replace_data_dir(self, d: str | os.PathLike[str]) -> None:
        """Look for all data files in another directory, under their own names."""
        self.replace_data_files(
            {path: os.path.join(d, os.path.basename(path)) for path in self.get_data_files()}  # noqa: PTH118, PTH119
        )

    def replace_data_files(self, paths: Mapping[str, str]) -> None:
        """Read other files: for each of `get_data_files`, the path that takes its place."""
        renamed = [(e, paths[self._path(e.text or "")]) for _, e in self._files()]
        self._root = copy.deepcopy(self._root)
        old = self._data
        data = self._root.find(_DATA)
        assert data is not None  # noqa: S101
        same = dict(zip(old.iter(), data.iter(), strict=True))
        for element, path in renamed:
            same[element].text = path
        self._data = data
        for name, here in _WRITTEN.items():  # nobody reads them there
            written = self._root.find(name)
            if written is not None and xml_tree.kind(written) != "None":
                written.text = here
        self.__dict__.pop("roi_sizes", None)

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a plain parameter of the treatment: a text, a number, True or False.

        Raises
        ------
        ValueError
            If there is none of that name, or it is of another type.
        """
        element = self._root.find(name)
        if element is None and name == _OUTPUTS:  # it has a default
            element = ET.SubElement(self._root, name, pickled_type=xml_tree.BOOL)
            element.text = "True"
        if element is None:
            raise ValueError(f"no parameter {name!r}")
        if xml_tree.kind(element) != type(value).__name__:
            raise ValueError(f"{name} is a {xml_tree.kind(element)}, and {value!r} is not")
        element.text = str(value)

    def to_xml(self) -> str:
        """Return the configuration, for pyhrf.

        Raises
        ------
        TreatmentDataError
            If it holds what pyhrf cannot read.
        """
        allowed.check_ascii(self._root)
        return ET.tostring(self._root, encoding="unicode")

    def output_command(self, result: str, archive: str) -> list[str] | None:
        """Return the command by which pyhrf makes its images and tables where the jobs run."""
        if self._parameter(_OUTPUTS) is False:
            return None
        return [self.python, OUTPUT_SCRIPT.name, CONFIG, result, archive]

    def read_results(self, content: bytes) -> list[tuple[Any, Any, str]]:
        """Read a merged result, without pyhrf."""
        return parse_results(content)

    def roi_shapes(self) -> list[tuple[int, int]]:
        """Return the number of scans and voxels of each region, the biggest first."""
        scans = sum(map(count_scans, self._bold()))
        return [(scans, size) for size in self.roi_sizes.values()]

    @property
    def check_command(self) -> list[str]:
        """The words of a command that fails where there is no pyhrf."""
        return [
            self.python,
            "-c",
            CHECK_SCRIPT.read_text(encoding="ascii"),
            *self.estimation_command,
        ]

    @property
    def split_command(self) -> list[str]:
        """The words of the command that writes the regions: a script that is sent."""
        return [self.python, SPLIT_SCRIPT.name]

    @property
    def estimation_command(self) -> list[str]:
        """The words of pyhrf's own command, in the same environment."""
        directory = os.path.dirname(self.python)  # noqa: PTH120
        return [os.path.join(directory, "pyhrf_jde_estim")]  # noqa: PTH118

    def region_estimator(self) -> EstimateByPyhrf:
        """Return a function that runs this command on regions, and imports pyhrf once."""
        return EstimateByPyhrf([self.python, ESTIMATION_SCRIPT.name], *self.estimation_command)
