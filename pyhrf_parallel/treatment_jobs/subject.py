"""One treatment of a run: what goes to where its jobs run, and where its result goes."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pyhrf_parallel.errors import (
    ConfigurationError,
    NotShippableError,
    TreatmentDataError,
    TreatmentError,
)
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.treatment_jobs.region_files import ARCHIVE, CONFIG, HOME, RESULT, result_name
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment

Command = str | Sequence[str] | None
_HERE = "./"


@dataclass(frozen=True)
class Commands:
    """The commands that a treatment's jobs run, each as a list of words.

    Attributes
    ----------
    split, estimate : list of str
        Writes the regions; analyses one of them.
    output : list of str
        Makes files for people where the jobs run; empty if that is not done there.
    check : list of str
        Fails where the treatment cannot run; empty if it runs anywhere.
    """

    split: list[str] = field(default_factory=lambda: ["pyhrf_split_roidata"])
    estimate: list[str] = field(default_factory=lambda: ["pyhrf_jde_estim"])
    output: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """One treatment of a run, in plain values.

    Attributes
    ----------
    name, label : str
        What the caller calls it, and the name of the group of its jobs.
    regions : dict of int to str
        For the label of each region the name of the file with its data, the biggest first.
    directory : str
        Where the jobs run; empty until it is made.
    commands : Commands
        What they run.
    inputs : dict of str to str
        The files that it reads: for their names there, their paths here.
    xml : str
        The treatment, as it is sent.
    result_path : str
        Where the result goes.
    first_task : int
        The index of its first region among the tasks of the run.
    send_to : str
        ``user@host`` if a job sends the result there; empty if it is fetched.
    replaceable : list of str
        SHA-256 checksums of earlier results, which may be replaced.
    roi_shapes : list of (int, int) or None
        The number of scans and voxels of each region, if they are known.
    makes_outputs : bool
        Whether the treatment writes files for people when the result is here.
    output_directories : list of str
        Where it writes them.
    identity : dict or None
        Which analysis it is, if that is known.
    """

    name: str
    label: str
    regions: dict[int, str]
    directory: str = ""
    commands: Commands = field(default_factory=Commands)
    inputs: dict[str, str] = field(default_factory=dict)
    xml: str = ""
    result_path: str = RESULT
    first_task: int = 0
    send_to: str = ""
    replaceable: list[str] = field(default_factory=list)
    roi_shapes: list[tuple[int, int]] | None = None
    makes_outputs: bool = True
    output_directories: list[str] = field(default_factory=list)
    identity: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, name: str, treatment: JobTreatment, *, exec_cmd: Command = None, split_cmd: Command = None,
        **others: Any,
    ) -> Self:  # fmt: skip
        """Make a treatment ready for another place, and leave it as it is.

        Parameters
        ----------
        name : str
            What the caller calls it.
        treatment : JobTreatment
            The treatment.
        exec_cmd, split_cmd : str or sequence of str, optional
            Commands instead of its own.
        **others
            Other attributes.

        Raises
        ------
        TreatmentError
            If it has no region, or regions or files that cannot be told apart.
        TreatmentDataError
            If a file is missing.
        NotShippableError
            If it cannot be written as XML.
        ConfigurationError
            If a command is empty.
        """
        regions = _regions(name, treatment)
        inputs, renamed = _inputs(name, treatment, set(regions.values()))
        commands = Commands(
            treatment.split_command if split_cmd is None else _words("split_cmd", split_cmd),
            treatment.estimation_command if exec_cmd is None else _words("exec_cmd", exec_cmd),
            treatment.output_command(RESULT, ARCHIVE) or [],
            treatment.check_command if exec_cmd is None and split_cmd is None else [],
        )
        elsewhere = _copy(name, treatment)
        elsewhere.set_init_param("make_outputs", False)
        elsewhere.replace_data_files(renamed)
        if exec_cmd is None:
            elsewhere.drop_analyser()
        identity = treatment.identity()
        described: dict[str, Any] = {
            "label": name,
            "output_directories": treatment.output_directories,
            "identity": None if identity is None else dict(identity),
            "roi_shapes": treatment.roi_shapes(),
        }
        return cls(
            name=name, regions=regions, commands=commands, inputs=inputs, xml=elsewhere.to_xml(),
            **described | others,
        )  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `as_json`."""
        shapes = values["roi_shapes"]
        rebuilt = {
            "regions": {int(label): file for label, file in values["regions"].items()},
            "commands": Commands(**values["commands"]),
            "roi_shapes": shapes and [(scans, voxels) for scans, voxels in shapes],
        }
        return cls(**{**values, **rebuilt})

    def as_json(self) -> dict[str, Any]:
        """Return all of it, as JSON can have it."""
        return asdict(self)

    def send(self, run: RunDirectory, temporary: str | None = None) -> None:
        """Send the files and the XML to its directory.

        Parameters
        ----------
        run : RunDirectory
            How files get there.
        temporary : str, optional
            A directory here for the XML while it is sent.

        Raises
        ------
        TransferError
            If something does not arrive, or would replace a file that is there.
        """
        for name, path in self.inputs.items():
            run.send(Path(path), f"{self.directory}/{name}")
        with private_directory(temporary) as directory:
            config = directory / CONFIG
            config.write_text(self.xml, encoding="utf-8")
            run.copy(config, f"{self.directory}/{CONFIG}")

    @property
    def tasks(self) -> range:
        """The indices of its regions among the tasks of the run."""
        return range(self.first_task, self.first_task + len(self.regions))

    @property
    def results(self) -> list[str]:
        """The names of the files with the results of the regions."""
        return [result_name(name) for name in self.regions.values()]

    @property
    def roi_bytes(self) -> list[int] | None:
        """The size of the data of each region, in double precision."""
        if self.roi_shapes is None:
            return None
        return [8 * scans * voxels for scans, voxels in self.roi_shapes]

    @property
    def size(self) -> int:
        """How much space it needs there, in bytes: for files, and the regions that are made of them."""
        inputs = sum(Path(path).stat().st_size for path in self.inputs.values())
        return inputs + (sum(self.roi_bytes) if self.roi_bytes else 2 * inputs)


def _copy(name: str, treatment: JobTreatment) -> JobTreatment:
    """Return a copy that may be changed: the caller's treatment stays as it is."""
    try:
        return copy.deepcopy(treatment)
    except Exception as error:
        raise NotShippableError(
            f"treatment {name!r} cannot be copied ({type(error).__name__}: {error}); it should hold the names "
            "of what it reads, and nothing that is open"
        ) from error


def _words(option: str, command: str | Sequence[str]) -> list[str]:
    """Return the words of a command, which may be one text."""
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not words:
        raise ConfigurationError(f"{option} is empty")
    return words


def _regions(name: str, treatment: JobTreatment) -> dict[int, str]:
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
    name: str, treatment: JobTreatment, taken: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the paths of the files by their names elsewhere, and how each path is to be changed."""
    taken |= {CONFIG, RESULT, ARCHIVE, HOME} | {result_name(region) for region in taken}
    inputs: dict[str, str] = {}
    renamed = {}
    for path in dict.fromkeys(map(str, treatment.get_data_files())):
        absolute = Path(path).absolute()
        if not absolute.is_file():
            raise TreatmentDataError(f"treatment {name!r}: there is no file {path}")
        own = absolute.name
        if not treatment.keeps_names:  # no program has to know more than ASCII
            own = "".join(c if c.isascii() and c.isprintable() else "_" for c in own)
        other = CONFIG if own in taken else inputs.get(own)
        if other is not None and other != str(absolute):
            if treatment.keeps_names:
                raise TreatmentError(
                    f"treatment {name!r}: {path} and {other} would be the same file where the jobs run; "
                    "rename one of them, or give the treatment a method replace_data_files"
                )
            own = _numbered(own, len(inputs), {*inputs, *taken})
        inputs[own] = str(absolute)
        renamed[path] = _HERE + own
        partner = _partner(absolute)
        if partner is not None:
            inputs.setdefault(str(Path(own).with_suffix(partner.suffix)), str(partner))
    return inputs, renamed


def _numbered(name: str, number: int, taken: set[str]) -> str:
    """Return a name that is not taken."""
    while f"{number}_{name}" in taken:
        number += 1
    return f"{number}_{name}"


def _partner(image: Path) -> Path | None:
    """Return the other file of an image in two files, which is found by the name of the one."""
    suffix = {".img": ".hdr", ".hdr": ".img"}.get(image.suffix)
    other = image.with_suffix(suffix) if suffix else None
    return other if other is not None and other.is_file() else None
