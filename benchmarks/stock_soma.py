"""What `remote_cluster` is compared with: soma-workflow as it comes, one job per task.

Writes the seconds from before its import to the end of the last job: less than what the user's process
would take. The jobs are less than ours as well: they neither read arguments nor write a result.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

SLOTS = 2


def write_scheduler_configuration() -> None:
    """Set the number of slots, which would be the number of CPUs; HOME is a temporary one."""
    # The interval is soma-workflow's own; in a file without it, it is None and no job starts.
    text = f"[{socket.gethostname()}]\nCPU_NB = {SLOTS}\nSCHEDULER_INTERVAL = 0.05\n"
    Path.home().joinpath(".soma-workflow-scheduler.cfg").write_text(text, encoding="utf-8")


def run(tasks: int) -> float:
    """Run the jobs; return the seconds that it took."""
    began = time.perf_counter()
    from soma_workflow.client import Helper, Job, Workflow, WorkflowController

    controller = WorkflowController(isolated_light_mode=True)
    jobs = [Job([sys.executable, "-c", "print(1 + 2)"], name=f"task {i}") for i in range(tasks)]
    workflow_id = controller.submit_workflow(Workflow(jobs, []))
    controller.wait_workflow(workflow_id)
    seconds = time.perf_counter() - began
    assert not Helper.list_failed_jobs(workflow_id, controller, include_aborted_jobs=True)
    return seconds


def main() -> None:
    """Run as many jobs as the command line says, with what the engine prints left out."""
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    write_scheduler_configuration()
    seconds = run(int(sys.argv[1]))
    os.write(answer, str(seconds).encode())
    os._exit(0)  # the engine's threads and exit handlers are not measured, so not waited for


if __name__ == "__main__":
    main()
