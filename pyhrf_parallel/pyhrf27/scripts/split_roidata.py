# Runs on Python 2.7, with pyhrf; pyhrf itself never shipped the command of that name.
"""Write the data of each region of a pyhrf treatment: -c CFG.xml -v N -d DIR."""

from __future__ import print_function

import os
import sys

sys.dont_write_bytecode = True
import own_home

try:
    from pyhrf.xmlio import from_xml
except ImportError as error:
    sys.exit(
        "%s is Python %s, and has no pyhrf (%s): name the Python 2.7 that has it"
        % (sys.executable, sys.version.split()[0], error)
    )


def main(argv):  # type: (list[str]) -> None
    """Split, as pyhrf's own FMRITreatment does it."""
    options = dict(zip(argv[::2], argv[1::2]))
    with open(options["-c"]) as config:
        treatment = from_xml(config.read())
    files, _ = treatment.dump_roi_datasets(output_dir=os.path.abspath(options["-d"]))
    print("%d regions" % len(files))


if __name__ == "__main__":
    main(sys.argv[1:])
