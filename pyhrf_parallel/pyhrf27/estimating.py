"""What a worker does with a region of a pyhrf treatment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from pyhrf_parallel.errors import TreatmentError
from pyhrf_parallel.treatment_jobs.estimating import check_status, require_program
from pyhrf_parallel.treatment_jobs.graph import region_command
from pyhrf_parallel.treatment_jobs.region_files import result_path


class EstimateByPyhrf:
    """Analyses regions by a program of pyhrf's, in forks of a process that has imported pyhrf.

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
        """Analyse the region of a file; what the program prints goes to the log of the job."""
        result_path(region_file).unlink(missing_ok=True)  # of an attempt that was killed
        server = self._server = self._server or self._start()
        try:
            reply = _ask(server, region_command([], region_file))
        except BaseException:
            server.terminate()
            self.close()
            raise
        if not reply:
            self.close()
            check_status(self._command[0], server.returncode)
            raise TreatmentError(f"{' '.join(self._command)} has ended, and has not said why")
        check_status(self._program, int(reply))

    def close(self) -> None:
        """End the process, if there is one."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(BrokenPipeError), server:
                pass

    def _start(self) -> subprocess.Popen[str]:
        python, *words = self._command
        return subprocess.Popen(
            [require_program(python), *words, require_program(self._program)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def _ask(server: subprocess.Popen[str], arguments: list[str]) -> str:
    """Return what it says of a region; nothing if it has ended."""
    assert server.stdin is not None  # noqa: S101
    assert server.stdout is not None  # noqa: S101
    with suppress(BrokenPipeError):
        print(json.dumps(arguments), file=server.stdin, flush=True)
    return server.stdout.readline()
