"""Whether treatments can run where their jobs are to run: asked before anything is sent."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyhrf_parallel.engine.step import find_program
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.runs.here import LocalRunDirectory

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

_SECONDS = 120


def check_there(
    checks: Mapping[str, Sequence[str]], run: LocalRunDirectory | RemoteRunDirectory
) -> None:
    """Run the checks of treatments, equal ones once.

    Parameters
    ----------
    checks : dict of str to sequence of str
        By the names of the treatments: a command that fails, and says why in its last line, where the
        treatment cannot run.
    run : LocalRunDirectory or RemoteRunDirectory
        Where to: on a cluster, its login node.

    Raises
    ------
    TreatmentError
        With that line.
    """
    by_command = {tuple(command): name for name, command in checks.items()}
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
