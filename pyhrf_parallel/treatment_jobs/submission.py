"""Treatments on their way to jobs, here or on a cluster: checked, staged, planned, submitted."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cloudpickle

from pyhrf_parallel.account import user_name
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ConfigurationError, TransferError, TreatmentError
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.runs.manifests import new_run_id, prepare_memory, remember
from pyhrf_parallel.runs.planning import make_plan, make_plan_here
from pyhrf_parallel.runs.soma_config import with_resource
from pyhrf_parallel.runs.starting import describe_run, remove_quietly
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work, check_options
from pyhrf_parallel.treatment_jobs.checking import check_there
from pyhrf_parallel.treatment_jobs.graph import CONFIG, RESULT, Description
from pyhrf_parallel.treatment_jobs.ledger import result_ledger
from pyhrf_parallel.treatment_jobs.outcome import Subject
from pyhrf_parallel.treatment_jobs.region_task import EstimateRegions
from pyhrf_parallel.treatment_jobs.subject import send_inputs, stage
from pyhrf_parallel.treatment_jobs.task_groups import ask_for_memory, make_task_group
from pyhrf_parallel.treatment_jobs.treatment import ChecksItself, LabelsResults, Treatment
from pyhrf_parallel.treatment_jobs.treatment_preview import TreatmentPreview, preview
from pyhrf_parallel.treatment_jobs.treatment_run import TREATMENTS, TreatmentRun
from pyhrf_parallel.worker.run_paths import RunPaths

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

Paths = Mapping[str, str | os.PathLike[str]]
ResultTransfer = Literal["auto", "scp", "sftp"]


@dataclass(frozen=True)
class Request:
    """What is asked for, of all treatments; see `submit_treatments` for the meaning of each."""

    label: str
    result_paths: Paths
    exec_cmd: str | Sequence[str] | None = None
    split_cmd: str | Sequence[str] | None = None
    remote_paths: Paths | None = None
    rois_per_job: int | None = None
    result_transfer: ResultTransfer = "auto"
    local_host: str | None = None
    local_user: str | None = None
    n_jobs: int | None = None
    retries: int = 0
    resources: Mapping[str, Any] | None = None
    make_outputs: bool = True

    @property
    def address(self) -> str:
        """Where the cluster reaches this machine, by SSH."""
        return f"{self.local_user or user_name()}@{self.local_host or socket.gethostname()}"


class Submission:
    """Treatments on their way to jobs: checked, and made ready; nothing has been sent."""

    def __init__(
        self, treatments: Mapping[str, Treatment], request: Request, configuration: Configuration
    ) -> None:
        _check(treatments, request)
        for treatment in treatments.values():
            if isinstance(treatment, ChecksItself):
                treatment.check_analysis()
            if request.make_outputs and isinstance(treatment, LabelsResults):
                treatment.check_outputs()
        self._treatments = dict(treatments)
        self._request = request
        commands = request.exec_cmd, request.split_cmd
        self._staged = [stage(name, t, *commands) for name, t in treatments.items()]
        self._is_here = not configuration.has_cluster
        self._configuration = configuration if self._is_here else with_resource(configuration)
        self._results = [
            _result_path(request.result_paths[name], t) for name, t in treatments.items()
        ]
        if len(set(self._results)) < len(self._results):
            raise TreatmentError(
                "two treatments would write the same result: give each a directory"
            )
        for s, path in zip(self._staged, self._results, strict=True):
            result_ledger(path, self._outputs(s.name)).check([], s.inputs.values())
        made = [
            path.parent for s, path in zip(self._staged, self._results, strict=True) if s.output
        ]
        if len(set(made)) < len(made):
            raise TreatmentError(
                "two treatments would write their outputs to the same directory: give each its own"
            )
        self._base = self._base_plan()

    def _outputs(self, name: str) -> list[str]:
        """Return the directories that a treatment writes files for people to."""
        treatment = self._treatments[name]
        return [treatment.output_dir] if isinstance(treatment, LabelsResults) else []

    def preview(self) -> TreatmentPreview:
        """Return what would happen."""
        places = [f"{path or '(the run)'}" for path in self._remote_paths()]
        described = self._describe(places, self._request.result_transfer == "scp")
        files = {
            s.name: {name: path.stat().st_size for name, path in s.inputs.items()}
            | {CONFIG: len(s.xml.encode())}
            for s in self._staged
        }
        where = "this machine" if self._is_here else str(self._configuration.server)
        by_name = {s.name: what for s, what in zip(self._staged, described, strict=True)}
        return preview(where, files, by_name, self._plan(described))

    def submit(self) -> TreatmentRun:
        """Send everything, and start the engine."""
        require("soma_workflow", "remote_cluster", "cluster")
        prepare_memory()
        run_id = new_run_id()
        kept = _dumps(self._treatments)
        with private_directory() as directory, ExitStack() as undo:
            for path in self._results:
                _make_writable(path, undo)
            run = self._make_place(run_id, undo)
            check_there({s.name: s.check for s in self._staged if s.check}, run)
            for staged, place in zip(self._staged, run.data_directories, strict=True):
                send_inputs(staged, run, place)
            is_sent = self._is_sent(run)
            described = self._describe(run.data_directories, is_sent)
            work = self._work(run.data_directories)
            payload = Path(RunPaths(directory).payload)
            write_payload(payload, work, for_here=self._is_here)
            run.begin(self._plan(described), payload)
            manifest = describe_run(
                run_id, work, self._configuration, run.directory,
                treatments=list(map(asdict, self._subjects(described, is_sent))), here=self._is_here,
            )  # fmt: skip
            remember(manifest, {TREATMENTS: kept})
            undo.pop_all()
        return TreatmentRun(manifest, run, work)

    def _remote_paths(self) -> list[str]:
        paths = self._request.remote_paths or {}
        return [os.fspath(paths[s.name]) if s.name in paths else "" for s in self._staged]

    def _make_place(self, run_id: str, undo: ExitStack) -> LocalRunDirectory | RemoteRunDirectory:
        places = self._remote_paths()
        run: LocalRunDirectory | RemoteRunDirectory
        if self._is_here:
            run = LocalRunDirectory.prepare(
                run_id,
                "local_basic",
                [p and os.path.abspath(p) for p in places],  # noqa: PTH100
            )
        else:
            require("paramiko", "remote_cluster", "cluster")
            from pyhrf_parallel.runs.remote import Cluster

            cluster = undo.enter_context(Cluster(self._configuration))
            sized = [(place, s.size) for place, s in zip(places, self._staged, strict=True)]
            run = cluster.prepare(run_id, self._base, 0, sized)
        undo.callback(remove_quietly, run)
        return run

    def _work(self, places: Sequence[str]) -> Work:
        tasks = [(k, file) for k, s in enumerate(self._staged) for file in s.regions.values()]
        request = self._request
        options = check_options(request.n_jobs, "return", None, request.retries, request.resources)
        func = EstimateRegions([s.estimator for s in self._staged], places)
        return Work(func, tasks, [{}] * len(tasks), options)

    def _base_plan(self) -> Plan:
        work = self._work(())
        if self._is_here:
            plan = make_plan_here(self._configuration, work)
        else:
            plan = make_plan(self._configuration, work)
        return replace(plan, name=f"{self._request.label}-{user_name()}")

    def _plan(self, described: Sequence[Description]) -> Plan:
        plan = self._base
        share = max(1, plan.jobs // len(described))
        groups, start = [], 0
        for what in described:
            groups.append(make_task_group(what, start, share, self._request.rois_per_job))
            start += len(what.regions)
        return ask_for_memory(plan, groups, [s.roi_bytes for s in self._staged])

    def _describe(self, places: Sequence[str], is_sent: bool) -> list[Description]:
        return [
            Description(
                f"{self._request.label}-{s.name}", s.regions, place, s.estimate, s.split,
                list(s.inputs), (self._request.address, str(result)) if is_sent else None, s.output,
                result_ledger(result, self._outputs(s.name)).replaceable(result),
            )
            for s, place, result in zip(self._staged, places, self._results, strict=True)
        ]  # fmt: skip

    def _subjects(self, described: Sequence[Description], is_sent: bool) -> list[Subject]:
        subjects: list[Subject] = []
        start = 0
        for s, what, result in zip(self._staged, described, self._results, strict=True):
            sizes = None if s.roi_shapes is None else [voxels for _, voxels in s.roi_shapes]
            treatment = self._treatments[s.name]
            identity = treatment.identity() if isinstance(treatment, LabelsResults) else None
            subjects.append(
                Subject(
                    s.name, what.label, start, list(s.regions), list(s.regions.values()), what.place,
                    str(result), is_sent, sizes, self._request.make_outputs, self._outputs(s.name), identity,
                )
            )  # fmt: skip
            start += len(s.regions)
        return subjects

    def _is_sent(self, run: LocalRunDirectory | RemoteRunDirectory) -> bool:
        """Decide whether the cluster brings the results here."""
        asked = self._request.result_transfer
        if isinstance(run, LocalRunDirectory) or asked == "sftp":
            return False
        if any(s.output for s in self._staged):
            if asked == "scp":
                raise ConfigurationError(
                    "result_transfer='scp' brings no outputs that are made there"
                )
            return False
        reached = all(_can_reach(run, self._request.address, path.parent) for path in self._results)
        if asked == "scp" and not reached:
            raise TransferError(
                f"result_transfer='scp', and {run.cluster.address} cannot log in to "
                f"{self._request.address} and write to {self._results[0].parent} without a password; on it, "
                f"this has to work: ssh {self._request.address} true",
                host=self._request.address, path=str(self._results[0]),
            )  # fmt: skip
        return reached


def _dumps(treatments: Mapping[str, Treatment]) -> bytes:
    """Keep the treatments for another process; one that cannot be kept makes no outputs there."""
    try:
        content: bytes = cloudpickle.dumps(dict(treatments))
    except Exception:  # whatever a treatment holds
        content = cloudpickle.dumps({})
    return content


def _can_reach(run: RemoteRunDirectory, address: str, directory: Path) -> bool:
    # A file that is only here: another machine may have the same directory.
    mark = directory / f".pyhrf_parallel-{secrets.token_hex(8)}"
    mark.touch()
    try:
        return run.reaches(address, mark)
    finally:
        mark.unlink()


def _check(treatments: Mapping[str, Any], request: Request) -> None:
    if not treatments:
        raise TreatmentError("there is no treatment to run")
    for what, paths in (
        ("result path", request.result_paths),
        ("remote path", request.remote_paths),
    ):
        for name in treatments:
            if paths is not None and name not in paths:
                raise TreatmentError(f"treatment {name!r} has no {what}")
    if request.result_transfer not in ("auto", "scp", "sftp"):
        raise ConfigurationError(
            f"result_transfer must be 'auto', 'scp' or 'sftp', got {request.result_transfer!r}"
        )
    rois = request.rois_per_job
    if rois is not None and (isinstance(rois, bool) or not isinstance(rois, int) or rois < 1):
        raise ConfigurationError(f"rois_per_job must be a positive integer, or None, got {rois!r}")


def _result_path(directory: str | os.PathLike[str], treatment: Treatment) -> Path:
    """Return where a result goes; nothing is made there yet."""
    name = Path(treatment.result_dump_file).name if treatment.result_dump_file else RESULT
    place = Path(directory).absolute()
    existing = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise TreatmentError(f"the result cannot be written to {place}: {existing} does not let")
    return place / name


def _make_writable(result: Path, undo: ExitStack) -> None:
    """Make the directory of a result, which is not to stay if the run cannot be started."""
    place = result.parent
    try:
        for directory in reversed([place, *place.parents]):
            if not directory.exists():
                directory.mkdir()
                undo.callback(_remove_empty, directory)
        with (place / f".{result.name}.{os.getpid()}.part").open("xb") as file:
            Path(file.name).unlink()
    except OSError as error:
        raise TreatmentError(
            f"the result cannot be written to {place}: {error.strerror or error}"
        ) from error


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()
