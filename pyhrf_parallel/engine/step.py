"""The job of a step: runs its command, and notes that it has ended well.

Started as ``DIRECTORY GROUP STEP NAME`` in the directory of a run. The command is in the plan, where no shell of a
scheduler can change it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.worker.payload import add_code
from pyhrf_parallel.worker.process import guard
from pyhrf_parallel.worker.run_paths import RunPaths

_NOT_FOUND = 127


def find_program(name: str) -> str | None:
    """Find a program, first in the environment of this Python, which may not be on PATH."""
    beside = Path(sys.executable).parent / name
    if os.sep not in name and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(name)


def main() -> None:
    """Run the step that the command line names."""
    directory, number, step_name, name = sys.argv[1:]
    run = Path(directory).absolute()
    log = os.open(RunPaths(run).log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    guard()
    group = Plan.read(run).groups[int(number)]
    step = next(s for s in [*group.before, *group.after] if s.name == step_name)
    outputs = [
        output
        for output in group.outputs
        if step.takes_outputs and Path(group.directory, output).exists()
    ]
    if step.takes_outputs and not outputs:
        sys.exit("none of the tasks has left a result")
    program, *arguments = [*step.command, *outputs]
    found = find_program(program)
    if found is None:
        print(  # noqa: T201  (the log is its stderr)
            f"There is no program {program!r} on {os.uname().nodename}, neither beside "
            f"{sys.executable} nor on PATH",
            file=sys.stderr,
        )
        sys.exit(_NOT_FOUND)
    if Path(RunPaths(run).code).is_dir():
        add_code(RunPaths(run).code)
    began = time.time()
    status = subprocess.run([found, *arguments], cwd=group.directory, check=False).returncode
    if status == 0:
        note = {
            "began": began,
            "ended": time.time(),
            "host": os.uname().nodename,
            "outputs": outputs,
        }
        write_then_rename(Path(RunPaths(run).done(name)), json.dumps(note).encode())
    sys.exit(status if status >= 0 else 128 - status)
