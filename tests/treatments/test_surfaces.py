"""Data of a surface: the same numbers as a volume's, on the vertices of a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pyhrf_parallel import TreatmentDataError
from pyhrf_parallel.treatments import FIRAnalyser, FmriData, GLMAnalyser, ROITreatment
from tests.treatments.conftest import SHAPE, TR, Subject


def write(path: Path, arrays: Any, intent: str = "NIFTI_INTENT_NONE") -> Path:
    each = [nib.gifti.GiftiDataArray(a, intent=intent, datatype=str(a.dtype)) for a in arrays]
    nib.gifti.GiftiImage(darrays=each).to_filename(str(path))
    return path


def mesh(path: Path, n: int) -> Path:
    """Write a mesh of n points around an axis."""
    angles = np.linspace(0, 2 * np.pi, n)
    points = np.column_stack([np.cos(angles), np.sin(angles), np.linspace(0, 2, n)])
    triangles = np.column_stack([np.arange(n - 2), np.arange(1, n - 1), np.arange(2, n)])
    image = nib.gifti.GiftiImage(
        darrays=[
            nib.gifti.GiftiDataArray(points.astype(np.float32), "NIFTI_INTENT_POINTSET"),
            nib.gifti.GiftiDataArray(triangles.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
        ]
    )
    image.to_filename(str(path))
    return path


@pytest.fixture
def surface(subject: Subject) -> FmriData:
    """The volume of the subject, its voxels being the vertices."""
    n = int(np.prod(SHAPE))
    bold = [
        write(subject.place / f"bold_{i}.func.gii", run.reshape(n, -1).T.copy())
        for i, run in enumerate(subject.runs)
    ]
    labels = subject.labels.reshape(n).astype(np.int32)
    parcellation = write(subject.place / "labels.label.gii", [labels])
    events = [subject.events(run) for run in range(len(bold))]
    return FmriData.of(bold, parcellation, events, TR, mesh=mesh(subject.place / "mesh.gii", n))


def test_the_same_numbers_as_of_a_volume(
    subject: Subject, surface: FmriData, tmp_path: Path
) -> None:
    surface.check()
    of_surface = ROITreatment(surface, GLMAnalyser(), tmp_path / "surface").run()
    of_volume = ROITreatment(subject.data(), GLMAnalyser(), tmp_path / "volume").run()
    for (roi, one, _), (_, two, _) in zip(of_surface, of_volume, strict=True):
        assert roi.n_voxels in (60, 40, 20)
        for name in two.maps:
            np.testing.assert_array_equal(one.maps[name], two.maps[name])
    (z,) = nib.load(tmp_path / "surface" / "audio_z.func.gii").darrays
    volume = nib.load(tmp_path / "volume" / "audio_z.nii.gz").get_fdata()
    np.testing.assert_allclose(z.data, volume.reshape(-1), rtol=1e-6)
    assert "Maps, on the mesh" in (tmp_path / "surface" / "report.html").read_text()


def test_responses_and_files(surface: FmriData, tmp_path: Path) -> None:
    treatment = ROITreatment(surface, FIRAnalyser(length=8), tmp_path / "out")
    treatment.run("remote_cluster")
    fir = nib.load(tmp_path / "out" / "audio_fir.func.gii")
    assert len(fir.darrays) == 5
    assert surface.mesh in treatment.get_data_files()
    assert ROITreatment.from_xml(treatment.to_xml()).fmri_data == surface


def test_what_does_not_fit(surface: FmriData, subject: Subject) -> None:
    from dataclasses import replace

    short = write(subject.place / "short.gii", [np.ones(7, np.int32)])
    with pytest.raises(
        TreatmentDataError, match=r"short\.gii has shape \(7, 1, 1\), and .*resample"
    ):
        replace(surface, parcellation=str(short)).check()
    with pytest.raises(TreatmentDataError, match="has 7 points, and is not a mesh of"):
        replace(surface, mesh=str(mesh(subject.place / "small.gii", 7))).check()
    with pytest.raises(TreatmentDataError, match=r"short\.gii has no points or no triangles"):
        replace(surface, mesh=str(short)).check()
    with pytest.raises(TreatmentDataError, match="not a mesh of"):
        replace(subject.data(), mesh=surface.mesh).check()
    uneven = write(subject.place / "uneven.gii", [np.ones(7, np.float32), np.ones(8, np.float32)])
    with pytest.raises(TreatmentDataError, match="of different numbers of vertices"):
        replace(surface, bold=(str(uneven),)).check()
