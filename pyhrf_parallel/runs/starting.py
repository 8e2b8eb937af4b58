"""Starting a run on a cluster or on this machine."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyhrf_parallel.account import user_name
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.extras import require
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.runs.here import LocalRunDirectory, require_engine
from pyhrf_parallel.runs.manifests import Manifest, new_run_id, prepare_memory, remember
from pyhrf_parallel.runs.map_run import MapRun
from pyhrf_parallel.runs.planning import make_plan, make_plan_here
from pyhrf_parallel.runs.run_directory import RunDirectory
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker.run_paths import RunPaths

_REMEMBERED = 10_000  # calls whose text is kept for error messages


def start_run(work: Work, configuration: Configuration) -> MapRun:
    """Start a map, and keep its manifest."""
    prepare_memory()
    run_id = new_run_id()
    with private_directory() as directory, ExitStack() as undo:
        payload = Path(RunPaths(directory).payload)
        needs = write_payload(payload, work, for_here=not configuration.has_cluster)
        plan, run = _make_place(run_id, work, configuration, payload, undo)
        undo.callback(remove_quietly, run)
        run.check_needs(needs)
        run.begin(plan, payload)
        is_here = isinstance(run, LocalRunDirectory)
        manifest = describe_run(run_id, work, configuration, run.directory, here=is_here)
        remember(manifest)
        undo.pop_all()
    return MapRun(manifest, run, work)


def _make_place(
    run_id: str, work: Work, configuration: Configuration, payload: Path, undo: ExitStack
) -> tuple[Plan, RunDirectory]:
    if not configuration.has_cluster:
        require_engine()
        plan = make_plan_here(configuration, work)
        return plan, LocalRunDirectory.prepare(run_id, plan.scheduler)
    require("paramiko", "remote_cluster", "cluster")
    from pyhrf_parallel.runs.cluster import Cluster
    from pyhrf_parallel.runs.remote import RemoteRunDirectory

    cluster = undo.enter_context(Cluster(configuration))
    plan = make_plan(cluster.settings, work)
    return plan, RemoteRunDirectory.prepare(cluster, run_id, plan, payload.stat().st_size)


def describe_run(
    run_id: str, work: Work, configuration: Configuration, directory: str, **more: Any
) -> Manifest:
    """Return the manifest of a run; `more` are other fields of it."""
    options = {key: getattr(work.options, key) for key in ("on_error", "timeout", "retries")}
    return Manifest(
        run_id,
        f"{getattr(work.func, '__module__', '')}.{getattr(work.func, '__qualname__', repr(work.func))}",
        len(work),
        time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        directory,
        asdict(configuration),
        options,
        {"python": ".".join(map(str, sys.version_info[:3])), "pyhrf_parallel": __version__},
        f"{user_name()}@{os.uname().nodename}",
        [work.describe(index) for index in range(min(len(work), _REMEMBERED))],
        **more,
    )


def remove_quietly(run: RunDirectory) -> None:
    """Remove a run that could not be started, without raising: the first error is the one to report."""
    with suppress(Exception):
        run.remove()
