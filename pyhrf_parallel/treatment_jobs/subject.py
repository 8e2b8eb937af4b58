"""What of a treatment goes to where its jobs run: its regions, its files, its XML."""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.errors import (
    ConfigurationError,
    NotShippableError,
    TreatmentDataError,
    TreatmentError,
)
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.treatment_jobs.graph import (
    ARCHIVE,
    CONFIG,
    HOME,
    RESULT,
    SPLIT_COMMAND,
)
from pyhrf_parallel.treatment_jobs.region_files import result_name
from pyhrf_parallel.treatment_jobs.region_task import EstimateByCommand, Estimator
from pyhrf_parallel.treatment_jobs.saving import to_text
from pyhrf_parallel.treatment_jobs.treatment import (
    ChecksPlace,
    EstimatesItself,
    KnowsSizes,
    MakesOutputsThere,
    NamesCommands,
    RenamesFiles,
    Treatment,
    analyser_travels,
)

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

#: What analyses a region where nothing else is said, as in pyhrf.
ESTIMATION_COMMAND = "pyhrf_jde_estim"
_HERE = "./"


@dataclass(frozen=True)
class Staged:
    """A treatment, made ready for another place; nothing has been sent.

    Attributes
    ----------
    name : str
        How the caller calls it.
    regions : dict of int to str
        For each region's label the name of the file with its data, the biggest first.
    inputs : dict of str to Path
        The files that it reads: their names there, and where they are here.
    xml : str
        The treatment, as it is to be there.
    split, estimate : list of str
        The commands that write the regions, and analyse one.
    output : list of str
        The command that makes files for people there; none if that is not done there.
    estimator : callable
        What does it.
    roi_shapes : list of (int, int) or None
        How many scans and voxels each region has, where the treatment knows it.
    check : list of str
        The command that fails where it cannot run; none if it runs anywhere.
    """

    name: str
    regions: dict[int, str]
    inputs: dict[str, Path]
    xml: str
    split: list[str]
    estimate: list[str]
    output: list[str]
    estimator: Estimator
    roi_shapes: list[tuple[int, int]] | None
    check: list[str]

    @property
    def roi_bytes(self) -> list[int] | None:
        """The size of the data of each region, in double precision."""
        if self.roi_shapes is None:
            return None
        return [8 * scans * voxels for scans, voxels in self.roi_shapes]

    @property
    def size(self) -> int:
        """How much it needs there, in bytes: files, and the regions that are made of them."""
        inputs = sum(path.stat().st_size for path in self.inputs.values())
        return inputs + (sum(self.roi_bytes) if self.roi_bytes else 2 * inputs)


Command = str | Sequence[str] | None


def stage(name: str, treatment: Treatment, exec_cmd: Command, split_cmd: Command = None) -> Staged:
    """Make a treatment ready for another place, and leave it as it is.

    Raises
    ------
    TreatmentError
        If it has no region, or regions or files that cannot be told apart.
    TreatmentDataError
        If a file is missing.
    NotShippableError
        If it cannot be written as XML.
    """
    _check_interface(name, treatment)
    regions = _regions(name, treatment)
    inputs, renamed = _inputs(name, treatment, set(regions.values()))
    output = None
    if isinstance(treatment, MakesOutputsThere):
        output = treatment.output_command(RESULT, ARCHIVE)
    elsewhere = _copy(name, treatment)
    elsewhere.set_init_param("make_outputs", False)
    if isinstance(elsewhere, RenamesFiles):
        elsewhere.replace_data_files(renamed)
    else:
        elsewhere.replace_data_dir(_HERE)
    split, command = [SPLIT_COMMAND], [ESTIMATION_COMMAND]
    if isinstance(treatment, NamesCommands):
        split, command = treatment.split_command, treatment.estimation_command
    split = split if split_cmd is None else words_of("split_cmd", split_cmd)
    command = command if exec_cmd is None else words_of("exec_cmd", exec_cmd)
    estimator: Estimator = EstimateByCommand(command)
    if isinstance(treatment, EstimatesItself) and exec_cmd is None:
        estimator = treatment.region_estimator()
        if analyser_travels(treatment):  # by value if need be; the split can do without
            elsewhere.set_init_param("analyser", None)
    own_commands = exec_cmd is None and split_cmd is None
    check = treatment.check_command if isinstance(treatment, ChecksPlace) and own_commands else []
    return Staged(
        name, regions, inputs, to_text(elsewhere), split, command, output or [], estimator,
        treatment.roi_shapes() if isinstance(treatment, KnowsSizes) else None,
        check,
    )  # fmt: skip


def _check_interface(name: str, treatment: Any) -> None:
    if not isinstance(treatment, Treatment):
        missing = [m for m in dir(Treatment) if not m.startswith("_") and not hasattr(treatment, m)]
        raise TreatmentError(
            f"treatment {name!r} is a {type(treatment).__name__} without {', '.join(missing)}: see "
            "pyhrf_parallel.treatments.Treatment"
        )


def _copy(name: str, treatment: Treatment) -> Treatment:
    """Return what may be changed: the caller's stays as it is."""
    try:
        return copy.deepcopy(treatment)
    except Exception as error:
        raise NotShippableError(
            f"treatment {name!r} cannot be copied ({type(error).__name__}: {error}); it should hold the names "
            "of what it reads, and nothing that is open"
        ) from error


def words_of(option: str, command: str | Sequence[str]) -> list[str]:
    """Return the words of a command, which may be one text.

    Raises
    ------
    ConfigurationError
        If there are none.
    """
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not words:
        raise ConfigurationError(f"{option} is empty")
    return words


def _regions(name: str, treatment: Treatment) -> dict[int, str]:
    files, ids = treatment.dump_roi_datasets(dry=True)
    regions = {int(i): Path(file).name for i, file in zip(ids, files, strict=True)}
    if not regions:
        raise TreatmentError(f"treatment {name!r} has no region to analyse")
    if len(regions) < len(ids) or len(set(regions.values())) < len(files):
        raise TreatmentError(f"treatment {name!r} gives two regions the same label or file")
    for file in regions.values():
        try:
            result_name(file)
        except ValueError as error:
            raise TreatmentError(f"treatment {name!r}: {error}") from error
    return regions


def _inputs(
    name: str, treatment: Treatment, taken: set[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files by their names elsewhere, and how each path is to be changed."""
    taken |= {CONFIG, RESULT, ARCHIVE, HOME} | {result_name(region) for region in taken}
    inputs: dict[str, Path] = {}
    renamed = {}
    for path in dict.fromkeys(map(str, treatment.get_data_files())):
        absolute = Path(path).absolute()
        if not absolute.is_file():
            raise TreatmentDataError(f"treatment {name!r}: there is no file {path}")
        own = absolute.name
        if isinstance(treatment, RenamesFiles):  # no program has to know more than ASCII
            own = "".join(c if c.isascii() and c.isprintable() else "_" for c in own)
        other = CONFIG if own in taken else inputs.get(own)
        if other is not None and other != absolute:
            if not isinstance(treatment, RenamesFiles):
                raise TreatmentError(
                    f"treatment {name!r}: {path} and {other} would be the same file where the jobs run; "
                    "rename one of them, or give the treatment a method replace_data_files"
                )
            number = len(inputs)
            while (numbered := f"{number}_{own}") in inputs or numbered in taken:
                number += 1
            own = numbered
        inputs[own] = absolute
        renamed[path] = _HERE + own
        partner = _partner(absolute)
        if partner is not None:
            inputs.setdefault(str(Path(own).with_suffix(partner.suffix)), partner)
    return inputs, renamed


def _partner(image: Path) -> Path | None:
    """Return the other file of an image in two files, which is found by the name of the one."""
    suffix = {".img": ".hdr", ".hdr": ".img"}.get(image.suffix)
    other = image.with_suffix(suffix) if suffix else None
    return other if other is not None and other.is_file() else None


def send_inputs(
    staged: Staged,
    run: LocalRunDirectory | RemoteRunDirectory,
    place: str,
    tmp: str | os.PathLike[str] | None = None,
) -> None:
    """Send a treatment's files and its XML.

    Parameters
    ----------
    staged : Staged
        The treatment.
    run : LocalRunDirectory or RemoteRunDirectory
        How files get there.
    place : str
        The directory there.
    tmp : path, optional
        A directory here for the XML while it is sent.

    Raises
    ------
    TransferError
        If something does not arrive, or would replace a file that is there.
    """
    for name, path in staged.inputs.items():
        run.send(path, f"{place}/{name}")
    with private_directory(None if tmp is None else os.fspath(tmp)) as directory:
        config = directory / CONFIG
        config.write_text(staged.xml, encoding="utf-8")
        run.copy(config, f"{place}/{CONFIG}")
