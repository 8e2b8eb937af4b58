"""The example script, on simulated and on real data."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "hrf_by_region.py"


@dataclass
class Inputs:
    """The options of one analysis."""

    bold: Path
    parcellation: Path
    events: Path
    tr: float

    def options(self) -> list[str]:
        return [f"--{name}={value}" for name, value in vars(self).items()]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("hrf_by_region_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # the script sets them if unset
            patch.setenv(name, os.environ.get(name, "1"))
        patch.syspath_prepend(SCRIPT.parent)  # as for `python SCRIPT`: it imports its neighbour
        patch.setitem(sys.modules, spec.name, module)  # dataclass looks itself up there
        spec.loader.exec_module(module)
        yield module
    del sys.modules["simulated_run"]


@pytest.fixture(scope="module")
def simulated(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("simulated")
    files, _ = script.simulate_run(folder, script.RESPONSE_LENGTH)
    return Inputs(*files)


def read_output(folder: Path) -> pd.DataFrame:
    hidden = [path.name for path in folder.rglob(".*")]
    assert hidden == []
    assert (folder / "hrf_by_region.png").read_bytes().startswith(b"\x89PNG")
    return pd.read_csv(folder / "hrf_by_region.tsv", sep="\t")


def load(path: Path) -> Any:
    return nib.load(path)  # of a type that has no data


def write_image(path: Path, data: Any, like: Path, affine: Any = None) -> Path:
    nifti: Any = nib.Nifti1Image  # untyped
    image = load(like)
    header = image.header if np.ndim(data) == image.ndim else None
    nib.save(nifti(data, image.affine if affine is None else affine, header), path)
    return path


def test_simulated_run_recovers_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "with space, é"
    # As users run it, and so that the script sets the number of threads before numpy is imported.
    modes = ["serial", "local", "remote_cluster"]
    command = [sys.executable, str(SCRIPT), "--n-jobs=2", "--modes", *modes]
    done = subprocess.run(
        [*command, f"--output={folder}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    printed = done.stdout
    assert "exactly the same responses from: serial, local, remote_cluster" in printed
    assert str(folder / "hrf_by_region.png") in printed
    for name in ["bold.nii.gz", "parcellation.nii.gz", "events.tsv"]:
        assert (folder / "simulated" / name).is_file()
    table = read_output(folder)
    assert table["delay_s"].unique().tolist() == list(range(0, 25, 2))
    correlations = [
        one["response"].corr(one["truth"]) for _, one in table.groupby(["region", "condition"])
    ]
    assert len(correlations) == 12
    assert min(correlations) > 0.9
    assert np.median(correlations) > 0.97
    assert f"median correlation over regions: {np.median(correlations):.3f}" in printed
    errors = ((table["response"] - table["truth"]) / table["standard_error"]).abs()
    assert 0.5 < (errors < 1).mean() < 0.9


@pytest.mark.data
def test_real_run(
    script: ModuleType, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = Inputs(
        real_data / "subj0_bold_session0.nii.gz",
        real_data / "subj0_parcellation.nii.gz",
        real_data / "paradigm_loc_av.csv",
        tr=2.4,
    )
    assert script.main([f"--output={tmp_path}", "--modes=serial", *inputs.options()]) == 0
    printed = capsys.readouterr().out
    assert "header's TR of 1 is a placeholder, using 2.4 s" in printed
    assert "dropped" not in printed
    table = read_output(tmp_path)
    assert dict(zip(table["region"], table["n_voxels"], strict=True)) == {1: 632, 2: 640}
    assert table["condition"].unique().tolist() == ["audio", "video"]
    # Both regions are auditory: the largest response is to sounds, about 5 s after them.
    largest = table.loc[table.groupby("region")["response"].idxmax()]
    assert largest["condition"].tolist() == ["audio", "audio"]
    assert largest["delay_s"].tolist() == [4.8, 4.8]


def shifted(inputs: Inputs, folder: Path) -> Inputs:
    image = load(inputs.parcellation)
    moved = image.affine + np.eye(4, k=3)
    path = folder / "moved.nii.gz"
    return replace(
        inputs, parcellation=write_image(path, image.dataobj, inputs.parcellation, moved)
    )


def cropped(inputs: Inputs, folder: Path) -> Inputs:
    labels = np.asarray(load(inputs.parcellation).dataobj)[:-1]
    path = write_image(folder / "cropped.nii.gz", labels, inputs.parcellation)
    return replace(inputs, parcellation=path)


def one_scan(inputs: Inputs, folder: Path) -> Inputs:
    scan = np.asarray(load(inputs.bold).dataobj)[..., 0]
    return replace(inputs, bold=write_image(folder / "one.nii.gz", scan, inputs.parcellation))


def half_labels(inputs: Inputs, folder: Path) -> Inputs:
    labels = np.asarray(load(inputs.parcellation).dataobj, np.float32) / 2
    path = write_image(folder / "half.nii.gz", labels, inputs.bold)
    return replace(inputs, parcellation=path)


def demeaned(inputs: Inputs, folder: Path) -> Inputs:
    data = np.asarray(load(inputs.bold).dataobj)
    data = data - data.mean(axis=3, keepdims=True) - 1
    return replace(inputs, bold=write_image(folder / "demeaned.nii.gz", data, inputs.bold))


def no_image(inputs: Inputs, folder: Path) -> Inputs:
    (folder / "text.nii.gz").write_text("not an image")
    return replace(inputs, bold=folder / "text.nii.gz")


def truncated(inputs: Inputs, folder: Path) -> Inputs:
    path = folder / "truncated.nii.gz"
    path.write_bytes(inputs.bold.read_bytes()[:100_000])
    return replace(inputs, bold=path)


def with_events(name: str, text: str) -> Any:
    def change(inputs: Inputs, folder: Path) -> Inputs:
        (folder / name).write_text(text)
        return replace(inputs, events=folder / name)

    return change


TITLE = "onset\tduration\ttrial_type\n"
BAD_INPUTS = {
    "wrong TR": (lambda inputs, _: replace(inputs, tr=2.5), r"2\.5 s.*header's TR is 2 s"),
    "no TR": (lambda inputs, _: replace(inputs, tr=-1.0), r"--tr is -1 s"),
    "no file": (lambda inputs, folder: replace(inputs, bold=folder / "no"), r"[Nn]o such file"),
    "other shape": (cropped, r"\(24, 24, 12, 200\).*\(23, 24, 12\)"),
    "other affine": (shifted, "different affines"),
    "3-D BOLD": (one_scan, r"BOLD of shape \(24, 24, 12\)"),
    "labels that are not whole": (half_labels, "not whole numbers"),
    "no usable voxel": (demeaned, "no region has a usable voxel"),
    "not an image": (no_image, "text.nii.gz"),
    "truncated image": (truncated, "."),
    "late onset": (with_events("e.tsv", TITLE + "1\t0\ta\n400\t0\ta"), "400 s.*end at 400 s"),
    "missing columns": (
        with_events("e.tsv", "onset\tname\n1\ta"),
        "no column duration, trial_type",
    ),
    "onset not a number": (with_events("e.tsv", TITLE + "1\t0\ta\nn/a\t0\ta"), "every event needs"),
    "no trial_type": (with_events("e.tsv", TITLE + "1\t0\tn/a"), "every event needs"),
    "no event": (with_events("e.tsv", TITLE), "every event needs"),
    "empty events": (with_events("e.tsv", ""), "No columns"),
    "too few columns": (with_events("e.csv", '0 "a" 1.0'), "session, trial_type, onset, duration"),
    "two sessions": (with_events("e.csv", '0 "a" 1 0\n1 "a" 1 0'), "of one session"),
    "too late to respond": (with_events("e.tsv", TITLE + "390\t0\ta"), "do not determine 24 s"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_input_error(
    script: ModuleType,
    simulated: Inputs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    change, message = BAD_INPUTS[case]
    options = change(simulated, tmp_path).options()
    assert script.main([f"--output={tmp_path / 'output'}", *options]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: .*{message}.*\n", error), error
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("given", range(4))
def test_all_data_options_or_none(
    script: ModuleType,
    simulated: Inputs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: int,
) -> None:
    options = simulated.options()
    assert script.main([f"--output={tmp_path / 'output'}", options[given]]) == 2
    assert "--bold, --parcellation, --events and --tr go together" in capsys.readouterr().err


def test_error_of_the_library(
    script: ModuleType, simulated: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--output={tmp_path / 'output'}", "--n-jobs=0", *simulated.options()]
    assert script.main(options) == 1
    assert re.fullmatch(r"error: n_jobs must be .*\n", capsys.readouterr().err)
    assert not (tmp_path / "output").exists()


def test_bids_and_pyhrf_events_give_the_same_design(script: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    onsets = np.cumsum(rng.uniform(2, 9, size=40)).round(1)
    names = rng.choice(["null", "1 back"], size=40)
    pyhrf, bids = tmp_path / "paradigm.csv", tmp_path / "events.tsv"
    rows = list(zip(names, onsets, strict=True))
    pyhrf.write_text("".join(f'0 "{name}" {onset:f} 0.000000\n' for name, onset in rows))
    bids.write_text(
        "onset\tduration\tresponse_time\ttrial_type\n"
        + "".join(f"{onset}\t0\tn/a\t{name}\n" for name, onset in rows)
    )
    designs = [script.fir_design(script.read_events(path), 150, 2.4) for path in (pyhrf, bids)]
    pd.testing.assert_frame_equal(*designs)
    assert designs[0].columns[[0, 10, 11, 21]].tolist() == [
        "1 back_delay_0",
        "1 back_delay_10",
        "null_delay_0",
        "null_delay_10",
    ]


def test_onset_between_two_scans_counts_for_both(script: ModuleType) -> None:
    events = pd.DataFrame({"onset": [20.0, 71.5], "duration": 0.0, "trial_type": "a"})
    design = script.fir_design(events, 100, 2.0)
    expected = np.zeros(100)
    expected[10] = 1  # at 20 s
    expected[[35, 36]] = 0.25, 0.75  # at 70 s and at 72 s
    np.testing.assert_allclose(design["a_delay_0"], expected, atol=0.02)
    np.testing.assert_allclose(design["a_delay_3"], np.roll(expected, 3), atol=0.02)


def test_unusable_voxels_are_dropped_and_counted(
    script: ModuleType, simulated: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.asarray(load(simulated.bold).dataobj).copy()
    labels = np.asarray(load(simulated.parcellation).dataobj)
    constant, nan, infinite = np.argwhere(labels == 2)[:3]
    data[tuple(constant)] = 7
    data[(*nan, 11)] = np.nan
    data[(*infinite, 12)] = np.inf
    data[labels == 1] = 0
    bold = write_image(tmp_path / "bold.nii.gz", data, simulated.bold)
    inputs = replace(simulated, bold=bold)
    options = [f"--output={tmp_path / 'output'}", "--modes", "serial", *inputs.options()]
    assert script.main(options) == 0
    printed = capsys.readouterr().out
    assert f"note: {np.sum(labels == 1) + 3} voxels dropped" in printed
    assert "note: 1 of 6 regions dropped" in printed
    sizes = read_output(tmp_path / "output").groupby("region")["n_voxels"].first()
    assert sizes.index.tolist() == [2, 3, 4, 5, 6]
    assert sizes[2] == np.sum(labels == 2) - 3


def test_tr_of_the_header_in_milliseconds(
    script: ModuleType, simulated: Inputs, capsys: pytest.CaptureFixture[str]
) -> None:
    bold = load(simulated.bold)
    bold.header.set_xyzt_units("mm", "msec")
    bold.header.set_zooms((3, 3, 3, 2000))
    script.check_tr(bold, 2.0)
    assert capsys.readouterr().out == ""
    with pytest.raises(script.InputError, match=r"2\.4 s.* 2 s"):
        script.check_tr(bold, 2.4)


@pytest.mark.parametrize("placeholder", [0, 1])
def test_placeholder_in_the_header_is_noted(
    script: ModuleType,
    simulated: Inputs,
    capsys: pytest.CaptureFixture[str],
    placeholder: int,
) -> None:
    bold = load(simulated.bold)
    bold.header["pixdim"][4] = placeholder
    script.check_tr(bold, 2.4)
    assert f"TR of {placeholder} is a placeholder, using 2.4 s" in capsys.readouterr().out


def test_disagreement_names_mode_and_region(script: ModuleType) -> None:
    same, other = np.zeros((2, 1, 3)), np.zeros((2, 1, 3))
    other[0, 0, 2] = np.finfo(float).tiny
    estimates = {"serial": [same, same], "local": [same, same], "remote_cluster": [same, other]}
    with pytest.raises(SystemExit, match="serial and remote_cluster disagree on region 8") as exit_:
        script.check_agreement(estimates, [3, 8])
    assert isinstance(exit_.value.code, str)  # which Python prints, exiting with 1


def test_figure_shows_the_biggest_of_many_regions(script: ModuleType) -> None:
    table = pd.DataFrame({"region": np.arange(1, 16).repeat(3), "condition": "a"})
    table["n_voxels"] = 100 - table["region"]
    table = table.assign(delay_s=np.tile([0, 2, 4], 15), response=1.0, standard_error=0.1)
    figure = script.draw(table)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"region {one}, {100 - one} voxels" for one in range(1, 13)]
    assert "the 12 biggest of 15" in figure.get_suptitle()
