# Runs on whatever Python was named; the argument is the program of pyhrf that will be run.
"""Fail, and say why, unless this is a Python 2.7 with pyhrf and that program; import nothing of pyhrf."""

import os
import pkgutil
import sys

program = sys.argv[1]  # type: str
beside = os.path.join(os.path.dirname(sys.executable), os.path.basename(program))  # type: str
name = "name the Python 2.7 that has pyhrf (python=, or --python)"
if sys.version_info[:2] != (2, 7):
    sys.exit("%s is Python %s: %s" % (sys.executable, sys.version.split()[0], name))
if pkgutil.find_loader("pyhrf") is None:
    sys.exit("%s has no pyhrf: %s" % (sys.executable, name))
if not any(os.access(place, os.X_OK) for place in (program, beside)):
    sys.exit("there is neither %s nor %s: %s" % (program, beside, name))
