"""Cases of treatments: the graph, many small regions, the split of a large image, the GLM."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from measuring import HERE, Contender, Row, against, in_turns, process, timed

from pyhrf_parallel.treatment_jobs.graph import Description, build_graph
from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROITreatment

_REGIONS, _VOXELS, _SCANS, _TR = 500, 50, 200, 2.0
_MB = 1e6


def graph() -> list[Row]:
    """Build the graph of 10,000 regions."""

    def seconds(regions: int) -> float:
        files = {label: f"roidata_{label:04d}.pck" for label in range(1, regions + 1)}
        what = Description("LABEL", files, "/place", ["pyhrf_jde_estim"], send_to=("me@here", "/x"))
        return timed(build_graph, what)()

    small, large = (statistics.median(seconds(n) for _ in range(5)) for n in (1_000, 10_000))
    work = "the graph of 10,000 regions"
    told = f"{large * 1e3:.0f} ms"
    return [
        Row("treatment-graph", work, told, "a second", large, 1.0, " s"),
        Row("treatment-graph", work, told, f"of 1,000: {small * 1e3:.1f} ms", large / small, 20.0),
    ]


def _events(place: Path, n_scans: int) -> Path:
    onsets = np.arange(6.0, n_scans * _TR - 30, 13.0)
    kinds = np.where(np.arange(len(onsets)) % 3 == 0, "audio", "video")
    table = pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": kinds})
    table.to_csv(place / "events.tsv", sep="\t", index=False)
    return place / "events.tsv"


def small_regions(place: Path, regions: int = _REGIONS) -> FmriData:
    """Make a subject of many regions of 50 voxels, and 200 scans."""
    rng = np.random.default_rng(0)
    shape = (regions, 10, _VOXELS // 10)
    image = (1000 + 10 * rng.normal(size=(*shape, _SCANS))).astype(np.float32)
    labels = np.broadcast_to(np.arange(1, regions + 1)[:, None, None], shape).astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.eye(4)), place / "bold.nii")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), place / "parcellation.nii")
    events = _events(place, _SCANS)
    return FmriData.of(place / "bold.nii", place / "parcellation.nii", events, _TR)


_SCRIPT = """
from pathlib import Path
from treatments import *
place = Path({place!r})
data = FmriData.of(place / "bold.nii", place / "parcellation.nii", place / "events.tsv", 2.0)
treatment = ROITreatment(data, GLMAnalyser(), place / "out", make_outputs=False)
treatment.run({how!r}, n_jobs=2, rois_per_job={rois_per_job})
"""


def many_regions() -> list[Row]:
    """Analyse many small regions as jobs of this machine, and otherwise: whole scripts."""

    def script(place: Path, how: str, rois_per_job: int | None = None) -> Contender:
        return process(_SCRIPT.format(place=str(place), how=how, rois_per_job=rois_per_job))

    with tempfile.TemporaryDirectory() as directory:
        all_of_them, some = Path(directory), Path(directory, "some")
        some.mkdir()
        small_regions(all_of_them)
        # As it would take an hour otherwise, of some regions only.
        few = 20
        small_regions(some, few)
        measured = in_turns(
            {how: script(all_of_them, how) for how in ("cluster", "local")}, repetitions=5
        )
        single = script(some, "cluster", rois_per_job=1)() * _REGIONS / few
    work = f"{_REGIONS} regions x {_VOXELS} voxels x {_SCANS} scans, 2 jobs here, a script"
    one = f"a job per region, from {few} of them", single
    local = "mode local, 2 processes", measured["local"]
    return [
        against("treatment-500", work, measured["cluster"], local, 1.25),
        against("treatment-500", work, measured["cluster"], one, 0.2),
    ]


def serial() -> list[Row]:
    """Analyse region by region in a loop, and all voxels at once by nilearn."""
    from nilearn.glm.first_level import FirstLevelModel

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        data = small_regions(place)
        mask = nib.Nifti1Image(np.ones((_REGIONS, 10, _VOXELS // 10), np.int8), np.eye(4))
        events = pd.read_csv(data.events[0], sep="\t")

        def nilearn() -> None:
            model = FirstLevelModel(
                _TR, hrf_model="spm + derivative", mask_img=mask, minimize_memory=False
            ).fit(data.bold[0], events)
            for name in ("audio", "video"):
                model.compute_contrast(name, output_type="all")

        treatment = ROITreatment(data, GLMAnalyser(), place / "out")
        measured = in_turns({"ours": timed(treatment.execute), "nilearn": timed(nilearn)}, 5)
    work = f"GLM of {_REGIONS} regions x {_VOXELS} voxels x {_SCANS} scans, one after the other"
    other = "FirstLevelModel, all voxels at once", measured["nilearn"]
    return [against("treatment-serial", work, measured["ours"], other, 1.1)]


_SPLIT = """
import resource, sys
from pyhrf_parallel.commands import regions
sys.exit(regions.split(["-c", sys.argv[1], "-d", sys.argv[2]]))
"""


def split() -> list[Row]:
    """Split an image of 1 GB into 500 regions."""
    shape, n_scans = (100, 100, 50), 500
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        size = _large_image(place / "bold.nii", shape, n_scans)
        labels = np.arange(np.prod(shape)).reshape(shape) * _REGIONS // int(np.prod(shape)) + 1
        nib.save(nib.Nifti1Image(labels.astype(np.int16), np.eye(4)), place / "parcellation.nii")
        data = FmriData.of(
            place / "bold.nii", place / "parcellation.nii", _events(place, n_scans), _TR
        )
        (place / "t.xml").write_text(ROITreatment(data).to_xml())
        (place / "regions").mkdir()
        command = [sys.executable, "-c", _SPLIT, place / "t.xml", place / "regions"]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=HERE)
        read, peak = 0, 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, _field(status, "VmHWM") * 1024)
            read = max(read, _field(Path(f"/proc/{process.pid}/io").read_text(), "rchar"))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        assert process.returncode == 0
    work = f"split of an image of {size / _MB:.0f} MB into {_REGIONS} regions, in {seconds:.0f} s"
    image = f"the image: {size / _MB:.0f} MB"
    return [
        Row("treatment-split", f"{work}: memory", f"{peak / _MB:.0f} MB", image, peak / size, 1.3),
        Row("treatment-split", f"{work}: read", f"{read / _MB:.0f} MB", image, read / size, 1.1),
    ]


def _large_image(path: Path, shape: tuple[int, ...], n_scans: int) -> int:
    """Write an image by parts; return its size in bytes."""
    header = nib.Nifti1Header()
    header.set_data_shape((*shape, n_scans))
    header.set_data_dtype(np.float32)
    header.set_zooms((1, 1, 1, _TR))
    header.set_sform(np.eye(4), 1)
    rng = np.random.default_rng(0)
    scan = rng.normal(1000, 10, shape).astype(np.float32)
    with path.open("wb") as file:
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        file.write(header.binaryblock + bytes(4))
        for _ in range(n_scans):
            file.write((scan + np.float32(rng.normal())).tobytes(order="F"))
    return path.stat().st_size


def _field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


CASES = {
    "treatment-graph": graph,
    "treatment-500": many_regions,
    "treatment-serial": serial,
    "treatment-split": split,
}
