"""`prepare_treatment_jobs`: the graph of a treatment as soma-workflow's own objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pyhrf_parallel.configuration import ConfigSource, Configuration, load_configuration
from pyhrf_parallel.extras import require
from pyhrf_parallel.runs.here import LocalRunDirectory
from pyhrf_parallel.runs.soma_config import with_server
from pyhrf_parallel.treatment_jobs.graph import (
    RESULT,
    Description,
    JobGraph,
    build_graph,
    region_group,
)
from pyhrf_parallel.treatment_jobs.subject import send_inputs, stage
from pyhrf_parallel.treatment_jobs.treatment import Treatment, analyser_travels

#: What analyses the regions of our own treatments.
OWN_ESTIMATION = "pyhrf_roi_estim"

if TYPE_CHECKING:  # paramiko is needed on clusters only
    from pyhrf_parallel.runs.remote import RemoteRunDirectory


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
    exec_cmd: str | Sequence[str] | None = None,
    config: ConfigSource = None,
) -> tuple[Any, list[Any], list[tuple[Any, Any]], Any]:
    """Prepare soma-workflow jobs to perform one treatment (one subject).

    Uploads the treatment and its files to `remote_path`. The jobs are for a workflow of your own;
    `run_soma_workflow` submits them, and sees to all the rest.

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
    exec_cmd : str or list of str, optional
        The command that is run on each region: by default pyhrf's ``pyhrf_jde_estim``, or what a treatment
        of ours names.
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
    if exec_cmd is None and analyser_travels(treatment):
        exec_cmd = OWN_ESTIMATION  # a command needs the analyser in the XML
    staged = stage("treatment", treatment, exec_cmd)
    path = f"{os.fspath(local_result_path).rstrip('/')}/{RESULT}"
    described = Description(
        label_for_cluster, staged.regions, remote_path, staged.estimate, staged.split,
        list(staged.inputs), send_to=(f"{local_user}@{local_host}", path),
    )  # fmt: skip
    with ExitStack() as stack:
        if remote_host is None:
            place: LocalRunDirectory | RemoteRunDirectory
            place = LocalRunDirectory(os.path.abspath(remote_path))  # noqa: PTH100
        else:
            settings = with_server(load_configuration(config), remote_host, remote_user)
            place = _connect(settings, remote_path, stack)
        send_inputs(staged, place, place.directory, tmp_local_dir)
    return _as_objects(build_graph(described))


def _connect(settings: Configuration, remote_path: str, stack: ExitStack) -> RemoteRunDirectory:
    require("paramiko", "remote_cluster", "cluster")
    from pyhrf_parallel.runs.remote import Cluster, RemoteRunDirectory

    cluster = stack.enter_context(Cluster(settings))
    return RemoteRunDirectory(cluster, cluster.path(remote_path))


def _as_objects(graph: JobGraph) -> tuple[Any, list[Any], list[tuple[Any, Any]], Any]:
    from soma_workflow import client

    jobs = [
        client.Job(job.command, name=job.name, working_directory=graph.place) for job in graph.jobs
    ]
    regions: list[Any] = []
    others: list[Any] = []
    for job, one in zip(jobs[1:], graph.jobs[1:], strict=True):
        (regions if one.group == region_group(graph.label) else others).append(job)
    group = client.Group(regions, name=region_group(graph.label))
    main_group = client.Group([jobs[0], group, *others], name=graph.label)
    return jobs[0], jobs[1:], [(jobs[a], jobs[b]) for a, b in graph.dependencies], main_group
