"""The process in which soma-workflow's own engine runs jobs on this machine ("light" mode).

Started by `pyhrf_parallel.cluster.embedded` with a private directory as its argument. It reads one line of JSON
after the other from stdin, a list of ``[name, argv]`` each, runs these jobs as one workflow and answers
with a line, a list of ``[name, status, exit value]``. When its stdin ends, the jobs are killed.

A process of its own, because the engine prints to stdout, keeps threads and exit handlers, changes the
environment and looks into HOME: nothing of that may happen to the user's process. And because it sees
when the user's process dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import soma_workflow.engine
from soma_workflow import client, configuration, constants

from pyhrf_parallel.files import remove_directory

_REFRESH = 0.05  # seconds; the engine's own interval is 1
_POLL = 0.02


def _controller(slots: int) -> Any:
    """Start the engine with all its state in the working directory, and none in HOME."""
    soma_workflow.engine.refreshment_interval = _REFRESH
    scheduler = configuration.LocalSchedulerCfg
    # Otherwise a ~/.soma-workflow-scheduler.cfg of the user would decide on the slots, and setting them
    # later would write that file.
    scheduler.search_config_path = staticmethod(lambda: "the number of slots given here")
    scheduler.load_from_file = classmethod(lambda cls, _path: cls(slots, max_proc_nb=slots))
    settings = configuration.Configuration(
        "localhost", "light", "local_basic", "./jobs.db", "./transfers"
    )
    # Otherwise a directory that everybody may write to is left in the temporary directory.
    settings._shared_temporary_dir = "."  # noqa: SLF001
    return client.WorkflowController("localhost", config=settings)


def _run(
    controller: Any, described: list[tuple[str, list[str]]]
) -> list[tuple[str, str, int | None]]:
    jobs = [client.Job(argv, name=name) for name, argv in described]
    workflow_id = controller.submit_workflow(client.Workflow(jobs, []), name="pyhrf_parallel")
    while controller.workflow_status(workflow_id) != constants.WORKFLOW_DONE:
        time.sleep(_POLL)
    # Each job's own row: the workflow's status tells nothing of failed jobs.
    elements = controller.workflow_elements_status(workflow_id)[0]
    names = controller.jobs([element[0] for element in elements])
    return [(names[e[0]][0], e[1], e[3][1] if e[3] else None) for e in elements]


def _answer(controller: Any, line: str, answers: Any) -> None:
    json.dump(_run(controller, json.loads(line)), answers)
    answers.write("\n")
    answers.flush()


def _kill_jobs() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    """Run the engine until it is killed, or stdin ends: the parent has died then."""
    directory, slots = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    # Relative paths from here on: the engine would expand a dollar sign in others.
    os.chdir(directory)
    log = os.open("engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        controller = _controller(slots)
        for line in sys.stdin:
            threading.Thread(target=_answer, args=(controller, line, answers), daemon=True).start()
        _kill_jobs()
        remove_directory(Path(directory))
    except BaseException:
        traceback.print_exc()
    finally:
        os.killpg(0, signal.SIGKILL)
