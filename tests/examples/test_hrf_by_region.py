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
    assert "dropped" not in printed
    table = read_output(tmp_path)
    assert dict(zip(table["region"], table["n_voxels"], strict=True)) == {1: 632, 2: 640}
    assert table["condition"].unique().tolist() == ["audio", "video"]
    # Both regions are auditory: the largest response is to sounds, about 5 s after them.
    largest = table.loc[table.groupby("region")["response"].idxmax()]
    assert largest["condition"].tolist() == ["audio", "audio"]
    assert largest["delay_s"].tolist() == [4.8, 4.8]


def test_data_that_do_not_fit(
    script: ModuleType, simulated: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(simulated, tr=2.5).options()
    assert script.main([f"--output={tmp_path / 'output'}", *options]) == 1
    assert re.fullmatch(r"error: .*TR of 2 s, and 2\.5 s was given\n", capsys.readouterr().err)
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


def test_dropped_voxels_are_told(
    script: ModuleType, simulated: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image: Any = nib.load(simulated.bold)
    data = np.asarray(image.dataobj).copy()
    labels = np.asarray(nib.load(simulated.parcellation).dataobj)
    data[labels == 1] = 0
    nib.save(nib.Nifti1Image(data, image.affine, image.header), tmp_path / "bold.nii.gz")
    inputs = replace(simulated, bold=tmp_path / "bold.nii.gz")
    options = [f"--output={tmp_path / 'output'}", "--modes", "serial", *inputs.options()]
    assert script.main(options) == 0
    assert f"note: {np.sum(labels == 1)} voxels dropped" in capsys.readouterr().out
    sizes = read_output(tmp_path / "output").groupby("region")["n_voxels"].first()
    assert sizes.index.tolist() == [2, 3, 4, 5, 6]


def test_disagreement_names_mode_and_region(script: ModuleType) -> None:
    same = pd.DataFrame({"response": np.zeros(3)})
    other = same.copy()
    other.loc[2, "response"] = np.finfo(float).tiny
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
