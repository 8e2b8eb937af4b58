# Runs on Python 2.7, before pyhrf.
"""Give pyhrf a home among the files of its treatment: it and what it imports write settings and caches there.

Imported for that alone. By a relative path: matplotlib cannot start where the name of its home is not ASCII.
"""

import os

#: As in treatment_jobs/region_files.py.
HOME = ".home"

for directory in (HOME, os.path.join(HOME, ".pyhrf")):  # pyhrf fails if two make the second one
    try:
        os.mkdir(directory, 0o700)
    except OSError:
        if not os.path.isdir(directory):
            raise
os.environ["HOME"] = HOME
for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
    os.environ.pop(name, None)
