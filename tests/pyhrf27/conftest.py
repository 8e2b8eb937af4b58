"""XML of pyhrf, the data that it is about, and pyhrf itself."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import ROOT, missing
from tests.pyhrf27.environment import CannotBuildError, find_pyhrf27


@pytest.fixture
def xml_files() -> Path:
    """The directory of XML that pyhrf has written."""
    path = Path(os.environ.get("PYHRF_PARALLEL_XML", ROOT.parent / "shared" / "pyhrf-xml"))
    if not (path / "vem.xml").exists():
        missing("data", f"no XML of pyhrf in {path} (set PYHRF_PARALLEL_XML)")
    return path


def write_config(xml: Path, data: Path, place: Path) -> Path:
    """Write one of the configurations, with the paths of the data that are here."""
    text = xml.read_text()
    for name in ("subj0_parcellation.nii.gz", "subj0_bold_session0.nii.gz"):
        before, _, after = text.partition(name)
        while after:
            text = before[: before.rindex(">") + 1] + str(data / name) + after
            before, _, after = (text, "", "")
    path = place / xml.name
    path.write_text(text)
    return path


@pytest.fixture
def vem(xml_files: Path, real_data: Path, tmp_path: Path) -> Path:
    """A configuration of VEM with three iterations, on the real data."""
    return write_config(xml_files / "vem.xml", real_data, tmp_path)


@pytest.fixture
def crashing(vem: Path, real_data: Path, tmp_path: Path) -> Path:
    """A configuration with a region whose analysis crashes: pyhrf exits with 0 then, and hides it."""
    image = nib.load(real_data / "subj0_bold_session0.nii.gz")
    labels = np.asanyarray(nib.load(real_data / "subj0_parcellation.nii.gz").dataobj)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    data[labels == 1] = np.inf
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "bold.nii")
    text = vem.read_text()
    vem.write_text(
        text.replace(str(real_data / "subj0_bold_session0.nii.gz"), str(tmp_path / "bold.nii"))
    )
    return vem


@pytest.fixture(scope="session")
def python27() -> Path:
    """The Python 2.7 that has pyhrf."""
    try:
        return find_pyhrf27()
    except CannotBuildError as error:
        missing("pyhrf27", str(error))
        raise
