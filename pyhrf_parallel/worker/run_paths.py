"""The names of the files of a run: for this side, the engine and the workers."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Ends the name of a file of records to which a worker still appends.
PART = ".part"
_LOG, _CURSOR, _RECORDS, _DONE = ".log", ".cursor", ".records", ".done"


class RunPaths:
    """The files of a run.

    Parameters
    ----------
    directory : path
        Of the run. Without it, the names alone: paths from the working directory.

    Attributes
    ----------
    payload : str
        The function, the arguments, and large arrays once.
    code : str
        A directory with modules of the user's own, which came with the payload.
    plan : str
        What the engine is asked to do.
    state : str
        How the engine and its jobs are.
    engine_log, engine_pid : str
        What the engine has printed; its process, its start time and its machine.
    earlier : str
        The files of records of attempts before the last one.
    data_directories : str
        Directories elsewhere that belong to the run.
    setup : str
        Lines of shell that run first in each job.
    reserve : str
        Room for the last word of an engine whose disk is full.
    """

    def __init__(self, directory: str | os.PathLike[str] = "") -> None:
        self.directory: str = os.fspath(directory)
        self.payload: str = self._path("payload")
        self.code: str = self._path("code")
        self.plan: str = self._path("plan.json")
        self.state: str = self._path("state.json")
        self.engine_log: str = self._path("engine" + _LOG)
        self.engine_pid: str = self._path("engine.pid")
        self.earlier: str = self._path("earlier.json")
        self.data_directories: str = self._path("data_directories.json")
        self.setup: str = self._path("setup.sh")
        self.reserve: str = self._path("reserve")

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def log(self, job: str) -> str:
        """Return the file of what a job has printed."""
        return self._path(job + _LOG)

    def slurm_log(self, name: str, job_id: str) -> str:
        """Return the file of what Slurm's daemons say of a job, by its name and number."""
        return self._path(f"{name}.{job_id}.slurm{_LOG}")

    def cursor(self, job: str) -> str:
        """Return the file in which a job notes its running task."""
        return self._path(job + _CURSOR)

    def records(self, job: str) -> str:
        """Return the file of the records that a job has written, when it is complete."""
        return self._path(job + _RECORDS)

    def claims(self, name: str) -> str:
        """Return a file of the tasks that jobs may take."""
        return self._path(f"claims-{name}")

    def done(self, step: str) -> str:
        """Return the file that is there when a step has ended well."""
        return self._path(step + _DONE)

    def jobs(self) -> list[str]:
        """Return the names of the jobs that have begun."""
        return [name.removesuffix(_CURSOR) for name in self._names() if name.endswith(_CURSOR)]

    def logs(self) -> list[str]:
        """Return the logs that there are of jobs."""
        paths = [self._path(name) for name in self._names() if self.job_of_log(name)]
        return [path for path in paths if path != self.engine_log]

    def all_records(self, job: str = "") -> Iterator[tuple[str, str]]:
        """Yield the files of records that there are, of all jobs or of one; each after its final name."""
        for name in self._names():
            final = self.final_records_name(name)
            if final and job in ("", final.removesuffix(_RECORDS)):
                yield final, self._path(name)

    def _names(self) -> list[str]:
        return sorted(os.listdir(self.directory or "."))

    @staticmethod
    def job_of_log(name: str) -> str:
        """Return the job that a log is of; empty if it is another file."""
        return name.removesuffix(_LOG) if name.endswith(_LOG) else ""

    @staticmethod
    def final_records_name(name: str) -> str:
        """Return the name that a file of records has when it is complete; empty if it is another file."""
        final = name.removesuffix(PART)
        return final if final.endswith(_RECORDS) else ""
