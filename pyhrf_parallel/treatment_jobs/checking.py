"""Checks before anything is sent: of treatments, of where they run, and of where their results go."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyhrf_parallel.engine.step import find_program
from pyhrf_parallel.errors import ConfigurationError, TransferError, TreatmentError
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.treatment_jobs.ledger import result_ledger
from pyhrf_parallel.treatment_jobs.region_files import RESULT
from pyhrf_parallel.treatment_jobs.subject import Command, Subject
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

Paths = Mapping[str, str | os.PathLike[str]]
ResultTransfer = Literal["auto", "scp", "sftp"]
_SECONDS = 120


def make_subjects(
    treatments: Mapping[str, JobTreatment], result_directories: Paths, *, label: str, remote_paths: Paths | None,
    exec_cmd: Command, split_cmd: Command, make_outputs: bool,
) -> list[Subject]:  # fmt: skip
    """Check treatments, and make them ready for another place; nothing is written or sent.

    Parameters
    ----------
    treatments : dict of str to JobTreatment
        By their names.
    result_directories, label, remote_paths, exec_cmd, split_cmd, make_outputs
        See `submit_treatments`.

    Returns
    -------
    list of Subject
        The `directory` of each is the one in which its own is to be made.

    Raises
    ------
    TreatmentError
        If a result could not be written, or would replace a file that is no earlier result.
    Exception
        All that `Subject.of` raises.
    """
    if not treatments:
        raise TreatmentError("there is no treatment to run")
    _check_named(treatments, "result path", result_directories)
    _check_named(treatments, "remote path", remote_paths)
    for treatment in treatments.values():
        treatment.check_analysis()
        if make_outputs:
            treatment.check_outputs()
    subjects: list[Subject] = []
    for name, treatment in treatments.items():
        path = _result_path(result_directories[name], treatment)
        subjects.append(
            Subject.of(
                name, treatment, exec_cmd=exec_cmd, split_cmd=split_cmd, label=f"{label}-{name}",
                directory=os.fspath(remote_paths[name]) if remote_paths else "", result_path=str(path),
                first_task=subjects[-1].tasks.stop if subjects else 0, makes_outputs=make_outputs,
                replaceable=result_ledger(path, treatment.output_directories).replaceable(path),
            )
        )  # fmt: skip
    _check_results(subjects)
    return subjects


def _check_named(treatments: Mapping[str, JobTreatment], what: str, paths: Paths | None) -> None:
    for name in treatments:
        if paths is not None and name not in paths:
            raise TreatmentError(f"treatment {name!r} has no {what}")


def _check_results(subjects: Sequence[Subject]) -> None:
    """Check that results and outputs of one treatment do not replace those of another, or anything else."""
    if len({s.result_path for s in subjects}) < len(subjects):
        raise TreatmentError("two treatments would write the same result: give each a directory")
    for subject in subjects:
        ledger = result_ledger(Path(subject.result_path), subject.output_directories)
        ledger.check([], subject.inputs.values())
    made = [Path(s.result_path).parent for s in subjects if s.commands.output]
    if len(set(made)) < len(made):
        raise TreatmentError(
            "two treatments would write their outputs to the same directory: give each its own"
        )


def _result_path(directory: str | os.PathLike[str], treatment: JobTreatment) -> Path:
    """Return where a result goes; nothing is made there yet."""
    name = Path(treatment.result_dump_file).name if treatment.result_dump_file else RESULT
    wanted = Path(directory).absolute()
    existing = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise TreatmentError(
            f"the result cannot be written to {wanted}: you may not write to {existing}"
            if existing.is_dir()
            else f"the result cannot be written to {wanted}: {existing} is not a directory"
        )
    return wanted / name


def check_there(subjects: Sequence[Subject], run: LocalRunDirectory | RemoteRunDirectory) -> None:
    """Check that treatments can run where their jobs will: run the check of each, equal ones once.

    Parameters
    ----------
    subjects : sequence of Subject
        The treatments.
    run : LocalRunDirectory or RemoteRunDirectory
        Where they run: on a cluster, its login node.

    Raises
    ------
    TreatmentError
        With the last line of the check.
    """
    by_command = {tuple(s.commands.check): s.name for s in subjects if s.commands.check}
    for command, name in by_command.items():
        if isinstance(run, LocalRunDirectory):
            where, (status, said) = "this machine", _run_here(command)
        else:
            where, done = str(run.cluster.address), run.cluster.connection.run(command)
            status, said = done.status, done.err
        if status != 0:
            reason = (said.strip().splitlines() or [f"{command[0]} ended with status {status}"])[-1]
            raise TreatmentError(f"treatment {name!r} cannot run on {where}: {reason}")


def _run_here(command: Sequence[str]) -> tuple[int, str]:
    program, *words = command
    found = find_program(program)
    if found is None:
        return 127, f"there is no program {program!r}: name one that is there"
    try:
        done = subprocess.run(
            [found, *words], capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, str(error)
    return done.returncode, done.stderr


def make_writable(result: Path, undo: ExitStack) -> None:
    """Make the directory of a result, which is removed again if the run cannot be started."""
    try:
        for directory in reversed([result.parent, *result.parent.parents]):
            if not directory.exists():
                directory.mkdir()
                undo.callback(_remove_empty, directory)
        with (result.parent / f".{result.name}.{os.getpid()}.part").open("xb") as file:
            Path(file.name).unlink()
    except OSError as error:
        raise TreatmentError(
            f"the result cannot be written to {result.parent}: {error.strerror or error}"
        ) from error


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def is_sent_by_job(
    subjects: Sequence[Subject], run: LocalRunDirectory | RemoteRunDirectory, asked: ResultTransfer, address: str
) -> bool:  # fmt: skip
    """Decide whether jobs send the results here.

    Parameters
    ----------
    subjects : sequence of Subject
        The treatments.
    run : LocalRunDirectory or RemoteRunDirectory
        Where they run.
    asked : {'auto', 'scp', 'sftp'}
        What the caller wants.
    address : str
        ``user@host`` of this side.

    Raises
    ------
    ConfigurationError
        If jobs cannot send all that there will be.
    TransferError
        If they have to, and the cluster cannot log in here.
    """
    if isinstance(run, LocalRunDirectory) or asked == "sftp":
        return False
    if any(s.commands.output for s in subjects):
        if asked == "scp":
            raise ConfigurationError("result_transfer='scp' sends no outputs that are made there")
        return False
    directories = [Path(s.result_path).parent for s in subjects]
    reached = all(_can_reach(run, address, directory) for directory in directories)
    if asked == "scp" and not reached:
        raise TransferError(
            f"result_transfer='scp', and {run.cluster.address} cannot log in to {address} and write to "
            f"{directories[0]} without a password; on it, this has to work: ssh {address} true",
            host=address, path=subjects[0].result_path,
        )  # fmt: skip
    return reached


def _can_reach(run: RemoteRunDirectory, address: str, directory: Path) -> bool:
    # A file that is only here: another machine may have the same directory.
    mark = directory / f".pyhrf_parallel-{secrets.token_hex(8)}"
    mark.touch()
    try:
        return run.reaches(address, mark)
    finally:
        mark.unlink()
