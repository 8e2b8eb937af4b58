"""The real pyhrf, unmodified: run by itself, and as our jobs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyhrf_parallel import TreatmentError, load_results, submit_treatments
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.commands.finding import find
from pyhrf_parallel.configuration import Configuration, load_configuration
from pyhrf_parallel.pyhrf27 import PyhrfTreatment
from pyhrf_parallel.treatment_jobs.subject import Subject
from tests.pyhrf27.conftest import write_config
from tests.treatment_jobs.conftest import clean, finish, kept

pytestmark = [pytest.mark.pyhrf27, pytest.mark.timeout(900)]  # it may have to be built


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in which nothing may be left, neither by us nor by pyhrf; and none of matplotlib's may be."""
    place = tmp_path / "home é"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(place / name.lower()))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    yield place
    assert [str(path) for path in place.rglob("*") if path.is_file()] == []


def alone(place: Path) -> dict[str, str]:
    """Return an environment for pyhrf without us, which writes to its home."""
    (place / "home").mkdir(exist_ok=True)
    kept = ("PATH", "OPENBLAS_NUM_THREADS")
    return {name: os.environ[name] for name in kept} | {"HOME": str(place / "home")}


def by_pyhrf(config: Path, output: Path, python27: Path) -> None:
    """Run pyhrf by itself, in one process."""
    text = config.read_text()
    start = text.index(">", text.index("<output_dir")) + 1
    stop = text.index("</output_dir>")
    (config.parent / "serial.xml").write_text(text[:start] + str(output) + text[stop:])
    output.mkdir()
    command = [python27.with_name("pyhrf_jde_estim"), "-c", config.parent / "serial.xml"]
    subprocess.run(
        list(map(str, command)), check=True, cwd=config.parent, stdout=subprocess.DEVNULL,
        env=alone(config.parent),
    )  # fmt: skip


def as_jobs(treatments: dict[str, PyhrfTreatment], out: Path) -> dict[str, list[object]]:
    paths = {name: out / name for name in treatments}
    run = submit_treatments(treatments, paths, label="JDE", config={})
    found: dict[str, list[object]] = finish(run, treatments, return_all=True)
    return found


def differences(config: Path, python27: Path) -> tuple[int, list[str]]:
    """Run it by pyhrf alone and as jobs; return how many files that makes, and which differ."""
    serial, jobs = config.parent / "serial", config.parent / "jobs"
    by_pyhrf(config, serial, python27)
    as_jobs({"one": PyhrfTreatment.from_xml(config, python=str(python27))}, jobs)
    expected = {path.name: path.read_bytes() for path in serial.iterdir()}
    made = {path.name: path.read_bytes() for path in (jobs / "one").iterdir()}
    assert made.keys() == expected.keys() | {"result.pck", "result.pck.provenance.json"}
    return len(expected), [name for name in sorted(expected) if made[name] != expected[name]]


def test_every_byte_is_pyhrfs(vem: Path, python27: Path, tmp_path: Path) -> None:
    assert differences(vem, python27) == (34, ["jde_vem_analysis_duration.nii"])
    # And readable without pyhrf.
    (roi, outputs, report), _ = load_results(tmp_path / "jobs" / "one" / "result.pck")
    assert (roi.class_name, report) == ("pyhrf.core.FmriData", "ok")
    hrf = outputs["hrf"]
    assert hrf.class_name == "pyhrf.ndarray.xndarray"
    assert isinstance(hrf.data, np.ndarray)
    assert np.abs(hrf.data).max() > 0


def test_the_file_that_pyhrf_writes_by_itself_asks_for_nothing(
    python27: Path, tmp_path: Path
) -> None:
    subprocess.run([python27, "-c", "import pyhrf"], check=True, env=alone(tmp_path))
    path = tmp_path / "home" / ".pyhrf" / "config.cfg"
    assert "nb_procs = 1" in path.read_text()
    assert load_configuration(path) == Configuration()


def test_the_regions_are_those_that_pyhrf_finds(vem: Path, python27: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pyhrf.xmlio import from_xml\n"
        "print(list(map(int, from_xml(open(sys.argv[1]).read()).dump_roi_datasets(dry=True)[1])))"
    )
    done = subprocess.run(
        [python27, "-c", code, vem], check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env=alone(tmp_path),
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(list(PyhrfTreatment.from_xml(vem).roi_sizes))


def test_a_region_whose_analysis_crashes(crashing: Path, python27: Path, tmp_path: Path) -> None:
    treatment = PyhrfTreatment.from_xml(crashing, python=str(python27))
    with pytest.raises(TreatmentError, match=r"region 1 \(632 voxels\): ") as caught:
        as_jobs({"one": treatment}, tmp_path / "jobs")
    assert "Traceback" in str(caught.value)
    clean(str(caught.value))
    (_, found, report), (_, nothing, _) = load_results(tmp_path / "jobs" / "one" / "result.pck")
    assert (report, nothing) == ("ok", None)
    assert "hrf" in found


def test_the_command_keeps_its_run_for_a_region(
    crashing: Path, python27: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["jde", str(crashing), "--output", str(out), "--python", str(python27), "--retries", "1"]
    assert run_command([*argv, "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["regions"], told["failed"], kept(said.err)) == (2, 1, told["kept_run"])
    assert {"result.pck", "jde_vem_hrf.nii"} <= set(told["files"])
    run_id = told["kept_run"]
    with find(run_id) as run:
        before = {name for name, text in run.logs().items() if "Traceback" in text}
    assert run_command(["retry", run_id]) == 0
    assert run_command(["collect", run_id]) == 1
    assert kept(capsys.readouterr().out) == run_id
    with find(run_id) as run:  # it really did run again, and nothing else
        after = {name for name, text in run.logs().items() if "Traceback" in text}
    assert sorted(name.split("-")[1] for name in after - before) == ["jde_rois_0"], (before, after)
    assert run_command(["clean", "--yes", run_id]) == 0


CONFIGURE = """
import sys
from pyhrf import get_data_file_name
from pyhrf.core import FmriData, FMRISessionVolumicData
from pyhrf.rfir import RFIREstim
from pyhrf.ui.rfir_ui import RFIRAnalyser
from pyhrf.ui.treatment import FMRITreatment
from pyhrf.ui.vb_jde_analyser import JDEVEMAnalyser
from pyhrf.xmlio import to_xml
data, analyser = %s
treatment = FMRITreatment(data, analyser, output_dir=".")
open(sys.argv[1], "w").write(to_xml(treatment, "fMRI_treatment"))
print(list(map(int, treatment.dump_roi_datasets(dry=True)[1])))
"""
VEM = "JDEVEMAnalyser(nItMin=2, nItMax=3)"
SURFACE = f"FmriData.from_surf_ui(), {VEM}"
SESSIONS = "FmriData.from_vol_ui([FMRISessionVolumicData(), FMRISessionVolumicData()])"


def configure(config: Path, what: str, python27: Path) -> list[int]:
    """Let pyhrf write a configuration; return the regions that it finds."""
    command = [python27, "-c", CONFIGURE % what, config]
    done = subprocess.run(
        list(map(str, command)), check=True, cwd=config.parent, stdout=subprocess.PIPE, text=True,
        env=alone(config.parent),
    )  # fmt: skip
    return list(map(int, done.stdout.splitlines()[-1].strip("[]").split(",")))


def test_data_of_a_surface(python27: Path, tmp_path: Path) -> None:
    config = tmp_path / "surface.xml"
    regions = configure(config, SURFACE, python27)
    treatment = PyhrfTreatment.from_xml(config, python=str(python27))
    assert list(treatment.roi_sizes) == regions
    assert treatment.roi_sizes == {38: 24, 39: 24, 36: 15}
    n_files, different = differences(config, python27)
    assert n_files > 20
    assert [name for name in different if "analysis_duration" not in name] == []


def test_several_sessions(python27: Path, tmp_path: Path) -> None:
    config = tmp_path / "sessions.xml"
    regions = configure(config, f"{SESSIONS}, {VEM}", python27)
    treatment = PyhrfTreatment.from_xml(config, python=str(python27))
    assert list(treatment.roi_sizes) == regions
    assert treatment.roi_shapes() == [(250, 640), (250, 632)]
    assert differences(config, python27) == (29, ["jde_vem_analysis_duration.nii"])


def test_rfir_of_several_sessions(python27: Path, tmp_path: Path) -> None:
    """With few of its 500 iterations, which take minutes."""
    analyser = "RFIRAnalyser(RFIREstim(nb_iterations=3))"
    configure(tmp_path / "rfir.xml", f"{SESSIONS}, {analyser}", python27)
    n_files, different = differences(tmp_path / "rfir.xml", python27)
    assert n_files > 5
    assert different == []


WRITE_ALL = """
from pyhrf.core import FmriData
from pyhrf.jde.models import BOLDGibbsSampler
from pyhrf.jde.nrl.bigaussian import NRLSampler
from pyhrf.jde.nrl.trigaussian import GGGNRLSampler, TriGaussMixtureParamsSampler
from pyhrf.ui import glm_ui, jde, rfir_ui, vb_jde_analyser, vb_jde_analyser_asl_fast, vb_jde_analyser_bold_fast
from pyhrf.ui.treatment import FMRITreatment
from pyhrf.xmlio import to_xml
contrasts = {"difference": "0.5*audio - video/2"}
three = {"response_levels": GGGNRLSampler(), "mixt_params": TriGaussMixtureParamsSampler()}
analysers = {
    "vem": vb_jde_analyser.JDEVEMAnalyser(contrasts=contrasts, computeContrast=True),
    "asl": vb_jde_analyser_asl_fast.JDEVEMAnalyser(),
    "fast": vb_jde_analyser_bold_fast.JDEVEMAnalyser(),
    "mcmc": jde.JDEMCMCAnalyser(BOLDGibbsSampler(response_levels=NRLSampler(contrasts=contrasts))),
    "three": jde.JDEMCMCAnalyser(BOLDGibbsSampler(**three)),
    "rfir": rfir_ui.RFIRAnalyser(),
    "glm": glm_ui.GLMAnalyser(contrasts=contrasts),
}
for name, analyser in analysers.items():
    treatment = FMRITreatment(FmriData.from_vol_ui(), analyser, output_dir=".")
    open(name + ".xml", "w").write(to_xml(treatment, "fMRI_treatment"))
"""


def test_all_that_pyhrf_writes_is_read(python27: Path, tmp_path: Path) -> None:
    subprocess.run(
        [python27, "-c", WRITE_ALL],
        check=True, cwd=tmp_path, stdout=subprocess.DEVNULL, env=alone(tmp_path),
    )  # fmt: skip
    written = sorted(tmp_path.glob("*.xml"))
    assert len(written) == 7
    for path in written:
        assert PyhrfTreatment.from_xml(path).roi_sizes == {2: 640, 1: 632}


def test_a_region_that_is_killed_is_tried_again(
    vem: Path, python27: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a program that is no Python; its home is pyhrf's own as well."""
    place = tmp_path / "bin"
    place.mkdir()
    program = (
        "#!/bin/sh\n"
        f'echo "$HOME" >> "{tmp_path}/homes"\n'
        f'mkdir "{tmp_path}/killed" 2>/dev/null && kill -9 $$\n'
        f'exec "{python27.with_name("pyhrf_jde_estim")}" "$@"\n'
    )
    for name, text in {
        "pyhrf_jde_estim": program,
        "python": f'#!/bin/sh\nexec {python27} "$@"\n',
    }.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    argv = ["jde", str(vem), "-o", str(tmp_path / "out"), "--python", str(place / "python")]
    assert run_command([*argv, "--n-jobs", "1", "--retries", "1"]) == 0
    assert "2 regions; 36 files are in" in capsys.readouterr().out
    assert (tmp_path / "homes").read_text().split() == [".home"] * 3
    # And without: it is lost, and can be run again.
    (tmp_path / "killed").rmdir()
    argv[3] = str(tmp_path / "again")
    assert run_command([*argv, "--n-jobs", "1"]) == 1
    run_id = kept(capsys.readouterr().err)
    assert run_command(["retry", run_id]) == 0
    assert run_command(["collect", run_id]) == 0
    assert len(list((tmp_path / "again").iterdir())) == 36


SIZES = """
import sys
from pyhrf.core import FmriData, FMRISessionVolumicData
from pyhrf.ui.treatment import FMRITreatment
from pyhrf.ui.vb_jde_analyser import JDEVEMAnalyser
from pyhrf.xmlio import to_xml
treatment = FMRITreatment(%s, JDEVEMAnalyser(), output_dir=".")
open("odd.xml", "w").write(to_xml(treatment, "fMRI_treatment"))
ids = treatment.dump_roi_datasets(dry=True)[1]
sizes = {roi.get_roi_id(): roi.get_nb_vox_in_mask() for roi in treatment.analyser.split_data(treatment.data)}
print([(int(i), int(sizes[i])) for i in ids])
"""
BY_UI = (
    "FmriData.from_vol_ui([FMRISessionVolumicData(bold_file={bold!r})], mask_file={mask!r}{more})"
)
BY_FILES = "FmriData.from_vol_files(mask_file={mask!r}, bold_files=[{bold!r}], tr=2.4{more})"


@pytest.mark.parametrize(
    ("odd", "how", "more"),
    [
        ("nan", BY_UI, ""),
        ("nan", BY_FILES, ""),
        ("constant integers", BY_UI, ""),
        ("another background", BY_UI, ", background_label=7"),
        ("negative labels", BY_UI, ""),
        ("two files", BY_UI, ""),
    ],
    ids=["nan", "nan-by-files", "constant", "background", "negative", "two-files"],
)
def test_odd_images_have_the_regions_that_pyhrf_finds(
    odd: str, how: str, more: str, python27: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 9).reshape(4, 3, 3).astype(np.float32)
    bold = (1000 + 100 * rng.normal(size=(4, 3, 3, 20))).astype(np.float32)
    bold[3, 0] = 0
    if odd == "nan":
        bold[1, 0, 0, 0] = bold[2, :, :, 3] = np.nan
        labels[0] = np.nan
    elif odd == "constant integers":
        bold = bold.astype(np.int16)
        bold[1, 1] = 7
    elif odd == "another background":
        labels[0] = 7
    elif odd == "negative labels":
        labels -= 1
    make = nib.Nifti1Pair if odd == "two files" else nib.Nifti1Image
    suffix = "img" if odd == "two files" else "nii"
    paths = {"bold": f"{tmp_path}/bold.{suffix}", "mask": f"{tmp_path}/mask.{suffix}"}
    nib.save(make(bold, np.eye(4)), paths["bold"])
    nib.save(make(labels, np.eye(4)), paths["mask"])
    done = subprocess.run(
        [python27, "-c", SIZES % how.format(**paths, more=more)],
        check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=alone(tmp_path),
    )  # fmt: skip
    treatment = PyhrfTreatment.from_xml(tmp_path / "odd.xml", python27)
    assert str(list(treatment.roi_sizes.items())) == done.stdout.splitlines()[-1]
    if odd == "two files":
        names = Subject.of("one", treatment).inputs
        assert {"bold.hdr", "bold.img", "mask.hdr", "mask.img"} <= names.keys()


def test_mcmc(xml_files: Path, real_data: Path, python27: Path, tmp_path: Path) -> None:
    """It does not heed its seed: there is nothing to compare with but that it works."""
    config = write_config(xml_files / "mcmc.xml", real_data, tmp_path)
    treatment = PyhrfTreatment.from_xml(config, python=str(python27))
    assert len(as_jobs({"one": treatment}, tmp_path / "jobs")["one"]) == 2
    made = {path.name for path in (tmp_path / "jobs" / "one").iterdir()}
    assert {"result.pck", "jde_mcmc_hrf_pm.nii"} <= made


DUMP = """
import sys
from pyhrf.xmlio import from_xml
treatment = from_xml(open(sys.argv[1]).read())
treatment.output_dir, treatment.result_dump_file = ".", "./alone.pck.gz"
treatment.output(treatment.execute(), dump_result=True, outputs=False)
"""


def test_a_compressed_result(vem: Path, python27: Path, tmp_path: Path) -> None:
    """Ours and pyhrf's own are read alike."""
    text = vem.read_text()
    start = text.index("<result_dump_file")
    end = "</result_dump_file>"
    dump = f'<result_dump_file pickled_type="c__builtin__##str##p0##.">dump.pck.gz{end}'
    vem.write_text(text[:start] + dump + text[text.index(end) + len(end) :])
    treatment = PyhrfTreatment.from_xml(vem, python=str(python27))
    treatment.set_init_param("make_outputs", False)
    as_jobs({"one": treatment}, tmp_path / "jobs")
    path, provenance = sorted((tmp_path / "jobs" / "one").iterdir())
    assert (path.name, path.read_bytes()[:2]) == ("dump.pck.gz", b"\x1f\x8b")
    assert provenance.name == "dump.pck.gz.provenance.json"
    subprocess.run(
        [python27, "-c", DUMP, vem], check=True, cwd=tmp_path, env=alone(tmp_path), stdout=subprocess.DEVNULL
    )  # fmt: skip
    both = load_results(path), load_results(tmp_path / "alone.pck.gz")
    ours, pyhrfs = ({o["hrf"].data.tobytes() for _, o, _ in found} for found in both)
    assert ours == pyhrfs
    assert len(ours) == 2


def test_two_subjects_and_the_command(
    vem: Path, python27: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    treatments = {name: PyhrfTreatment.from_xml(vem, str(python27)) for name in ("a", "b")}
    for one in treatments.values():
        one.set_init_param("make_outputs", False)
    assert {n: len(r) for n, r in as_jobs(treatments, tmp_path / "jobs").items()} == {
        "a": 2,
        "b": 2,
    }
    assert {p.name for p in (tmp_path / "jobs" / "a").iterdir()} == {
        "result.pck", "result.pck.provenance.json",
    }  # fmt: skip
    argv = ["jde", str(vem), "--output", str(tmp_path / "out"), "--python", str(python27)]
    assert run_command(argv) == 0
    assert "2 regions; 36 files are in" in capsys.readouterr().out
    # What stands in the way of an image costs nothing but the way.
    (tmp_path / "again" / "jde_vem_hrf.nii").mkdir(parents=True)
    argv[argv.index("--output") + 1] = str(tmp_path / "again")
    assert run_command(argv) == 1
    told = capsys.readouterr().err
    assert "jde_vem_hrf.nii" in told
    assert "The run was kept: pyhrf-parallel retry" in told
    (tmp_path / "again" / "jde_vem_hrf.nii").rmdir()
    assert run_command(["collect", "last"]) == 0
    assert len(list((tmp_path / "again").iterdir())) == 36
