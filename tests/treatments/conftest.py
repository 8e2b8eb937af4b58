"""A small subject with known regions, whose files each test may spoil."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel.treatments import FmriData

SHAPE = (6, 5, 4)
N_SCANS = 90
TR = 2.0
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


@dataclass
class Subject:
    """Arrays to change, and how to write them."""

    place: Path
    runs: list[Any] = field(default_factory=list)  # arrays of shape (*SHAPE, N_SCANS)
    labels: Any = None
    tr: float = TR

    def data(self, **changes: Any) -> FmriData:
        """Write the files; return what is to be analysed."""
        bold = []
        for run, array in enumerate(self.runs):
            image = nib.Nifti1Image(array, AFFINE)
            image.header.set_zooms((3.0, 3.0, 3.0, TR))
            image.header.set_xyzt_units("mm", "sec")
            bold.append(self.place / f"bold_{run}.nii.gz")
            nib.save(image, bold[-1])
        parcellation = self.place / "parcellation.nii.gz"
        nib.save(nib.Nifti1Image(self.labels, AFFINE), parcellation)
        events = [self.events(run) for run in range(len(self.runs))]
        given: dict[str, Any] = {
            "bold": bold,
            "parcellation": parcellation,
            "events": events,
            "tr": self.tr,
        }
        return FmriData.of(**(given | changes))

    def events(self, run: int = 0) -> Path:
        """Write the events of a run, others for each."""
        onsets = np.arange(4.0, N_SCANS * TR - 30, 11.0) + run
        kinds = np.where(np.arange(len(onsets)) % 3 == 0, "audio", "video")
        table = pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": kinds})
        path = self.place / f"events_{run}.tsv"
        table.to_csv(path, sep="\t", index=False)
        return path


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int16)
    labels[:3], labels[3:5], labels[5] = 7, 2, 30  # 60, 40 and 20 voxels
    place = tmp_path / 'a subject\'s "files" é'
    place.mkdir()
    runs = [(100 + rng.normal(size=(*SHAPE, N_SCANS))).astype(np.float32) for _ in range(2)]
    return Subject(place, runs, labels)
