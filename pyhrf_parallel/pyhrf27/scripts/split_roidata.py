# Runs on Python 2.7, with pyhrf; pyhrf itself never shipped the command of that name.
"""Write the data of each region of a pyhrf treatment: -c CFG.xml -v N -d DIR."""

from __future__ import print_function

import os
import sys

from pyhrf.xmlio import from_xml


def main(argv):
    """Split, as pyhrf's own FMRITreatment does it."""
    options = dict(zip(argv[::2], argv[1::2]))
    with open(options["-c"]) as config:
        treatment = from_xml(config.read())
    files, _ = treatment.dump_roi_datasets(output_dir=os.path.abspath(options["-d"]))
    print("%d regions" % len(files))


if __name__ == "__main__":
    main(sys.argv[1:])
