"""What `on_cluster` compares with, run on the login node: prints the seconds that it took.

soma-workflow runs with our corrections of its Slurm adapter, without which no job of it ends on this
cluster; with our interval of half a second between two looks at the jobs, or as it comes with its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

from work import add

_SLOTS = 2
_INTERVAL = 0.5  # seconds


def soma(tasks: int, interval: float = _INTERVAL) -> None:
    """Run one job per task."""
    from soma_workflow import client

    from pyhrf_parallel.engine import slurm
    from pyhrf_parallel.engine.plan import Plan
    from pyhrf_parallel.engine.soma import make_controller

    slurm.adapt(slurm.Commands(interval))
    controller = make_controller(
        Plan(tasks, _SLOTS, stop_at_failure=True, scheduler="slurm", refresh=interval)
    )
    jobs = [
        client.Job([sys.executable, "-m", "login_node", "add", str(i)], name=f"task-{i}")
        for i in range(tasks)
    ]
    workflow_id = controller.submit_workflow(client.Workflow(jobs, []))
    controller.wait_workflow(workflow_id)
    assert not client.Helper.list_failed_jobs(workflow_id, controller, include_aborted_jobs=True)


def submitit_array(tasks: int) -> None:
    """Run an array of single tasks."""
    jobs = _executor(tasks).map_array(add, range(tasks))
    assert [job.result() for job in jobs] == [i + 2 for i in range(tasks)]


def submitit_chunked(tasks: int) -> None:
    """Run an array of as many chunks as there are slots."""
    size = tasks // _SLOTS
    chunks = [range(start, start + size) for start in range(0, tasks, size)]
    jobs = _executor(_SLOTS).map_array(add_all, chunks)
    results = [value for job in jobs for value in job.result()]
    assert results == [i + 2 for i in range(tasks)]


def add_all(chunk: range) -> list[int]:
    """Run a chunk of tasks."""
    return [add(i) for i in chunk]


def _executor(parallelism: int) -> Any:
    import submitit

    executor = submitit.AutoExecutor(folder="submitit", cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_array_parallelism=parallelism, cpus_per_task=1)
    return executor


def main() -> None:
    """Run what the command line names, in a directory of its own."""
    what, number = sys.argv[1], int(sys.argv[2])
    if what == "add":
        add(number)
        return
    runs = {
        "soma": soma,
        "soma-as-it-comes": lambda tasks: soma(tasks, 1.0),
        "submitit": submitit_array,
        "submitit-chunked": submitit_chunked,
    }
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        answer = os.dup(1)
        os.dup2(2, 1)  # the engine prints
        began = time.perf_counter()
        runs[what](number)
        os.write(answer, f"\n{time.perf_counter() - began}\n".encode())
    os._exit(0)  # the engine's threads are not waited for


if __name__ == "__main__":
    main()
