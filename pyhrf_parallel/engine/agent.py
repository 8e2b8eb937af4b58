"""Commands for the cluster's login node, each of which answers with one line of JSON.

Started over SSH as ``python -P -m pyhrf_parallel.engine.agent serve``, it reads commands from stdin; as
``... COMMAND ARGUMENT ...`` it runs one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyhrf_parallel import files
from pyhrf_parallel.engine import send_back, step
from pyhrf_parallel.engine.plan import EngineState, Plan
from pyhrf_parallel.engine.quoting import remote_command
from pyhrf_parallel.engine.slurm import LIST_QUEUES, cancel_commands, is_transient
from pyhrf_parallel.files import remove_directory, write_then_rename
from pyhrf_parallel.places import check_place, make_private
from pyhrf_parallel.processes import find_own, find_start, kill_tree
from pyhrf_parallel.version import __version__
from pyhrf_parallel.worker import process as worker
from pyhrf_parallel.worker.launch import python_command
from pyhrf_parallel.worker.record_files import write_all
from pyhrf_parallel.worker.run_paths import RunPaths

#: Seconds without a question after which the process ends.
IDLE = 30


def prepare(root: str, name: str, scheduler: str, *data_directories: str) -> dict[str, Any]:
    """Make the directory of a run, and directories for its data; return them, and what `describe` returns.

    Parameters
    ----------
    root, name : str
        The directory of all runs, and the id of this one.
    scheduler : str
        The scheduler that is to run the jobs.
    *data_directories : str
        Directories in each of which a private one is made; empty for the run's own directory.
    """
    directory = _make_private(Path(root).expanduser(), name)
    made = []
    try:
        for number, parent in enumerate(data_directories):
            wanted = Path(parent).expanduser() if parent else directory
            made.append(_make_private(wanted, f"{name}-{number}"))
        Path(RunPaths(directory).data_directories).write_text(json.dumps(list(map(str, made))))
    except BaseException:
        for path in (*made, directory):
            remove_directory(path)
        raise
    return describe(scheduler) | {
        "directory": str(directory),
        "data_directories": list(map(str, made)),
        "free": [shutil.disk_usage(path).free for path in (directory, *made)],
    }


def _make_private(parent: Path, name: str) -> Path:
    make_private(parent, "choose another remote_path")
    directory = (parent / name).absolute()
    # It exists if the answer was lost, and the question was repeated.
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def checksum(path: str) -> dict[str, Any]:
    """Return the SHA-256 of a file."""
    return {"sha256": files.checksum(path)}


def describe(scheduler: str) -> dict[str, Any]:
    """Return the versions of this side, and the queues of its scheduler."""
    queues, refusal = find_queues() if scheduler == "slurm" else (None, "")
    return {
        "python": list(sys.version_info[:3]),
        "package": __version__,
        "soma_workflow": _version("soma-workflow"),
        "host": os.uname().nodename,
        "queues": queues,
        "refusal": refusal,
    }


def find_queues() -> tuple[list[str] | None, str]:
    """Return the names of Slurm's partitions; or None, and an error that will not go away by itself."""
    try:
        done = subprocess.run(LIST_QUEUES, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None, "there is no sinfo on the PATH"
    except subprocess.TimeoutExpired:
        return None, ""
    if done.returncode:
        return None, "" if is_transient(done.stderr) else "".join(done.stderr.splitlines()[-1:])
    return sorted(set(done.stdout.split())), ""


def reaches(address: str, path: str) -> dict[str, Any]:
    """Return whether this account can log in to another machine and write to the directory of a file there."""
    script = 'test -e "$1" && test -w "${1%/*}"'
    done = _output(*send_back.login(address), remote_command(["sh", "-c", script, "sh", path]))
    return {"reaches": done is not None}


def versions(*names: str) -> dict[str, Any]:
    """Return the versions of distributions; None of those that are not installed."""
    return {"versions": {name: _version(name) for name in names}}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*argv: str) -> str | None:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def start(directory: str, *options: str) -> dict[str, Any]:
    """Start the engine of a run, which goes on when this connection ends.

    With the option ``again``, tasks that have failed are run again.
    """
    run, paths = Path(directory), RunPaths(directory)
    check_place(run)
    known = is_running(directory)
    if known["running"]:  # the answer was lost, and the question was repeated
        return {"pid": known["pid"]}
    Plan.read(run)  # an error is reported from here, and not from the engine
    _cancel_jobs(run)  # those of an engine that has died
    if options:
        old = {name for name, _ in paths.all_records()}
        write_then_rename(Path(paths.earlier), json.dumps(sorted(old)).encode())
        Path(paths.state).unlink(missing_ok=True)  # or the run would seem to be over
    engine = subprocess.Popen(
        python_command("pyhrf_parallel.engine.engine", run, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = find_start(engine.pid) or "gone"
    try:
        Path(paths.engine_pid).write_text(f"{engine.pid} {started} {os.uname().nodename}")
    except OSError:  # a full disk: nobody could find the engine again
        kill_tree(engine.pid)
        raise
    return {"pid": engine.pid}


def is_running(directory: str) -> dict[str, Any]:
    """Return whether the engine of a run is running."""
    try:
        pid, started, host = Path(RunPaths(directory).engine_pid).read_text().split()
    except (OSError, ValueError):
        return {"running": False, "here": True}
    here = host == os.uname().nodename
    return {"running": here and find_start(int(pid)) == started, "here": here, "pid": int(pid)}


def stop(directory: str) -> dict[str, Any]:
    """Stop the engine of a run, and its jobs if the engine cannot."""
    engine = is_running(directory)
    if engine["running"]:
        os.kill(engine["pid"], signal.SIGTERM)
        _wait_for_end(directory)
    _cancel_jobs(Path(directory))
    if is_running(directory)["running"]:
        kill_tree(engine["pid"])
    if engine["here"]:
        _end_what_it_has_left(Path(directory))
    return {"stopped": engine["running"]}


def _end_what_it_has_left(run: Path) -> None:
    """End the processes that a dead engine has left on this machine, and note that the run is cancelled."""
    state = EngineState("running", 0, os.uname().nodename)  # if it has not written one
    with suppress(OSError, ValueError):
        state = EngineState.read(run)
    if state.phase != "running" or not run.exists():
        return
    # No other run has these names: they contain the pid of an engine.
    workers = set(RunPaths(run).jobs())

    def is_left(words: list[str], directory: str) -> bool:
        is_worker = worker.__name__ in words and not workers.isdisjoint(words)
        # sbatch tries for minutes if the queue is full.
        is_other = step.__name__ in words or words[:1] == ["sbatch"]
        return is_worker or (is_other and directory == str(run))

    for pid in find_own(is_left):
        kill_tree(pid)
    state.cancelled().write(run)


def _wait_for_end(directory: str) -> None:
    for _ in range(100):
        if not is_running(directory)["running"]:
            return
        time.sleep(0.1)


def _cancel_jobs(run: Path) -> None:
    """Cancel the jobs that a dead engine has left in the queue."""
    try:
        state = EngineState.read(run)
        scheduler = Plan.read(run).scheduler
    except (OSError, ValueError):
        return
    ids = [row.scheduler_id for row in state.jobs if row.scheduler_id]
    for argv in cancel_commands(ids) if scheduler == "slurm" else ():
        _output(*argv)


def remove(directory: str) -> dict[str, Any]:
    """Stop a run and remove everything that belongs to it."""
    run, made = Path(directory), Path(RunPaths(directory).data_directories)
    if run.exists() and not made.exists() and any(run.iterdir()):
        raise ValueError(
            f"{directory} is not the directory of a run, or of one that another version of "
            "pyhrf_parallel submitted: remove it with that version, or by hand"
        )
    stop(directory)
    with suppress(OSError, ValueError):
        for path in map(Path, json.loads(made.read_text())):
            if path.name.startswith(run.name):  # by `prepare`
                remove_directory(path)
    remove_directory(run)
    with suppress(OSError):  # the directory of all runs, if this was the last one
        run.parent.rmdir()
    return {"removed": not run.exists()}


_COMMANDS = {
    command.__name__: command
    for command in (prepare, describe, checksum, reaches, versions, start, is_running, stop, remove)
}


def _answer(name: str, *arguments: str) -> dict[str, Any]:
    """Run one command; return its answer, which may be an error."""
    try:
        return _COMMANDS[name](*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _serve() -> None:
    """Answer lines of JSON, each a command and its arguments, until there are no more."""
    questions, answers = os.dup(0), os.dup(1)  # for these alone: no command may read or write there
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    rest = b""
    while select.select([questions], [], [], IDLE)[0]:
        piece = os.read(questions, 1 << 16)
        if not piece:
            break
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            write_all(answers, json.dumps(_answer(*json.loads(line))).encode() + b"\n")


def main() -> None:
    """Run one command, or with ``serve`` those that arrive on stdin."""
    _, name, *arguments = sys.argv
    if name == "serve":
        _serve()
    else:
        print(json.dumps(_answer(name, *arguments)))  # noqa: T201  (this is how it answers)


if __name__ == "__main__":
    main()
