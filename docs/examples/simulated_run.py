"""A BOLD run with known haemodynamic responses, to try an analysis on and compare it with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm import first_level

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

EVENT_RATE = 0.25  # per scan
QUIET_END = 5  # scans, so that the last events get most of their response


def simulate_run(
    folder: Path, response_length: float, n_scans: int = 200, tr: float = 2.0
) -> tuple[tuple[Path, Path, Path, float], Array]:
    """Write the files of a run in which six regions respond to two conditions.

    Parameters
    ----------
    folder : Path
        Where the files go; made if need be.
    response_length : float
        How long the true responses are wanted after an onset, in seconds.
    n_scans : int
    tr : float
        Repetition time, in seconds.

    Returns
    -------
    tuple
        The paths of the BOLD image, of the parcellation and of the events, and the repetition time.
    ndarray of shape (n_regions, n_conditions, n_delays)
        The true responses at multiples of the repetition time, in percent signal change.
    """
    rng, times = np.random.default_rng(1), np.arange(n_scans) * tr
    delays = times[: round(response_length / tr) + 1]
    slabs = np.repeat(np.arange(7), [4, 1, 2, 3, 4, 4, 6])  # 0 is outside the regions
    labels = np.broadcast_to(slabs[:, np.newaxis], (24, 24, 12)).astype(np.int16)
    has_event = rng.random(n_scans - QUIET_END) < EVENT_RATE
    events = pd.DataFrame({"onset": times[:-QUIET_END][has_event], "duration": 0.0})
    events["trial_type"] = rng.choice(["audio", "video"], size=len(events))
    bold, truth = np.zeros((*labels.shape, n_scans), np.float32), []
    for region in range(1, labels.max() + 1):
        voxels = labels == region
        signals, responses = simulate_region(rng, events, times, delays, voxels.sum())
        bold[voxels] = signals.T
        truth.append(responses)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    image = nib.Nifti1Image(bold, affine)
    image.header.set_zooms((3.0, 3.0, 3.0, tr))
    image.header.set_xyzt_units("mm", "sec")
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "bold.nii.gz", folder / "parcellation.nii.gz", folder / "events.tsv"
    nib.save(image, files[0])
    nib.save(nib.Nifti1Image(labels, affine), files[1])
    events.to_csv(files[2], sep="\t", index=False)
    return (*files, tr), np.array(truth)


def simulate_region(
    rng: np.random.Generator, events: pd.DataFrame, times: Array, delays: Array, n_voxels: int
) -> tuple[Array, Array]:
    """Simulate signals, shape (n_scans, n_voxels), and give the responses in them, in percent."""
    noise = rng.normal(size=(len(times), n_voxels)) + rng.normal(scale=0.3, size=(len(times), 1))
    for scan in range(1, len(times)):
        noise[scan] += 0.4 * noise[scan - 1]  # AR(1)
    percent = noise + 2 * np.linspace(-1, 1, len(times))[:, np.newaxis] ** 3
    lag, truth = rng.uniform(0, 1.5), []
    for _, onsets in events.groupby("trial_type")["onset"]:
        amplitude = rng.uniform(0.5, 2.0)
        percent += amplitude * glover_responses(onsets.to_numpy(), times, lag)[:, np.newaxis]
        truth.append(amplitude * glover_responses(np.zeros(1), delays, lag))
    return rng.uniform(800, 1200, size=n_voxels) * (1 + percent / 100), np.array(truth)


def glover_responses(onsets: Array, times: Array, lag: float) -> Array:
    """Respond to brief events with Glover's HRF, of peak 1 and late by `lag`; all in seconds."""

    def hrf(tr: float, oversampling: int) -> Array:
        kernel = first_level.glover_hrf(tr, oversampling, onset=lag)
        return np.array(kernel / kernel.max())

    events = np.array([onsets, np.zeros_like(onsets), np.ones_like(onsets)])
    regressors, _ = first_level.compute_regressor(events, hrf, times)
    response: Array = regressors[:, 0]
    return response


def print_accuracy(table: pd.DataFrame) -> None:
    """Compare the responses with the truth, by region and condition."""

    def compare(one: pd.DataFrame) -> pd.Series[float]:
        error = np.linalg.norm(one["response"] - one["truth"]) / np.linalg.norm(one["truth"])
        return pd.Series({"correlation": one["response"].corr(one["truth"]), "error": error})

    accuracy = table.groupby(["region", "condition"])[["response", "truth"]].apply(compare)
    by_region = accuracy.pivot_table(index="region", columns="condition")
    print(f"correlation with the truth, and relative error\n{by_region.round(3).to_string()}")
    print(f"median correlation over regions: {accuracy['correlation'].median():.3f}\n")
