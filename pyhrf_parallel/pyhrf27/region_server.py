"""Analysing regions of a pyhrf treatment in a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from pyhrf_parallel.engine.step import find_program
from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.region_files import result_path
from pyhrf_parallel.treatment_jobs.region_task import check_status, region_command, require_program

_MARK = "pyhrf_parallel: status "  # as in the script


class EstimateByPyhrf:
    """Analyses regions with a program of pyhrf, in forks of one process that has imported pyhrf.

    Parameters
    ----------
    server : sequence of str
        The command of that process; see ``estimate_regions.py``.
    program : str
        The program.
    """

    def __init__(self, server: Sequence[str], program: str) -> None:
        self._command = list(server)
        self._program = program
        self._server: subprocess.Popen[str] | None = None

    def __call__(self, region_file: str) -> None:
        """Analyse the region in a file; output of the program goes to the log of the job."""
        result_path(region_file).unlink(missing_ok=True)  # of an attempt that was killed
        if (
            self._server is not None and self._server.poll() is not None
        ):  # killed, while it had nothing to do
            self.close()
        server = self._server = self._server or self._start()
        try:
            status = _ask(server, region_command([], region_file))
        except BaseException:
            server.terminate()
            self.close()
            raise
        if status is None:
            self.close()
            check_status(" ".join(self._command), server.returncode)
            raise TreatmentError(f"{' '.join(self._command)} has ended, and has not said why")
        if status != 0:  # it may be half written
            result_path(region_file).unlink(missing_ok=True)
        check_status(self._program, status)

    def close(self) -> None:
        """End the process, if there is one."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(BrokenPipeError), server:
                pass

    def _start(self) -> subprocess.Popen[str]:
        python, *words = self._command
        return subprocess.Popen(
            [require_program(python), *words, find_program(self._program) or self._program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip


def _ask(server: subprocess.Popen[str], arguments: list[str]) -> int | None:
    """Return the exit status of a region's analysis; None if the process has ended."""
    assert server.stdin is not None  # noqa: S101
    assert server.stdout is not None  # noqa: S101
    with suppress(BrokenPipeError):
        print(json.dumps(arguments), file=server.stdin, flush=True)
    for line in server.stdout:
        noise, mark, status = line.partition(_MARK)
        if mark:
            return int(status)
        sys.stderr.write(noise)
    return None
