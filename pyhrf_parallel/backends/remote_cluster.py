"""Mode ``'remote_cluster'``: jobs of soma-workflow; without a configured cluster, on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.files import private_directory
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.relaying import Relay
from pyhrf_parallel.runs.follower import Follower
from pyhrf_parallel.runs.here import LocalRunDirectory, require_engine
from pyhrf_parallel.runs.planning import make_plan_here
from pyhrf_parallel.shipping import write_payload
from pyhrf_parallel.tasks import Work
from pyhrf_parallel.worker.run_paths import RunPaths

_POLLS = (0.01, 0.1)  # seconds between two reads of the records: at first, and at most

RAISES_ORIGINAL = False


def run(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
    """Run a few jobs, each of which takes many tasks."""
    if configuration.has_cluster:
        _run_on_cluster(work, outcomes, configuration)
    else:
        _run_here(work, outcomes, configuration)


def _run_here(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
    require_engine()
    with private_directory() as directory, LocalRunDirectory(directory, attached=True) as run:
        payload = Path(RunPaths(directory).payload)
        write_payload(payload, work)
        run.begin(make_plan_here(configuration, work), payload)
        follower, relay = Follower(run, outcomes), Relay()
        pause, longest = _POLLS
        follower.look()
        while not outcomes.complete:
            time.sleep(pause)
            pause = min(longest, pause * 1.1)
            follower.look()
            _relay_logs(directory, relay)
        _relay_logs(directory, relay, are_complete=True)


def _relay_logs(directory: Path, relay: Relay, *, are_complete: bool = False) -> None:
    for log in RunPaths(directory).logs():
        relay.show(Path(log), is_complete=are_complete)


def _run_on_cluster(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:
    from pyhrf_parallel.runs.starting import start_run

    with start_run(work, configuration) as run:
        try:
            run.follow(outcomes)
        except BaseException as error:  # Ctrl-C, too: submit_map starts runs that go on
            if isinstance(error, ClusterError) and error.transient:
                error.add_note(f"The run goes on: pyhrf-parallel collect {run.run_id} -o FILE")
            else:
                run.clean()
            raise
        run.clean()
