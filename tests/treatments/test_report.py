"""The page: what is left is left, names are shown as they are, and no run has to fit into memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel.treatments import ROITreatment
from pyhrf_parallel.treatments.figures import draw_responses, draw_slices, shown
from pyhrf_parallel.treatments.images import Volume, load_image
from pyhrf_parallel.treatments.report import make_report
from tests.treatments import analyses
from tests.treatments.conftest import AFFINE, SHAPE, Subject

SIZES = (2.0, 3.0, 4.0)  # mm


def in_orientation(codes: str, array: Any, affine: Any) -> nib.Nifti1Image:
    """Store the same brain in another order of its voxels."""
    image = nib.Nifti1Image(array, affine)
    turned = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    return image.as_reoriented(turned)


def brain(codes: str, tilt: float, place: Path) -> tuple[Any, Volume]:
    """Return the map and the image of a brain whose right front differs from all else."""
    array = np.zeros((7, 6, 5), np.float32)
    array[4:, 3:, 1:4] = np.arange(1, 28).reshape(3, 3, 3)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ np.diag([*SIZES, 1.0])
    affine[:3, 3] = [-7.0, -9.0, -10.0]
    image = in_orientation(codes, array, affine)
    path = place / f"{codes}.nii"
    image.to_filename(path)
    volume = load_image(str(path), 3)
    assert isinstance(volume, Volume)
    return image.get_fdata(), volume


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "RPI", "PSR", "AIL"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_slices_are_shown_alike_however_they_are_stored(
    codes: str, tilt: float, tmp_path: Path
) -> None:
    values, volume = brain(codes, tilt, tmp_path)
    figure = draw_slices(values, values, volume)
    *panels, _ = figure.axes  # the last one is the scale
    reference, _ = brain("RAS", tilt, tmp_path)
    for level, panel in enumerate(panels):
        background, drawn = panel.images
        for one in (background, drawn):
            np.testing.assert_allclose(
                np.ma.filled(np.ma.asarray(one.get_array())), reference[:, :, level].T
            )
            assert one.origin == "lower"
        assert background.get_clim() == panels[0].images[0].get_clim()
        assert background.get_clim()[1] > np.nanmax(
            reference
        )  # grey beneath the white of values about 0
        assert panel.get_aspect() == pytest.approx(3.0 / 2.0)
        assert panel.get_title() == f"z = {4 * level - 10} mm"
        marks = {text.get_text(): text.get_position()[0] for text in panel.texts}
        assert marks["L"] < 0.5 < marks["R"]


def test_an_image_that_does_not_know_its_left(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    image.to_filename(tmp_path / "x.nii")
    volume = load_image(str(tmp_path / "x.nii"), 3)
    assert isinstance(volume, Volume)
    assert not volume.knows_sides
    figure = draw_slices(volume.values(), volume.values(), volume)
    assert not any(panel.texts for panel in figure.axes)


def test_the_page_does_not_read_a_whole_run_into_memory(subject: Subject) -> None:
    shape = (40, 40, 24, 160)
    run = np.random.default_rng(0).normal(100, 1, shape).astype(np.float32)
    subject.runs, subject.labels = [run], np.ones(shape[:3], np.int16)
    subject.labels[1:] = 0
    data = subject.data()
    assert data.roi_ids == [1]
    regions = pd.DataFrame({"region": [1], "n_voxels": [960], "status": ["ok"], "reason": [""]})
    tracemalloc.start()
    try:
        page = make_report(data, {"a": run[..., 0]}, None, regions, {"analyser": "x"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "Maps, on the mean BOLD image" in page
    assert "All values of the regions are shown, without a threshold." in page
    assert f"<figcaption>a, from {run[..., 0].min():.3g} to {run[..., 0].max():.3g}<" in page
    assert peak < run.nbytes / 2


@pytest.mark.parametrize("name", [r"$\frac$", "$x", "a$b$c", "_rest", "x" * 300, "nul\0", "条件"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    responses = pd.DataFrame({
        "region": 1, "n_voxels": 3, "condition": name, "delay": [0.0, 1.0],
        "response": [0.0, 1.0], "standard_error": 0.1,
    })  # fmt: skip
    figure = draw_responses(responses)
    (text,) = figure.legends[0].get_texts()
    assert text.get_text() == shown(name)
    assert len(text.get_text()) < 45
    figure.draw_without_rendering() if name.isascii() else None  # mathtext would raise


def test_maps_keep_the_codes_of_their_space(subject: Subject, tmp_path: Path) -> None:
    data = subject.data()
    for path in data.bold:
        image = nib.load(path)
        image.set_sform(AFFINE, 4)
        image.set_qform(AFFINE, 1)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    ROITreatment(data, analyses.mean_signal, tmp_path / "out").run()
    made = nib.load(tmp_path / "out" / "mean.nii.gz")
    assert int(made.header["sform_code"]) == 4
    assert int(made.header["qform_code"]) == 1
    assert made.get_data_dtype() == np.float32
    assert made.shape == SHAPE
