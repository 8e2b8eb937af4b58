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
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel.filebasedimages import ImageFileError
from nilearn.glm import compute_contrast, first_level
from simulated_run import print_accuracy, simulate_run  # the file beside this one

from pyhrf_parallel import ParallelError, remote_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

MODES = ["serial", "local", "local_with_dumps", "remote_cluster"]
ONE_BY_ONE = ["serial", "local_with_dumps"]
RESPONSE_LENGTH = 24.0  # seconds
MAX_PANELS = 12
BIDS_COLUMNS = ["onset", "duration", "trial_type"]
PYHRF_COLUMNS = ["session", "trial_type", "onset", "duration"]


class InputError(ValueError):
    """The given data cannot be analysed as they are."""


@dataclass
class Run:
    """One run, ready to be analysed."""

    signals: dict[int, Array]  # BOLD of each region, shape (n_scans, n_voxels)
    design: pd.DataFrame  # as made by `fir_design`
    conditions: list[str]
    delays: Array  # seconds after an onset, shape (n_delays,)


def estimate_region(signals: Array, design: pd.DataFrame) -> Array:
    """Estimate the responses of one region: the task that travels to the workers.

    Parameters
    ----------
    signals : ndarray of shape (n_scans, n_voxels)
        BOLD signal, in any unit.
    design : pandas.DataFrame of shape (n_scans, n_regressors)
        As made by `fir_design`.

    Returns
    -------
    ndarray of shape (2, n_conditions, n_delays)
        Responses and their standard errors, in percent signal change.
    """
    percent, _ = first_level.mean_scaling(signals)
    region_mean = percent.mean(axis=1, keepdims=True)
    labels, results = first_level.run_glm(region_mean, design.to_numpy(), noise_model="ar1")
    delays = design.columns.str.extract(r"_delay_(\d+)$", expand=False)  # NaN for the drifts
    weights = np.eye(len(delays))[delays.notna()]
    contrasts = [compute_contrast(labels, results, row) for row in weights]
    responses = [contrast.effect_size() for contrast in contrasts]
    errors = [np.sqrt(contrast.effect_variance()) for contrast in contrasts]
    return np.array([responses, errors]).reshape(2, -1, delays.nunique())


def fir_delays(tr: float) -> NDArray[np.int_]:
    """Delays of a response in scans, shape (n_delays,), for a TR in seconds."""
    return np.arange(round(RESPONSE_LENGTH / tr) + 1)


def fir_design(events: pd.DataFrame, n_scans: int, tr: float) -> pd.DataFrame:
    """Build the design of shape (n_scans, n_regressors): conditions by delays, then the drifts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Matrix is singular")  # an error below
        design: pd.DataFrame = first_level.make_first_level_design_matrix(
            np.arange(n_scans) * tr,
            # The response is to a whole event, however long. As an event of one TR, an onset between
            # two scans counts for both in proportion: the response is linear between its delays.
            events.assign(duration=tr),
            hrf_model="fir",
            fir_delays=fir_delays(tr),
        )
    rank = np.linalg.matrix_rank(design)
    if rank < design.shape[1]:
        raise InputError(
            f"{n_scans} scans with these events do not determine {RESPONSE_LENGTH:g} s of response "
            f"to each condition: {design.shape[1]} regressors of rank {rank}"
        )
    return design


def read_events(path: Path) -> pd.DataFrame:
    """Read onset (s), duration (s) and trial_type: BIDS if named .tsv, otherwise pyhrf's."""
    bids = path.suffix == ".tsv"
    separator, header = ("\t", 0) if bids else (r"\s+", None)
    table = pd.read_csv(
        path, sep=separator, header=header, keep_default_na=False, na_values=["n/a", ""]
    )
    if not bids:
        if table.shape[1] != len(PYHRF_COLUMNS) or len(set(table[0])) > 1:
            raise InputError(f"{path}: not the columns {', '.join(PYHRF_COLUMNS)} of one session")
        table.columns = pd.Index(PYHRF_COLUMNS)
    missing = [name for name in BIDS_COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}")
    events = table[BIDS_COLUMNS].assign(onset=pd.to_numeric(table["onset"], errors="coerce"))
    if events.empty or events[["onset", "trial_type"]].isna().any(axis=None):
        raise InputError(f"{path}: every event needs an onset in seconds and a trial_type")
    return events.astype({"trial_type": str})


def check_tr(bold: nib.Nifti1Pair, tr: float) -> None:
    """Compare a TR in seconds with the header's, where many programs leave 0 or 1."""
    unit = bold.header.get_xyzt_units()[1]
    header_tr = float(bold.header.get_zooms()[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    if not 0 < tr < np.inf:
        raise InputError(f"--tr is {tr:g} s")
    if header_tr in (0, 1) and header_tr != tr:
        print(f"note: the BOLD header's TR of {header_tr:g} is a placeholder, using {tr:g} s")
    elif abs(header_tr - tr) > 0.01 * header_tr:
        raise InputError(f"--tr is {tr:g} s, but the BOLD header's TR is {header_tr:g} s")


def load_regions(bold: nib.Nifti1Pair, parcellation: nib.Nifti1Pair) -> dict[int, Array]:
    """Get the signals of the usable voxels of each region, of shape (n_scans, n_voxels)."""
    labels = np.asanyarray(parcellation.dataobj)
    if not np.array_equal(labels, np.round(labels)):
        raise InputError("the labels of the parcellation are not whole numbers")
    region = labels[labels > 0].astype(int)
    signals = np.asanyarray(bold.dataobj)[labels > 0].T.astype(float)
    finite = np.isfinite(signals).all(axis=0)
    with np.errstate(invalid="ignore"):
        usable = finite & (np.ptp(signals, axis=0) > 0) & (signals.mean(axis=0) > 0)
    regions, kept = np.unique(region), np.unique(region[usable])
    if not usable.all():
        print(f"note: {np.sum(~usable)} voxels dropped: constant, not finite or of mean <= 0")
    if len(kept) < len(regions):
        print(f"note: {len(regions) - len(kept)} of {len(regions)} regions dropped: no voxel left")
    if not len(kept):
        raise InputError("no region has a usable voxel")
    # The memory layout that the workers will get: it too can change the last bits.
    return {int(one): np.ascontiguousarray(signals[:, usable & (region == one)]) for one in kept}


def load_run(bold_path: Path, parcellation_path: Path, events_path: Path, tr: float) -> Run:
    """Read, check and prepare the files of one run; `tr` is in seconds."""
    bold, parcellation = nib.load(bold_path), nib.load(parcellation_path)
    if not isinstance(bold, nib.Nifti1Pair) or not isinstance(parcellation, nib.Nifti1Pair):
        raise InputError("BOLD and parcellation are to be NIfTI images")
    if bold.ndim != 4 or bold.shape[:3] != parcellation.shape:  # noqa: PLR2004
        raise InputError(f"BOLD of shape {bold.shape}, parcellation of shape {parcellation.shape}")
    if not np.allclose(bold.affine, parcellation.affine, atol=1e-3):
        raise InputError("BOLD and parcellation have different affines: resample one of them")
    check_tr(bold, tr)
    events, n_scans = read_events(events_path), bold.shape[3]
    last, end = events["onset"].max(), n_scans * tr
    if last >= end:
        raise InputError(
            f"{events_path}: onset at {last:g} s, the {n_scans} scans end at {end:g} s"
        )
    design = fir_design(events, n_scans, tr)
    conditions = sorted(set(events["trial_type"]))  # as the columns of the design
    return Run(load_regions(bold, parcellation), design, conditions, fir_delays(tr) * tr)


def run_modes(run: Run, modes: Iterable[str], n_jobs: int) -> dict[str, list[Array]]:
    """Estimate all regions in each mode; gives the estimates, by region, of each mode."""
    tasks = [(signals,) for signals in run.signals.values()]
    shared = [{"design": run.design}] * len(tasks)
    estimates = {}
    print(f"{len(tasks)} regions, {len(run.design)} scans\n\n{'mode':<18}seconds  workers")
    for mode in modes:
        start = time.perf_counter()
        estimates[mode] = remote_map(estimate_region, tasks, shared, mode=mode, n_jobs=n_jobs)
        seconds = time.perf_counter() - start
        workers = 1 if mode in ONE_BY_ONE else min(n_jobs, len(tasks))
        print(f"{mode:<18}{seconds:7.2f}{workers:9d}", flush=True)
    return estimates


def check_agreement(estimates: dict[str, list[Array]], regions: Iterable[int]) -> None:
    """Exit with status 1 if a mode differs from the first one on a region, in any bit."""
    first, expected = next(iter(estimates.items()))
    for mode, found in estimates.items():
        for region, one, other in zip(regions, expected, found, strict=True):
            if not np.array_equal(one, other):
                sys.exit(f"error: modes {first} and {mode} disagree on region {region}")
    if len(estimates) > 1:
        print(f"exactly the same responses from: {', '.join(estimates)}")
    print()


def tabulate(run: Run, estimates: Sequence[Array]) -> pd.DataFrame:
    """Arrange estimates in a table, one row per region, condition and delay."""
    sizes = [(region, signals.shape[1]) for region, signals in run.signals.items()]
    rows = [(*size, *rest) for size, *rest in product(sizes, run.conditions, run.delays)]
    table = pd.DataFrame(rows, columns=["region", "n_voxels", "condition", "delay_s"])
    responses, errors = np.stack(estimates, axis=1)
    return table.assign(response=responses.ravel(), standard_error=errors.ravel())


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
    data = arguments.bold, arguments.parcellation, arguments.events, arguments.tr
    try:
        if data == (None, None, None, None):
            data, truth = simulate_run(output / "simulated", RESPONSE_LENGTH)
        elif None in data:
            raise InputError("--bold, --parcellation, --events and --tr go together")
        run = load_run(*data)
    except (ImageFileError, EOFError, OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    try:
        estimates = run_modes(run, arguments.modes, arguments.n_jobs)
    except ParallelError as error:
        print("error:", error, file=sys.stderr)
        return 1
    check_agreement(estimates, run.signals)
    table = tabulate(run, estimates[arguments.modes[0]])
    if truth is not None:
        table["truth"] = truth.ravel()
        print_accuracy(table)
    write(output / "hrf_by_region.tsv", partial(table.to_csv, sep="\t", index=False))
    write(output / "hrf_by_region.png", partial(draw(table).savefig, dpi=120))
    print(f"written: {output / 'hrf_by_region.tsv'}\n         {output / 'hrf_by_region.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
