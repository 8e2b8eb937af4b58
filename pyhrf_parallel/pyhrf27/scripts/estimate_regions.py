# Runs on Python 2.7, with pyhrf.
"""Run a program of pyhrf's on one region after the other: PROGRAM, and a line of JSON with its arguments each.

pyhrf is imported once, and each region is analysed in a fork of this process by the unchanged program: the
import takes longer than the analysis of some hundred voxels. After each region, its exit status is written
to stdout, negative for a signal; what the program writes goes to stderr.
"""

from __future__ import print_function

import json
import os
import random
import runpy
import signal
import sys

import numpy
import pyhrf.ui.jde  # what the program needs
import pyhrf.ui.treatment


def is_python(program):
    """Tell whether a program is a script of Python's, and not one that starts another program."""
    try:
        with open(program) as script:
            compile(script.read(), program, "exec")
    except (SyntaxError, TypeError):
        return False
    return True


def run(program, arguments):
    """Become the program."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not is_python(program):
        os.execv(program, [program] + arguments)
    # As in a new process: no region may have the random numbers of another one.
    random.seed()
    numpy.random.seed()
    sys.argv[1:] = arguments
    runpy.run_path(program, run_name="__main__")


def main(program):
    """Analyse regions until there is nobody who asks for more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    running = []

    def stop(_number, _frame):
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for line in iter(sys.stdin.readline, ""):
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            replies.close()
            run(program, [argument.encode("utf-8") for argument in arguments])
            return
        running[:] = [pid]
        status = os.waitpid(pid, 0)[1]
        running[:] = []
        died = os.WIFSIGNALED(status)
        print(-os.WTERMSIG(status) if died else os.WEXITSTATUS(status), file=replies)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
