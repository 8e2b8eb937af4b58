# Runs on Python 2.7, with pyhrf.
"""Run a program of pyhrf's on one region after the other: PROGRAM, and a line of JSON with its arguments each.

pyhrf is imported once, and each region is analysed in a fork of this process by the unchanged program: the
import takes longer than the analysis of some hundred voxels. After each region, a line with MARK and its exit
status, negative for a signal, is written to stdout; what the program writes goes to stderr.
"""

from __future__ import print_function

import ctypes
import json
import os
import random
import runpy
import signal
import sys

sys.dont_write_bytecode = True
import own_home
import numpy
import pyhrf.ui.jde  # what the program needs
import pyhrf.ui.treatment

#: Whatever starts Python may write to stdout, too.
MARK = "pyhrf_parallel: status "
PR_SET_PDEATHSIG = 1


def die_with_parent(number, parent):  # type: (int, int | None) -> None
    """Let this process get a signal when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:  # it has ended already
        os._exit(1)


def find(program):  # type: (str) -> str
    """Return where a program is: pyhrf's are beside its Python, which a script may have started."""
    beside = os.path.join(os.path.dirname(sys.executable), os.path.basename(program))
    for place in [program, beside]:
        if os.access(place, os.X_OK):
            return place
    sys.exit("There is neither %s nor %s: has this Python pyhrf?" % (program, beside))


def is_python(program):  # type: (str) -> bool
    """Return whether a program is a script of Python's, and not one that starts another program."""
    try:
        with open(program) as script:
            compile(script.read(), program, "exec")
    except (SyntaxError, TypeError):
        return False
    return True


def run(program, arguments, parent):  # type: (str, list[str], int) -> None
    """Become the program."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL, parent)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not is_python(program):
        os.execv(program, [program] + arguments)
    # As in a new process: no region may have the random numbers of another one.
    random.seed()
    numpy.random.seed()
    sys.argv[1:] = arguments
    runpy.run_path(program, run_name="__main__")


def main(program):  # type: (str) -> None
    """Analyse regions until there is nobody who asks for more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    running = []

    def stop(_number, _frame):
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    die_with_parent(signal.SIGTERM, None)
    program, server = find(program), os.getpid()
    for line in iter(sys.stdin.readline, ""):
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            replies.close()
            run(program, [argument.encode("utf-8") for argument in arguments], server)
            return
        running[:] = [pid]
        status = os.waitpid(pid, 0)[1]
        running[:] = []
        died = os.WIFSIGNALED(status)
        told = -os.WTERMSIG(status) if died else os.WEXITSTATUS(status)
        print("%s%d" % (MARK, told), file=replies)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
