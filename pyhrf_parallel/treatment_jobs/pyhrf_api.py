"""pyhrf's own names: `prepare_treatment_jobs`, `run_soma_workflow` and `save_treatment`, with its parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.configuration import ConfigSource, Configuration, load_configuration
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.runs.soma_config import with_server
from pyhrf_parallel.treatment_jobs.checking import Paths
from pyhrf_parallel.treatment_jobs.graph import JobGraph, build_graph, region_group
from pyhrf_parallel.treatment_jobs.outcome import raise_failures
from pyhrf_parallel.treatment_jobs.region_files import RESULT
from pyhrf_parallel.treatment_jobs.subject import Command, Subject
from pyhrf_parallel.treatment_jobs.submit import submit_treatments
from pyhrf_parallel.treatment_jobs.treatment import Treatment, as_job_treatment

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory


def run_soma_workflow(  # noqa: PLR0917  (the original's)
    treatments: Mapping[str, Treatment],
    exec_cmd: Command,
    tmp_local_dirs: Paths | None,
    server_id: str | None,
    remote_host: str | None,
    remote_user: str | None,
    remote_pathes: Paths | None,
    local_result_pathes: Paths,
    label_for_cluster: str,
    wait_ending: bool = False,
    *,
    n_jobs: int | None = None,
    config: ConfigSource = None,
) -> list[Any]:
    """Dispatch treatments using soma-workflow.

    `submit_treatments` offers more, and returns the run itself.

    Parameters
    ----------
    treatments : dict of str to Treatment
        The analyses by names. They stay as they are.
    exec_cmd : str or list of str
        The command that is run on each region; None for the treatment's own, or ``pyhrf_jde_estim``.
    tmp_local_dirs : dict of str to path
        For each a temporary directory here, which is removed if nothing else is in it.
    server_id : str or None
        A resource of ``~/.soma-workflow.cfg``, or just a name for `remote_host`; None for this machine.
    remote_host, remote_user : str or None
        Where the jobs run, and as whom; by default as the configuration has it.
    remote_pathes : dict of str to path
        For each the directory there for its regions and results; a private one is made in it.
    local_result_pathes : dict of str to path
        For each the directory here for its result: ``result.pck``, or as its ``result_dump_file`` is called.
    label_for_cluster : str
        Prefix of the names of jobs and workflow.
    wait_ending : bool
        Whether to wait for the results. If not, the run goes on by itself, and ``pyhrf-parallel collect``
        brings the results.
    n_jobs : int, optional
        How many jobs share the regions; see `remote_map`.
    config : path or mapping, optional
        Instead of ``~/.pyhrf/config.cfg``.

    Returns
    -------
    list of tuple
        The results of the last treatment's regions, the biggest first; ``[]`` without waiting.

    Raises
    ------
    TreatmentError
        Naming treatments, regions and reasons. The results of the other regions have been brought here, and
        the run is kept for ``pyhrf-parallel retry`` if some regions have finished.
    Exception
        All that `submit_treatments` raises.
    """
    configuration = load_configuration(config)
    if server_id is None:
        configuration = replace(configuration, server=None, server_id=None)
    else:
        configuration = with_server(configuration, remote_host, remote_user, server_id)
    try:
        run = submit_treatments(
            treatments, local_result_pathes, label=label_for_cluster, exec_cmd=exec_cmd,
            remote_paths=remote_pathes, n_jobs=n_jobs, make_outputs=False, config=configuration,
        )  # fmt: skip
    finally:
        for directory in (tmp_local_dirs or {}).values():
            with suppress(OSError):  # the caller's own files stay
                os.rmdir(directory)  # noqa: PTH106
    with run:
        outcomes = run.finish() if wait_ending else {}
    raise_failures(outcomes.values())
    return list(outcomes.values())[-1].results if outcomes else []


def prepare_treatment_jobs(  # noqa: PLR0917  (the original's)
    treatment: Treatment,
    tmp_local_dir: str | os.PathLike[str],
    local_result_path: str | os.PathLike[str],
    local_user: str,
    local_host: str,
    remote_host: str | None,
    remote_user: str | None,
    remote_path: str,
    label_for_cluster: str,
    *,
    config: ConfigSource = None,
) -> tuple[Any, list[Any], list[tuple[Any, Any]], Any]:
    """Prepare soma-workflow jobs to perform one treatment (one subject).

    Uploads the treatment and its files to `remote_path`. The jobs are for a workflow of your own, and as pyhrf's:
    their scp replaces whatever has the name of the result. `run_soma_workflow` and `submit_treatments` submit jobs
    that replace earlier results only.

    Parameters
    ----------
    treatment : Treatment
        The analysis. It stays as it is.
    tmp_local_dir : path
        An existing directory, where the treatment is written before it is sent.
    local_result_path : path
        The directory on `local_host` for the final result.
    local_user, local_host : str
        Whom and where the cluster sends the result to, by scp.
    remote_host, remote_user : str or None
        Where the jobs will run, and as whom; this machine for no host.
    remote_path : str
        An existing directory there, for the data of regions and their results.
    label_for_cluster : str
        The name of the group of the jobs.
    config : path or mapping, optional
        Instead of ``~/.pyhrf/config.cfg``.

    Returns
    -------
    job_split : soma_workflow.client.Job
        Splits the data.
    jobs : list of Job
        All others: regions, merge, scp of the result, clean-up.
    dependencies : list of (Job, Job)
        What runs before what.
    main_group : soma_workflow.client.Group
        Of all jobs.

    Raises
    ------
    TreatmentError, TreatmentDataError, NotShippableError
        If the treatment cannot be run elsewhere, before anything is sent.
    ClusterError, TransferError
        If files do not get there.
    BackendUnavailableError
        If soma-workflow is not installed.
    """
    require("soma_workflow", "remote_cluster", "cluster")
    adapted = as_job_treatment(treatment)
    subject = Subject.of(
        "treatment", adapted, exec_cmd=adapted.estimation_command,  # which reads the analyser in the XML
        label=label_for_cluster, send_to=f"{local_user}@{local_host}",
        result_path=f"{os.fspath(local_result_path).rstrip('/')}/{RESULT}",
    )  # fmt: skip
    with ExitStack() as stack:
        if remote_host is None:
            run: LocalRunDirectory | RemoteRunDirectory = LocalRunDirectory(
                os.path.abspath(remote_path)  # noqa: PTH100
            )
        else:
            settings = with_server(load_configuration(config), remote_host, remote_user)
            run = _connect(settings, remote_path, stack)
        replace(subject, directory=run.directory).send(run, os.fspath(tmp_local_dir))
    commands = replace(subject.commands, output=[])
    return _as_objects(build_graph(replace(subject, directory=remote_path, commands=commands)))


def _connect(settings: Configuration, remote_path: str, stack: ExitStack) -> RemoteRunDirectory:
    require("paramiko", "remote_cluster", "cluster")
    from pyhrf_parallel.runs.cluster import Cluster
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

    cluster = stack.enter_context(Cluster(settings))
    return RemoteRunDirectory(cluster, cluster.path(remote_path))


def _as_objects(graph: JobGraph) -> tuple[Any, list[Any], list[tuple[Any, Any]], Any]:
    """Return a graph as soma-workflow's own objects."""
    from soma_workflow import client

    jobs = [
        client.Job(job.command, name=job.name, working_directory=graph.directory)
        for job in graph.jobs
    ]
    regions: list[Any] = []
    others: list[Any] = []
    for job, one in zip(jobs[1:], graph.jobs[1:], strict=True):
        (regions if one.group == region_group(graph.label) else others).append(job)
    group = client.Group(regions, name=region_group(graph.label))
    main_group = client.Group([jobs[0], group, *others], name=graph.label)
    return jobs[0], jobs[1:], [(jobs[a], jobs[b]) for a, b in graph.dependencies], main_group


def save_treatment(t: Treatment, f: str | os.PathLike[str]) -> None:
    """Write a treatment as XML, which the command of the estimation reads.

    Parameters
    ----------
    t : Treatment
        One that knows how to write itself (`to_xml`), as `ROITreatment` does; or one of pyhrf's, in a
        process that has pyhrf.
    f : path
        The file; replaced if there is one.

    Raises
    ------
    NotShippableError
        If it cannot be written, before a file is touched.
    """
    write_then_rename(Path(f), as_job_treatment(t).to_xml().encode())
