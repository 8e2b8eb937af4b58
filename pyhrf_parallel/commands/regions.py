"""``pyhrf_split_roidata``, ``pyhrf_roi_estim`` and ``pyhrf_pack_results``: a treatment step by step.

These are the jobs of a job graph, with the options of pyhrf's commands of the same names. The first two read a
treatment that `save_treatment` has written.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pickle
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyhrf_parallel.errors import ParallelError
from pyhrf_parallel.treatment_jobs.region_files import merge_pickles, result_path


def split(argv: Sequence[str] | None = None) -> int:
    """Run ``pyhrf_split_roidata``; return its exit status."""
    parser = _parser(
        "pyhrf_split_roidata", "Write the data of each region of a treatment to a file."
    )
    _add_treatment(parser)
    parser.add_argument("-d", dest="directory", metavar="DIR", type=Path, default=Path())
    options = parser.parse_args(argv)
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is no directory")
    try:
        files, ids = _load(options.treatment).dump_roi_datasets(output_dir=str(options.directory))
    except (ParallelError, OSError) as error:
        return _fail(parser, error)
    if options.verbosity <= logging.INFO:
        print(f"{len(ids)} regions, {Path(files[0]).name} is the biggest")
    return 0


def estimate(argv: Sequence[str] | None = None) -> int:
    """Run ``pyhrf_roi_estim``; return its exit status."""
    parser = _parser(
        "pyhrf_roi_estim",
        "Analyse one region; roidata_0001.pck gives result_0001.pck beside it. A failed analysis is a "
        "result, too: the region, None and the traceback; the exit status is 1 then.",
    )
    _add_treatment(parser)
    parser.add_argument(
        "-r", dest="region", metavar="ROIDATA", type=Path, required=True,
        help="written by pyhrf_split_roidata; a pickle: use only files of your own",
    )  # fmt: skip
    options = parser.parse_args(argv)
    try:
        output = result_path(options.region)
        analyser = _load(options.treatment).analyser
        from pyhrf_parallel.treatments.region_analysis import leave_result, load_region

        roi = load_region(options.region)
    except (ParallelError, OSError, ValueError, pickle.UnpicklingError, EOFError) as error:
        return _fail(parser, error)
    try:
        leave_result(analyser, roi, output)
    except Exception:
        report = traceback.format_exc()
        print(f"region {roi.roi_id} ({roi.n_voxels} voxels):\n{report}", file=sys.stderr)
        return 1
    return 0


def pack(argv: Sequence[str] | None = None) -> int:
    """Run ``pyhrf_pack_results``; return its exit status."""
    parser = _parser(
        "pyhrf_pack_results",
        "Make one pickle, a list, of the pickles of regions, in the order of the arguments.",
    )
    parser.add_argument("-o", dest="output", metavar="FILE", type=Path, default=Path("result.pck"))
    parser.add_argument("results", metavar="RESULT", nargs="+", type=Path)
    options = parser.parse_args(argv)
    try:
        merge_pickles(options.results, options.output)
    except (ParallelError, OSError) as error:
        return _fail(parser, error)
    if options.verbosity <= logging.INFO:
        print(f"{len(options.results)} results in {options.output}")
    return 0


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=description)
    # pyhrf passes "-v 30" as one word, too: int() takes the blank.
    parser.add_argument(
        "-v", dest="verbosity", metavar="N", type=int, default=logging.WARNING,
        help="a level of Python's logging: 20 and less say what was done",
    )  # fmt: skip
    return parser


def _add_treatment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", dest="treatment", metavar="TREATMENT.xml", type=Path, required=True,
        help="written by save_treatment",
    )  # fmt: skip


def _load(path: Path) -> Any:
    """Read a treatment of this package, or one of pyhrf's if a port of it to this Python is installed."""
    sys.path.insert(0, "")  # an analyser of a module in the working directory; a script lacks that
    text = path.read_text(encoding="utf-8")
    if "<roi_treatment" not in text and find_spec("pyhrf") is not None:
        xmlio = importlib.import_module("pyhrf.xmlio")
        return xmlio.from_xml(text)
    from pyhrf_parallel.treatments import ROITreatment

    return ROITreatment.from_xml(text)


def _fail(parser: argparse.ArgumentParser, error: Exception) -> int:
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 1
