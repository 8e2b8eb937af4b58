"""`submit_treatments`: treatments become jobs, on a cluster or on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, overload

from pyhrf_parallel.account import user_name
from pyhrf_parallel.configuration import ConfigSource, Configuration, load_configuration
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.runs.manifests import new_run_id, prepare_memory, remember
from pyhrf_parallel.runs.planning import make_plan, make_plan_here
from pyhrf_parallel.runs.soma_config import with_resource
from pyhrf_parallel.runs.starting import describe_run, remove_quietly
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import JobOptions, Options, Resources, Ship, Work, check_options
from pyhrf_parallel.treatment_jobs.checking import (
    Paths,
    ResultTransfer,
    check_there,
    is_sent_by_job,
    make_subjects,
    make_writable,
)
from pyhrf_parallel.treatment_jobs.graph import TreatmentPreview, add_treatments, build_graph
from pyhrf_parallel.treatment_jobs.region_files import CONFIG
from pyhrf_parallel.treatment_jobs.region_task import EstimateByCommand, EstimateRegions
from pyhrf_parallel.treatment_jobs.subject import Command, Subject
from pyhrf_parallel.treatment_jobs.treatment import JobTreatment, Treatment, as_job_treatment
from pyhrf_parallel.treatment_jobs.treatment_run import TREATMENTS, TreatmentRun, dump_treatments
from pyhrf_parallel.worker.run_paths import RunPaths

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory


class TreatmentOptions(JobOptions, total=False):
    """The options of `submit_treatments`."""

    label: str
    exec_cmd: Command
    split_cmd: Command
    remote_paths: Paths | None
    rois_per_job: int | None
    make_outputs: bool
    result_transfer: ResultTransfer
    local_host: str | None
    local_user: str | None


@overload
def submit_treatments(
    treatments: Mapping[str, Treatment],
    local_result_paths: Paths,
    *,
    dry_run: Literal[False] = False,
    **options: Unpack[TreatmentOptions],
) -> TreatmentRun: ...


@overload
def submit_treatments(
    treatments: Mapping[str, Treatment],
    local_result_paths: Paths,
    *,
    dry_run: Literal[True],
    **options: Unpack[TreatmentOptions],
) -> TreatmentPreview: ...


def submit_treatments(
    treatments: Mapping[str, Treatment],
    local_result_paths: Paths,
    *,
    label: str = "treatments",
    exec_cmd: Command = None,
    split_cmd: Command = None,
    remote_paths: Paths | None = None,
    n_jobs: int | None = None,
    rois_per_job: int | None = None,
    resources: Resources | None = None,
    retries: int = 0,
    make_outputs: bool = True,
    result_transfer: ResultTransfer = "auto",
    local_host: str | None = None,
    local_user: str | None = None,
    config: ConfigSource = None,
    ship: Ship = "auto",
    dry_run: bool = False,
) -> TreatmentRun | TreatmentPreview:
    """Start treatments as jobs of the configured cluster, or without one of this machine; return at once.

    The run goes on when this process ends: `TreatmentRun.load` or ``pyhrf-parallel collect`` gets the
    results later.

    Parameters
    ----------
    treatments : dict of str to Treatment
        The analyses by names, of one subject each. They stay as they are.
    local_result_paths : dict of str to path
        For each the directory here for its result. Earlier results of this library are replaced there, and no
        other file: that is an error before anything is sent.
    label : str
        Prefix of all job names.
    exec_cmd : str or list of str, optional
        The command that is run on each region. By default a treatment of ours is analysed by the jobs
        themselves, and any other by the command that it names, or ``pyhrf_jde_estim``.
    split_cmd : str or list of str, optional
        The command that writes the regions; ``pyhrf_split_roidata`` if the treatment names none.
    remote_paths : dict of str to path, optional
        For each the directory for its regions where the jobs run; a private one is made in it.
    n_jobs : int, optional
        How many jobs share the regions; see `remote_map`.
    rois_per_job : int, optional
        Regions of each job. By default each takes the next one until none is left.
    resources : mapping, optional
        What each job asks for; see `remote_map`. If no memory is given, it is by the size of
        the regions if the treatment knows it.
    retries : int
        How often a region is run again whose job died; with twice the memory if it had run out of it.
    make_outputs : bool
        Whether each treatment writes its files for people (its method `output`) when the results have been
        collected. If not, the directories for them are neither checked nor written to.
    result_transfer : {'auto', 'scp', 'sftp'}
        Who brings the results here: a job on the cluster, which has to be able to log in here, or this
        side when it collects.
    local_host, local_user : str, optional
        This machine and account, as the cluster can reach them by SSH; by default their names.
    config : path or mapping, optional
        Instead of ``~/.pyhrf/config.cfg``.
    ship : {'auto', False} or list of modules, names and paths
        Which of your own modules are sent to a cluster, with analysers that need them; see `remote_map`.
    dry_run : bool
        Send nothing and connect nowhere: return what would be sent and started.

    Returns
    -------
    TreatmentRun
        Or, with `dry_run`, a `TreatmentPreview`, which can be printed.

    Raises
    ------
    TreatmentError, TreatmentDataError, NotShippableError
        If a treatment cannot be run elsewhere, before anything is sent.
    ConfigurationError
        For other wrong input.
    ClusterError, TransferError
        If the run cannot be started.
    """
    options = check_options(n_jobs, "return", None, retries, resources, ship=ship)
    _check_choices(result_transfer, rois_per_job)
    configuration = load_configuration(config)
    adapted = {name: as_job_treatment(t, name) for name, t in treatments.items()}
    submission = _Submission(
        treatments=adapted,
        subjects=make_subjects(
            adapted, local_result_paths, label=label, remote_paths=remote_paths, exec_cmd=exec_cmd,
            split_cmd=split_cmd, make_outputs=make_outputs,
        ),
        options=options,
        configuration=with_resource(configuration) if configuration.has_cluster else configuration,
        name=f"{label}-{user_name()}",
        by_command=exec_cmd is not None,
        rois_per_job=rois_per_job,
        result_transfer=result_transfer,
        address=f"{local_user or user_name()}@{local_host or socket.gethostname()}",
    )  # fmt: skip
    return submission.preview() if dry_run else submission.start(dump_treatments(treatments))


def _check_choices(result_transfer: str, rois_per_job: object) -> None:
    if result_transfer not in ("auto", "scp", "sftp"):
        raise ConfigurationError(
            f"result_transfer must be 'auto', 'scp' or 'sftp', got {result_transfer!r}"
        )
    is_integer = isinstance(rois_per_job, int) and not isinstance(rois_per_job, bool)
    if rois_per_job is not None and not (is_integer and rois_per_job >= 1):  # type: ignore[operator]
        raise ConfigurationError(
            f"rois_per_job must be a positive integer, or None, got {rois_per_job!r}"
        )


@dataclass(frozen=True)
class _Submission:
    """Treatments that were checked, and how they are to be run; see `submit_treatments`."""

    treatments: Mapping[str, JobTreatment]
    subjects: Sequence[Subject]
    options: Options
    configuration: Configuration
    name: str
    by_command: bool
    rois_per_job: int | None
    result_transfer: ResultTransfer
    address: str

    def preview(self) -> TreatmentPreview:
        """Return what would be sent and started."""
        to = self.address if self.result_transfer == "scp" else ""
        subjects = [replace(s, send_to=to) for s in self.subjects]
        files = {
            s.name: {name: Path(path).stat().st_size for name, path in s.inputs.items()}
            | {CONFIG: len(s.xml.encode())}
            for s in subjects
        }
        where = str(self.configuration.server) if self.configuration.has_cluster else "this machine"
        graphs = {s.name: build_graph(s) for s in subjects}
        plan = add_treatments(self._plan(), subjects, self.rois_per_job)
        return TreatmentPreview(where, files, graphs, plan)

    def start(self, kept: bytes) -> TreatmentRun:
        """Send everything, and start the engine; `kept` are the treatments, for other processes."""
        require("soma_workflow", "remote_cluster", "cluster")
        prepare_memory()
        run_id, plan = new_run_id(), self._plan()
        with private_directory() as directory, ExitStack() as undo:
            for subject in self.subjects:
                make_writable(Path(subject.result_path), undo)
            run = self._prepare(run_id, plan, undo)
            check_there(self.subjects, run)
            is_sent = is_sent_by_job(self.subjects, run, self.result_transfer, self.address)
            subjects = [
                replace(s, directory=place, send_to=self.address if is_sent else "")
                for s, place in zip(self.subjects, run.data_directories, strict=True)
            ]
            work = self._work(subjects)
            is_here = not self.configuration.has_cluster
            payload = Path(RunPaths(directory).payload)
            run.check_needs(write_payload(payload, work, for_here=is_here))
            for subject in subjects:
                subject.send(run)
            run.begin(add_treatments(plan, subjects, self.rois_per_job), payload)
            manifest = describe_run(
                run_id, work, self.configuration, run.directory,
                treatments=[s.as_json() for s in subjects], here=is_here,
            )  # fmt: skip
            remember(manifest, {TREATMENTS: kept})
            undo.pop_all()
        return TreatmentRun(manifest, run, work)

    def _plan(self) -> Plan:
        """Decide on jobs and resources of all treatments."""
        work = self._work(self.subjects)
        is_remote = self.configuration.has_cluster
        plan = (make_plan if is_remote else make_plan_here)(self.configuration, work)
        return replace(plan, name=self.name)

    def _prepare(
        self, run_id: str, plan: Plan, undo: ExitStack
    ) -> LocalRunDirectory | RemoteRunDirectory:
        """Make the directories of the run and of each treatment."""
        run: LocalRunDirectory | RemoteRunDirectory
        wanted = [s.directory for s in self.subjects]
        if not self.configuration.has_cluster:
            absolute = [w and os.path.abspath(w) for w in wanted]  # noqa: PTH100
            run = LocalRunDirectory.prepare(run_id, plan.scheduler, absolute)
        else:
            require("paramiko", "remote_cluster", "cluster")
            from pyhrf_parallel.runs.cluster import Cluster
            from pyhrf_parallel.runs.remote import RemoteRunDirectory

            cluster = undo.enter_context(Cluster(self.configuration))
            sized = [(place, s.size) for place, s in zip(wanted, self.subjects, strict=True)]
            run = RemoteRunDirectory.prepare(cluster, run_id, plan, 0, sized)
        undo.callback(remove_quietly, run)
        return run

    def _work(self, subjects: Sequence[Subject]) -> Work:
        """Return the tasks: a call for each region."""
        estimators = []
        for s in subjects:
            own = None if self.by_command else self.treatments[s.name].region_estimator()
            estimators.append(own or EstimateByCommand(s.commands.estimate))
        func = EstimateRegions(estimators, [s.directory for s in subjects])
        tasks = [(k, file) for k, s in enumerate(subjects) for file in s.regions.values()]
        return Work(func, tasks, [{}] * len(tasks), self.options)
