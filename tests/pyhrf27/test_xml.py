"""pyhrf's XML, understood without unpickling anything in it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyhrf_parallel import TreatmentDataError, TreatmentError, prepare_treatment_jobs
from pyhrf_parallel.pyhrf27 import PyhrfTreatment, xml_tree
from pyhrf_parallel.pyhrf27.pyhrf_treatment import SCRIPTS
from pyhrf_parallel.treatment_jobs.subject import Subject
from tests.pyhrf27.conftest import write_config

PICKLED = {
    "str": "c__builtin__##str##p0##.",
    "list": "S'list'##p0##.",
    "bool": "c__builtin__##bool##p0##.",
}
VALUES = {
    "int": 5, "int_neg": -7, "int_big": 10**20, "long_big": 10**30, "float_third": 0.333333333333,
    "bool_true": True, "bool_false": False, "none": None, "str": "abc def", "str_None": "None",
    "str_True": "True", "str_double_hash": "a##b", "str_newline": "l1\nl2", "str_nonascii": "é",
    "str_markup": '<a href="x">&amp;</a>', "unicode_ascii": "abc", "list_nested": [[1, 2], [], [[3.5]]],
    "list_12_items": [*range(12)], "tuple_one": ["x"], "list_empty": [],
}  # fmt: skip


def test_values(xml_files: Path) -> None:
    for name, expected in VALUES.items():
        root = xml_tree.parse((xml_files / "values" / f"xmlio_{name}.xml").read_text("utf-8"))
        assert xml_tree.value(root) == expected, name


def test_every_file_is_read_or_refused(xml_files: Path) -> None:
    refused = []
    for path in sorted((xml_files / "values").iterdir()):
        try:
            root = xml_tree.parse(path.read_text("utf-8"))
            assert xml_tree.kind(root)
        except TreatmentDataError:
            refused.append(path.stem)
    assert refused == ["xmlio_dict_key_digit", "xmlio_dict_key_markup", "xmlio_dict_key_space"]


@pytest.mark.parametrize("name", ["vem", "mcmc", "mcmc_pretty", "rfir"])
def test_treatments(name: str, xml_files: Path, real_data: Path, tmp_path: Path) -> None:
    treatment = PyhrfTreatment.from_xml(
        write_config(xml_files / f"{name}.xml", real_data, tmp_path)
    )
    files = [Path(path).name for path in treatment.get_data_files()]
    assert files == [
        "subj0_parcellation.nii.gz", "subj0_bold_session0.nii.gz", *(path.name for path in SCRIPTS),
    ]  # fmt: skip
    assert treatment.roi_sizes == {2: 640, 1: 632}
    assert treatment.tr == 2.4
    assert treatment.roi_shapes() == [(125, 640), (125, 632)]
    assert treatment.dump_roi_datasets(dry=True, output_dir="/x") == (
        ["/x/roidata_0002.pck", "/x/roidata_0001.pck"], [2, 1],
    )  # fmt: skip


def test_relative_paths_are_those_of_the_file(
    xml_files: Path, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cfg.xml"
    path.write_text((xml_files / "vem_relative_paths.xml").read_text())
    for name in ("subj0_parcellation.nii.gz", "subj0_bold_session0.nii.gz"):
        (tmp_path / name).symlink_to(real_data / name)
    monkeypatch.chdir("/")
    assert PyhrfTreatment.from_xml(path).roi_sizes == {2: 640, 1: 632}


def test_what_is_sent(vem: Path) -> None:
    treatment = PyhrfTreatment.from_xml(vem, python="/opt/py27/bin/python")
    before = treatment.to_xml()
    subject = Subject.of("one", treatment)
    assert treatment.to_xml() == before
    assert subject.commands.split == ["/opt/py27/bin/python", "split_roidata.py"]
    assert subject.commands.estimate == ["/opt/py27/bin/pyhrf_jde_estim"]
    assert subject.commands.output[1:] == [
        "make_outputs.py",
        "treatment.xml",
        "result.pck",
        "outputs.tar",
    ]
    sent = xml_tree.parse(subject.xml)
    assert [e.text for _, e in xml_tree.texts(sent.find("fmri_data"))] == [  # type: ignore[arg-type]
        "./subj0_parcellation.nii.gz", "./subj0_bold_session0.nii.gz",
    ]  # fmt: skip
    assert sent.findtext("make_outputs") == "False"


def test_names_that_python_2_cannot_write(vem: Path, real_data: Path, tmp_path: Path) -> None:
    for name in ("subj0_parcellation.nii.gz", "subj0_bold_session0.nii.gz"):
        (tmp_path / f"ü {name}").symlink_to(real_data / name)
        vem.write_text(vem.read_text().replace(str(real_data / name), str(tmp_path / f"ü {name}")))
    subject = Subject.of("one", PyhrfTreatment.from_xml(vem))
    assert list(subject.inputs)[0] == "_ subj0_parcellation.nii.gz"  # noqa: RUF015
    assert "./_ subj0_parcellation.nii.gz" in subject.xml


def test_outputs_are_made_where_nothing_is_said(vem: Path) -> None:
    text = vem.read_text()
    start, stop = text.index("<make_outputs"), text.index("</make_outputs>")
    vem.write_text(text[:start] + text[stop + len("</make_outputs>") :])
    subject = Subject.of("one", PyhrfTreatment.from_xml(vem))
    assert subject.commands.output
    sent = xml_tree.parse(subject.xml).find("make_outputs")
    assert sent is not None
    assert xml_tree.value(sent) is False


def test_other_files_have_other_regions(vem: Path, real_data: Path, tmp_path: Path) -> None:
    treatment = PyhrfTreatment.from_xml(vem)
    assert len(treatment.roi_sizes) == 2
    mask = nib.load(real_data / "subj0_parcellation.nii.gz")
    one = (np.asanyarray(mask.dataobj) == 1).astype(np.int16)
    nib.save(nib.Nifti1Image(one, mask.affine), tmp_path / "one.nii")
    paths = {path: path for path in treatment.get_data_files()}
    paths[str(real_data / "subj0_parcellation.nii.gz")] = str(tmp_path / "one.nii")
    treatment.replace_data_files(paths)
    assert treatment.roi_sizes == {1: 632}


def test_jobs_for_a_workflow_of_ones_own(vem: Path, tmp_path: Path) -> None:
    treatment = PyhrfTreatment.from_xml(vem, python="/opt/py27/bin/python")
    place = tmp_path / "place"
    place.mkdir()
    split, jobs, _, _ = prepare_treatment_jobs(
        treatment, tmp_path, tmp_path, "me", "laptop", None, None, str(place), "LABEL"
    )
    assert split.command[:2] == ["/opt/py27/bin/python", "split_roidata.py"]
    assert jobs[0].command[0] == "/opt/py27/bin/pyhrf_jde_estim"


def test_a_list_of_bold_files(vem: Path, real_data: Path) -> None:
    text = vem.read_text()
    bold = str(real_data / "subj0_bold_session0.nii.gz")
    start = text.index("<bold_file")
    stop = text.index("</bold_file>") + len("</bold_file>")
    item = f'<item0 pickled_type="{PICKLED["str"]}">{bold}</item0>'
    listed = f'<bold_file pickled_type="{PICKLED["list"]}">{item}</bold_file>'
    vem.write_text(text[:start] + listed + text[stop:])
    treatment = PyhrfTreatment.from_xml(vem)
    assert bold in treatment.get_data_files()
    assert treatment.roi_shapes()[0] == (125, 640)


def test_labels_as_pyhrf_takes_them(vem: Path, real_data: Path, tmp_path: Path) -> None:
    """From -1 on, and without voxels where nothing was measured."""
    image = nib.load(real_data / "subj0_parcellation.nii.gz")
    bold = nib.load(real_data / "subj0_bold_session0.nii.gz")
    labels = np.asanyarray(image.dataobj).astype(np.int16) - 1
    data = np.asanyarray(bold.dataobj).copy()
    dead = np.argwhere(labels == 1)[:30]
    data[tuple(dead.T)] = 0
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(data, bold.affine), tmp_path / "bold.nii.gz")
    text = vem.read_text()
    text = text.replace(str(real_data / "subj0_parcellation.nii.gz"), str(tmp_path / "mask.nii.gz"))
    vem.write_text(
        text.replace(str(real_data / "subj0_bold_session0.nii.gz"), str(tmp_path / "bold.nii.gz"))
    )
    assert PyhrfTreatment.from_xml(vem).roi_sizes == {1: 632, 2: 610}


@pytest.mark.parametrize("missing", ["parcellation", "bold_session0"])
def test_a_file_that_is_missing(missing: str, vem: Path) -> None:
    """Without its mask, pyhrf would compute another one, and say nothing."""
    vem.write_text(vem.read_text().replace(f"subj0_{missing}", "gone"))
    with pytest.raises(TreatmentDataError, match=r"there is no file .*gone\.nii\.gz"):
        Subject.of("one", PyhrfTreatment.from_xml(vem))


def test_a_simulation(vem: Path) -> None:
    text = vem.read_text().replace("from_vol_ui", "from_simu_ui")
    vem.write_text(text)
    with pytest.raises(TreatmentDataError, match=r"vem\.xml: its data are a simulation"):
        PyhrfTreatment.from_xml(vem)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no XML of pyhrf"),
        ("<a>", "no XML of pyhrf"),
        ("<a/>", "does not say what it is"),
        (f'<a pickled_type="{PICKLED["str"]}">x</a>', "no treatment of pyhrf"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declarations"),
        ('<?xml version="1.0" encoding="rot13"?><n/>', "said to be rot13"),
    ],
)
def test_anything_else(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(TreatmentDataError, match=told):
        PyhrfTreatment.from_xml(tmp_path / "x.xml")
    with pytest.raises(TreatmentDataError, match="cannot be read"):
        PyhrfTreatment.from_xml(tmp_path / "none.xml")


def test_elements_in_elements(vem: Path) -> None:
    """What copies them would run out of stack."""
    opening = f'<x pickled_type="{PICKLED["list"]}">'
    text = vem.read_text()
    for depth in (50, 200, 200_000):
        nested = opening * depth + "</x>" * depth
        vem.write_text(text.replace("<analyser", nested + "<analyser"))
        if depth == 50:
            Subject.of("one", PyhrfTreatment.from_xml(vem))
            continue
        with pytest.raises(TreatmentDataError, match="not nested deeper than 100"):
            PyhrfTreatment.from_xml(vem)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_xml_is_refused_or_read(vem: Path, data: st.DataObject) -> None:
    text = vem.read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 200))
    damaged = text[:place] + data.draw(st.text(max_size=8)) + text[place + length :]
    path = vem.with_name("damaged.xml")
    path.write_text(damaged, encoding="utf-8", errors="surrogatepass")
    try:
        Subject.of("one", PyhrfTreatment.from_xml(path))
    except (TreatmentDataError, TreatmentError):
        pass
    except ValueError as error:
        assert "make_outputs" in str(error)  # noqa: PT017
