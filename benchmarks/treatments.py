"""Cases of treatments: the graph, many small regions, the split of a large image, the GLM."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from measuring import HERE, Contender, Row, against, in_turns, process, timed

from pyhrf_parallel import run_soma_workflow
from pyhrf_parallel.pyhrf27.pyhrf_treatment import SPLIT_SCRIPT, PyhrfTreatment
from pyhrf_parallel.treatment_jobs.graph import build_graph
from pyhrf_parallel.treatment_jobs.subject import Subject
from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROITreatment

_REGIONS, _VOXELS, _SCANS, _TR = 500, 50, 200, 2.0
_MB = 1e6


def graph() -> list[Row]:
    """Build the graph of 10,000 regions."""

    def seconds(regions: int) -> float:
        files = {label: f"roidata_{label:04d}.pck" for label in range(1, regions + 1)}
        subject = Subject("one", "LABEL", files, "/place", send_to="me@here", result_path="/x")
        return timed(build_graph, subject)()

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
treatment.run({mode!r}, n_jobs=2, rois_per_job={rois_per_job})
"""


def many_regions() -> list[Row]:
    """Analyse many small regions as jobs of this machine, and otherwise: whole scripts."""

    def script(place: Path, mode: str, rois_per_job: int | None = None) -> Contender:
        return process(_SCRIPT.format(place=str(place), mode=mode, rois_per_job=rois_per_job))

    with tempfile.TemporaryDirectory() as directory:
        all_of_them, some = Path(directory), Path(directory, "some")
        some.mkdir()
        small_regions(all_of_them)
        # As it would take an hour otherwise, of some regions only.
        few = 20
        small_regions(some, few)
        measured = in_turns(
            {mode: script(all_of_them, mode) for mode in ("remote_cluster", "local")}, repetitions=5
        )
        single = script(some, "remote_cluster", rois_per_job=1)() * _REGIONS / few
    work = f"{_REGIONS} regions x {_VOXELS} voxels x {_SCANS} scans, 2 jobs here, a script"
    one = f"a job per region, from {few} of them", single
    local = "mode local, 2 processes", measured["local"]
    return [
        against("treatment-500", work, measured["remote_cluster"], local, 1.25),
        against("treatment-500", work, measured["remote_cluster"], one, 0.2),
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


def pyhrf() -> list[Row]:
    """Run pyhrf itself region by region: beside what its commands take by themselves."""
    sys.path.append(str(HERE.parent))
    from tests.pyhrf27.environment import CannotBuildError, find_pyhrf27

    shared = HERE.parent.parent / "shared"
    try:
        python27 = find_pyhrf27()
    except CannotBuildError as error:
        print(f"no pyhrf: {error}", file=sys.stderr)
        return []
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for regions in (2, 20):
            config = _pyhrf_config(shared, place, regions)
            treatment = PyhrfTreatment.from_xml(config, str(python27))
            treatment.set_init_param("make_outputs", False)
            measured = [
                (
                    timed(_run_pyhrf, treatment, place / f"out-{regions}-{turn}")(),
                    *_by_hand(treatment, place / f"by-hand-{regions}-{turn}", config),
                )
                for turn in range(3)
            ]
            ours, split, estimate, merge = map(statistics.median, zip(*measured, strict=True))
            slots = 2
            ideal = split + regions / slots * estimate + merge
            told = (
                f"split {split:.1f} s + {regions}/{slots} x {estimate:.2f} s + merge {merge:.1f} s"
            )
            work = f"pyhrf's VEM of {regions} regions, 2 jobs here"
            rows.append(against("treatment-pyhrf", work, ours, (told, ideal), 1.1))
    return rows


def _pyhrf_config(shared: Path, place: Path, regions: int) -> Path:
    """Write VEM's configuration, for a parcellation of the same voxels into so many regions."""
    data = shared / "data"
    image = nib.load(data / "subj0_parcellation.nii.gz")
    labels = np.asanyarray(image.dataobj).astype(np.int16)
    if regions > 2:
        inside = labels != 0
        labels[inside] = np.arange(inside.sum()) * regions // inside.sum() + 1
    mask = place / f"mask-{regions}.nii"
    nib.save(nib.Nifti1Image(labels, image.affine), mask)
    root = ET.parse(shared / "pyhrf-xml" / "vem.xml").getroot()  # noqa: S314  (known)
    found = root.find("fmri_data")
    assert found is not None
    for element in found.iter():
        if element.tag == "mask_file":
            element.text = str(mask)
        elif element.tag == "bold_file":
            element.text = str(data / "subj0_bold_session0.nii.gz")
    path = place / f"vem-{regions}.xml"
    path.write_text(ET.tostring(root, encoding="unicode"))
    return path


def _run_pyhrf(treatment: PyhrfTreatment, out: Path) -> None:
    run_soma_workflow(
        {"one": treatment}, None, None, None, None, None, None, {"one": out}, "JDE", True, n_jobs=2
    )


def _by_hand(treatment: PyhrfTreatment, place: Path, config: Path) -> tuple[float, float, float]:
    """Measure the commands one by one; of the regions, the median of two."""
    place.mkdir()
    files, _ = treatment.dump_roi_datasets(dry=True, output_dir=str(place))
    split = [treatment.python, *map(str, (SPLIT_SCRIPT, "-c", config, "-d", place))]
    estimate = [*treatment.estimation_command, "-c", config, "-r"]
    merge = [str(Path(sys.executable).with_name("pyhrf_pack_results")), "-o", place / "result.pck"]

    def seconds(*words: object) -> float:
        command = list(map(str, words))
        return timed(subprocess.run, command, check=True, cwd=place, stdout=subprocess.DEVNULL)()

    taken = seconds(*split)
    regions = statistics.median(seconds(*estimate, file) for file in files[:2])
    results = [file.replace("roidata", "result") for file in files[:2]]
    return taken, regions, seconds(*merge, *results)


CASES = {
    "treatment-graph": graph,
    "treatment-500": many_regions,
    "treatment-serial": serial,
    "treatment-split": split,
    "treatment-pyhrf": pyhrf,
}
