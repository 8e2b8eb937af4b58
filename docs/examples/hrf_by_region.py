r"""Estimate the haemodynamic responses of every region of a parcellation, in every mode.

Without data, a run with known responses is simulated and its files are analysed::

    python hrf_by_region.py --output results

With your own, the events being a BIDS ``events.tsv`` or a paradigm ``.csv`` of pyhrf::

    python hrf_by_region.py --output results --bold bold.nii.gz \
        --parcellation parcellation.nii.gz --events events.tsv --tr 2.0

A region takes milliseconds here, and a process seconds to import nilearn: the times are what it
costs to start each mode. Put your own estimation in `estimate_region` to make them worth it.
"""

from __future__ import annotations

import os

# One thread per process: the last bits of a result depend on the number of threads of the linear
# algebra library, and the modes are to be compared exactly. It is read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import pandas as pd
from matplotlib.figure import Figure
from simulated_run import print_accuracy, simulate_run  # the file beside this one

from pyhrf_parallel import ParallelError, remote_map
from pyhrf_parallel.treatments import FIRAnalyser, FmriData, ROIData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MODES = ["serial", "local", "local_with_dumps", "remote_cluster"]
ONE_BY_ONE = ["serial", "local_with_dumps"]
RESPONSE_LENGTH = 24.0  # seconds
MAX_PANELS = 12


def estimate_region(roi: ROIData) -> pd.DataFrame:
    """Estimate the responses of one region: the task that travels to the workers.

    Parameters
    ----------
    roi : ROIData
        The signals of the region, the events and the TR.

    Returns
    -------
    pandas.DataFrame
        Condition, delay in seconds, response and its standard error in percent signal change.
    """
    found = FIRAnalyser(RESPONSE_LENGTH)(roi).responses
    assert found is not None  # noqa: S101
    return found


def load_regions(data: FmriData) -> list[ROIData]:
    """Read and check the files; gives the data of each region, the biggest first."""
    data.check()
    if data.n_dropped:
        print(f"note: {data.n_dropped} voxels dropped: constant, not finite or of mean <= 0")
    return list(data.rois())


def run_modes(
    rois: Sequence[ROIData], modes: Iterable[str], n_jobs: int
) -> dict[str, list[pd.DataFrame]]:
    """Estimate all regions in each mode; gives the estimates, by region, of each mode."""
    tasks = [(roi,) for roi in rois]
    estimates = {}
    print(f"{len(tasks)} regions, {len(rois[0].signals[0])} scans\n\n{'mode':<18}seconds  workers")
    for mode in modes:
        start = time.perf_counter()
        estimates[mode] = remote_map(estimate_region, tasks, mode=mode, n_jobs=n_jobs)
        seconds = time.perf_counter() - start
        workers = 1 if mode in ONE_BY_ONE else min(n_jobs, len(tasks))
        print(f"{mode:<18}{seconds:7.2f}{workers:9d}", flush=True)
    return estimates


def check_agreement(estimates: dict[str, list[pd.DataFrame]], regions: Iterable[int]) -> None:
    """Exit with status 1 if a mode differs from the first one on a region, in any bit."""
    first, expected = next(iter(estimates.items()))
    for mode, found in estimates.items():
        for region, one, other in zip(regions, expected, found, strict=True):
            if not one.equals(other):
                sys.exit(f"error: modes {first} and {mode} disagree on region {region}")
    if len(estimates) > 1:
        print(f"exactly the same responses from: {', '.join(estimates)}")
    print()


def tabulate(rois: Sequence[ROIData], estimates: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Arrange estimates in a table, one row per region, condition and delay."""
    tables = [
        found.assign(region=roi.roi_id, n_voxels=roi.n_voxels)
        for roi, found in zip(rois, estimates, strict=True)
    ]
    table = pd.concat(tables).sort_values(["region", "condition", "delay"], ignore_index=True)
    columns = ["region", "n_voxels", "condition", "delay", "response", "standard_error"]
    return table[columns].rename(columns={"delay": "delay_s"})


def draw(table: pd.DataFrame) -> Figure:
    """Draw the responses of each region, of the biggest ones if there are many."""
    sizes = table.groupby("region")["n_voxels"].first()
    shown = sizes.nlargest(MAX_PANELS).index.sort_values()
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure = Figure(figsize=(2.5 + 2.6 * n_columns, 1.2 + 2.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, region in zip(axes, shown, strict=False):
        axis.set_title(f"region {region}, {sizes[region]} voxels", fontsize="medium")
        axis.axhline(0, color="0.8", lw=0.8)
        axis.tick_params(labelbottom=True)
        for condition, one in table[table["region"] == region].groupby("condition"):
            delay, response, std = one["delay_s"], one["response"], one["standard_error"]
            (line,) = axis.plot(delay, response, ".-", label=condition)
            color = line.get_color()
            axis.fill_between(delay, response - std, response + std, color=color, alpha=0.2, lw=0)
            if "truth" in one:
                axis.plot(delay, one["truth"], "--", color=color, label=f"{condition}, truth")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    biggest = f", the {len(shown)} biggest of {len(sizes)}" if len(shown) < len(sizes) else ""
    figure.suptitle(f"Responses by region{biggest} (shaded: standard error)")
    figure.supxlabel("time after onset (s)")
    figure.supylabel("response (% signal change)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Save under a temporary name first: a file with its real name is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--bold", type=Path, help="4-D BOLD image")
    parser.add_argument("--parcellation", type=Path, help="3-D image of labels; 0 is no region")
    parser.add_argument("--events", type=Path, help="BIDS events.tsv, or .csv paradigm of pyhrf")
    parser.add_argument("--tr", type=float, help="repetition time, in seconds")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, metavar="MODE")
    parser.add_argument("--n-jobs", type=int, default=joblib.cpu_count(), metavar="WORKERS")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with these arguments; gives its exit status."""
    arguments = parse_arguments(argv)
    output, truth = arguments.output, None
    files = arguments.bold, arguments.parcellation, arguments.events, arguments.tr
    if files == (None, None, None, None):
        files, truth = simulate_run(output / "simulated", RESPONSE_LENGTH)
    elif None in files:
        print("error: --bold, --parcellation, --events and --tr go together", file=sys.stderr)
        return 2
    try:
        rois = load_regions(FmriData.of(*files))
        estimates = run_modes(rois, arguments.modes, arguments.n_jobs)
    except ParallelError as error:
        print("error:", error, file=sys.stderr)
        return 1
    check_agreement(estimates, [roi.roi_id for roi in rois])
    table = tabulate(rois, estimates[arguments.modes[0]])
    if truth is not None:
        table["truth"] = truth.ravel()
        print_accuracy(table)
    write(output / "hrf_by_region.tsv", partial(table.to_csv, sep="\t", index=False))
    write(output / "hrf_by_region.png", partial(draw(table).savefig, dpi=120))
    print(f"written: {output / 'hrf_by_region.tsv'}\n         {output / 'hrf_by_region.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
