r"""Analyse one subject by region, and write maps, responses and a page on them.

Without data, a run is simulated and analysed::

    python treatment.py --output results

With your own, the events being a BIDS ``events.tsv`` or a paradigm ``.csv`` of pyhrf::

    python treatment.py --output results --bold bold.nii.gz \
        --parcellation parcellation.nii.gz --events events.tsv --tr 2.0

By default regions are analysed as jobs: on the cluster of ``~/.pyhrf/config.cfg``, and on this machine if it
names none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simulated_run import simulate_run  # the file beside this one

from pyhrf_parallel import ParallelError
from pyhrf_parallel.treatments import FIRAnalyser, FmriData, GLMAnalyser, ROITreatment

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES = ["serial", "local", "local_with_dumps", "remote_cluster"]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--bold", type=Path, nargs="+", help="4-D BOLD images, one for each run")
    parser.add_argument("--parcellation", type=Path, help="3-D image of labels; 0 is no region")
    parser.add_argument("--events", type=Path, nargs="+", help="one file for each run")
    parser.add_argument("--tr", type=float, help="repetition time, in seconds")
    parser.add_argument("--mode", choices=MODES, metavar="MODE", default="remote_cluster")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with these arguments; gives its exit status."""
    arguments = parse_arguments(argv)
    output: Path = arguments.output
    files = arguments.bold, arguments.parcellation, arguments.events, arguments.tr
    if files == (None, None, None, None):
        files, _ = simulate_run(output / "simulated", response_length=24.0)
    elif None in files:
        print("error: --bold, --parcellation, --events and --tr go together", file=sys.stderr)
        return 2
    data = FmriData.of(*files)
    try:
        for name, analyser in (("glm", GLMAnalyser()), ("responses", FIRAnalyser())):
            treatment = ROITreatment(data, analyser, output / name)
            results = treatment.run(arguments.mode)
            print(f"{len(results)} regions: {output / name / 'report.html'}")
    except ParallelError as error:
        print("error:", error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
