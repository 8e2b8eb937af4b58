"""`submit_treatments` and `run_soma_workflow`: treatments become jobs, here or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pyhrf_parallel.configuration import ConfigSource, load_configuration
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.progress import ProgressOption
from pyhrf_parallel.runs.soma_config import with_server
from pyhrf_parallel.tasks import OnError
from pyhrf_parallel.treatment_jobs.outcome import Collected, raise_failures, write_outputs
from pyhrf_parallel.treatment_jobs.submission import Paths, Request, ResultTransfer, Submission
from pyhrf_parallel.treatment_jobs.treatment import Treatment
from pyhrf_parallel.treatment_jobs.treatment_run import TreatmentRun


def submit_treatments(
    treatments: Mapping[str, Treatment],
    local_result_paths: Paths,
    *,
    label: str = "treatments",
    exec_cmd: str | Sequence[str] | None = None,
    split_cmd: str | Sequence[str] | None = None,
    remote_paths: Paths | None = None,
    n_jobs: int | None = None,
    rois_per_job: int | None = None,
    resources: Mapping[str, Any] | None = None,
    retries: int = 0,
    result_transfer: ResultTransfer = "auto",
    local_host: str | None = None,
    local_user: str | None = None,
    config: ConfigSource = None,
) -> TreatmentRun:
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
        How often a region is tried again with which a whole job died; with twice the memory if it had run
        out of it.
    result_transfer : {'auto', 'scp', 'sftp'}
        Who brings the results here: a job on the cluster, which has to be able to log in here, or this
        side when it collects.
    local_host, local_user : str, optional
        This machine and account, as the cluster can reach them by SSH; by default their names.
    config : path or mapping, optional
        Instead of ``~/.pyhrf/config.cfg``.

    Returns
    -------
    TreatmentRun

    Raises
    ------
    TreatmentError, TreatmentDataError, NotShippableError
        If a treatment cannot be run elsewhere, before anything is sent.
    ConfigurationError
        For other wrong input.
    ClusterError, TransferError
        If the run cannot be started.
    """
    request = Request(
        label, local_result_paths, exec_cmd, split_cmd, remote_paths, rois_per_job, result_transfer,
        local_host, local_user, n_jobs, retries, resources,
    )  # fmt: skip
    return Submission(treatments, request, load_configuration(config)).submit()


def run_soma_workflow(  # noqa: PLR0917  (the original's)
    treatments: Mapping[str, Treatment],
    exec_cmd: str | Sequence[str] | None,
    tmp_local_dirs: Paths | None,
    server_id: str | None,
    remote_host: str | None,
    remote_user: str | None,
    remote_pathes: Paths | None,
    local_result_pathes: Paths,
    label_for_cluster: str,
    wait_ending: bool = False,
    *,
    return_all: bool = False,
    on_error: OnError = "raise",
    make_outputs: bool = False,
    split_cmd: str | Sequence[str] | None = None,
    n_jobs: int | None = None,
    rois_per_job: int | None = None,
    resources: Mapping[str, Any] | None = None,
    retries: int = 0,
    result_transfer: ResultTransfer = "auto",
    local_host: str | None = None,
    local_user: str | None = None,
    progress: ProgressOption = None,
    config: ConfigSource = None,
    dry_run: bool = False,
) -> Any:
    """Dispatch treatments using soma-workflow.

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
    return_all : bool
        Whether to return the results of all treatments, and not of the last one only.
    on_error : {'raise', 'return'}
        What to do about regions that failed. In any case the results of the others are brought here. If an
        error is raised, and some regions have finished, the run is kept for ``pyhrf-parallel retry``.
    make_outputs : bool
        Whether each treatment makes its files for people of the results (its method `output`), here or when
        ``pyhrf-parallel collect`` brings them. If not, its own `output_dir` is neither checked nor written to.
    split_cmd, n_jobs, rois_per_job, resources, retries, result_transfer, local_host, local_user, config
        As in `submit_treatments`.
    progress : bool or callable, optional
        See `remote_map`.
    dry_run : bool
        Send nothing and connect nowhere: return a `TreatmentPreview`, which can be printed.

    Returns
    -------
    list of tuple, or dict of str to list
        Without waiting ``[]``. Else the results of the last treatment's regions, the biggest first; or of
        all treatments by their names. A region that failed and left nothing is ``(None, None, reason)``.

    Raises
    ------
    TreatmentError
        Naming treatments, regions and reasons.
    Exception
        All that `submit_treatments` raises.
    """
    if on_error not in ("raise", "return"):
        raise ConfigurationError(f"on_error must be 'raise' or 'return', got {on_error!r}")
    request = Request(
        label_for_cluster, local_result_pathes, exec_cmd, split_cmd, remote_pathes, rois_per_job,
        result_transfer, local_host, local_user, n_jobs, retries, resources, make_outputs,
    )  # fmt: skip
    configuration = load_configuration(config)
    if server_id is None:
        configuration = replace(configuration, server=None, server_id=None)
    else:
        configuration = with_server(configuration, remote_host, remote_user, server_id)
    submission = Submission(treatments, request, configuration)
    if dry_run:
        return submission.preview()
    try:
        run = submission.submit()
    finally:
        for directory in (tmp_local_dirs or {}).values():
            with suppress(OSError):  # the caller's own files stay
                os.rmdir(directory)  # noqa: PTH106
    with run:
        if not wait_ending:
            return []
        collected = finish(run, progress, keep_failed=on_error == "raise")
    if make_outputs:
        for name, found in collected.items():
            write_outputs(treatments[name], found)
    raise_failures(collected.values(), only_problems=on_error == "return")
    results = {name: found.results for name, found in collected.items()}
    return results if return_all else list(results.values())[-1]


def finish(
    run: TreatmentRun, progress: ProgressOption = None, *, keep_failed: bool = True
) -> dict[str, Collected]:
    """Wait for a run, bring its results here, and remove it; unless something of it is still of use.

    Parameters
    ----------
    run : TreatmentRun
        The run.
    progress : bool or callable, optional
        See `pyhrf_parallel.remote_map`.
    keep_failed : bool
        Whether it is kept for single regions that have failed, so that they can be run again.

    Raises
    ------
    Exception
        If the run cannot be followed, or results cannot be brought here or read; the run is kept then.
    """
    try:
        collected = run.collect(progress=progress)
    except Exception as error:  # the run goes on, or holds what others have computed for hours
        error.add_note(run.how_to_go_on)
        raise
    except BaseException:  # Ctrl-C
        run.clean()
        raise
    failed = [one for one in collected.values() if one.problem or (keep_failed and one.failures)]
    if any(one.has_finished_regions for one in failed):
        failed[-1].how_to_go_on = run.how_to_go_on
    else:  # to begin anew costs no more than to go on
        run.clean()
    return collected
