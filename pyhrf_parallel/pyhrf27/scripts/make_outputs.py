# Runs on Python 2.7, with pyhrf.
"""Let a pyhrf treatment write its images and tables, of a merged result: CFG.xml RESULT OUTPUT.tar."""

from __future__ import print_function

import os
import pickle
import shutil
import sys
import tarfile
import tempfile

sys.dont_write_bytecode = True
import own_home
from pyhrf.xmlio import from_xml


def main(config, result, output):  # type: (str, str, str) -> None
    """Write them to a directory, and that to an archive."""
    with open(config) as text:
        treatment = from_xml(text.read())
    with open(result, "rb") as content:
        results = pickle.load(content)
    treatment.output_dir = tempfile.mkdtemp(dir=".")
    try:
        treatment.output(results, dump_result=False)
        archive = tarfile.open(output + ".part", "w")
        for name in sorted(os.listdir(treatment.output_dir)):
            archive.add(os.path.join(treatment.output_dir, name), name)
        archive.close()
        os.rename(output + ".part", output)
    finally:
        shutil.rmtree(treatment.output_dir)


if __name__ == "__main__":
    main(*sys.argv[1:])
