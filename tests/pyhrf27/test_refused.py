"""What a configuration may not make pyhrf run, and where that is found out: before pyhrf gets it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyhrf_parallel import TreatmentDataError, TreatmentError, submit_treatments
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.pyhrf27 import PyhrfTreatment, allowed, names, xml_tree
from pyhrf_parallel.pyhrf27.pyhrf_treatment import CHECK_SCRIPT
from pyhrf_parallel.treatment_jobs.subject import Subject
from tests.conftest import missing

STR, ANALYSER = "c__builtin__##str##p0##.", "cpyhrf.ui.vb_jde_analyser##JDEVEMAnalyser##p0##."
STATIC = (
    "ccopy_reg##_reconstructor##p0##(cpyhrf.tools.misc##PickleableStaticMethod##p1##c__builtin__##object##p2##Ntp3"
    "##Rp4##(c{}##p5##S'{}'##p6##tp7##b."
)
OPENING = '<make_outputs pickled_type="c__builtin__##bool##p0##."'


def change(old: str, new: str) -> Callable[[str], str]:
    """Return a change of a text that has to change it."""

    def changed(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return changed


def as_type(pickled: str) -> Callable[[str], str]:
    return change(OPENING, f'<make_outputs pickled_type="{pickled}"')


def as_maker(pickled: str) -> Callable[[str], str]:
    return change(ANALYSER, pickled)


EVIL = {
    "type": (as_type("cos##system##p0##."), r"<make_outputs> asks for os\.system"),
    "call": (as_type("cos##system##p0##(S'id'##tR."), r"asks for os\.system, id"),
    "call of a builtin": (as_type("c__builtin__##eval##p0##."), r"asks for __builtin__\.eval"),
    "file": (as_type("c__builtin__##file##p0##."), r"__builtin__\.file"),
    "instance": (as_type("(S'id'##ios##system##p0##."), r"os\.system"),
    "word": (as_type("S'anything'##p0##."), "asks for anything"),
    "protocol 2": (as_type("&#x80;.".replace("&#x80;", "é")), "damaged attribute"),
    "maker": (as_maker("csubprocess##call##p0##."), r"<analyser> asks for subprocess\.call"),
    "of pyhrf, and no class": (as_maker("cpyhrf.ui.treatment##os##p0##."), r"pyhrf\.ui\.treatment\.os"),
    "beside a class": (change(f'"{ANALYSER}"', f'"{ANALYSER}" {OPENING[14:].replace("bool", "eval")}'), "no XML"),
    "another class": (as_maker("cmine##Analyser##p0##."), r"asks for mine\.Analyser"),
    "a call after the class": (as_maker(ANALYSER[:-1] + "cos##system##(S'id'##tR."), r"os\.system"),
    "static method": (as_maker(STATIC.format("pyhrf.core##FmriData", "save")), "asks for .*save"),
    "static method of another": (as_maker(STATIC.format("os##path", "from_vol_ui")), r"os\.path"),
    "another attribute": (change("<tr ", '<tr type="x" '), "has an attribute 'type'"),
    "old format": (change("<tr ", '<tr pythonXMLHandlerModule="x" '), "pythonXMLHandlerModule"),
    "a simulation": (change("FMRISessionVolumicData", "FMRISessionSimulationData"), "are a simulation"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_what_is_refused_is_named(
    name: str, vem: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, told = EVIL[name]
    vem.write_text(changed(vem.read_text()), encoding="utf-8")
    with pytest.raises(TreatmentDataError, match=told) as caught:
        PyhrfTreatment.from_xml(vem)
    assert str(caught.value).startswith(f"{vem}: ")
    out = tmp_path / "out"
    assert run_command(["jde", str(vem), "--output", str(out), "--python", "/no/python"]) == 1
    assert str(caught.value) in capsys.readouterr().err
    assert not out.exists()


def with_contrast(text: str) -> Callable[[str], str]:
    """Return a change that adds a contrast to the analysis."""

    def changed(xml: str) -> str:
        start = xml.index("<contrasts")
        stop = xml.index("</contrasts>") if "</contrasts>" in xml else xml.index("/>", start)
        head = xml[start : xml.index(">", start) + 1].replace("/>", ">")
        rest = xml[stop + len("</contrasts>") :] if "</contrasts>" in xml else xml[stop + 2 :]
        return f'{xml[:start]}{head}<c pickled_type="{STR}">{text}</c></contrasts>{rest}'

    return changed


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')", "audio.__class__", "exit()", "exit ()", "audio - (lambda: 1)()",
        "[1][0]", "`1`", "1 # coding: rot13", "audio -\nvideo", "(audio)(video)",
        "a" * 200 + "!", "1" * 200 + "!",
    ],
)  # fmt: skip
def test_contrasts_are_sums(text: str, vem: Path) -> None:
    """pyhrf evaluates them as Python."""
    vem.write_text(with_contrast(text)(vem.read_text()))
    with pytest.raises(TreatmentDataError, match="the contrast 'c' is no sum of conditions"):
        PyhrfTreatment.from_xml(vem)


@pytest.mark.parametrize(
    "text",
    [
        "audio - video",
        "0.5 * audio - .5e0*video",
        "3*audio-video/3",
        "-(audio + video) / 2",
        "audio ** 2",
        "",
    ],
)
def test_contrasts_that_are_sums(text: str, vem: Path) -> None:
    vem.write_text(with_contrast(text)(vem.read_text()))
    assert PyhrfTreatment.from_xml(vem).roi_sizes


def test_an_image_that_is_read_in_an_analysis() -> None:
    """What its header says, pyhrf runs; nobody has looked at it."""
    root = xml_tree.parse(
        f'<a pickled_type="S\'dict\'##p0##."><rescale_factor_file pickled_type="{STR}">x</rescale_factor_file></a>'
    )
    with pytest.raises(TreatmentDataError, match="names an image that is not sent"):
        allowed.check(root)


@pytest.mark.parametrize("prefix", ["/tmp/elsewhere_", "../", "a/b"])
def test_a_prefix_is_no_path(prefix: str) -> None:
    """pyhrf writes there, and reads XML of a file that is called so."""
    root = xml_tree.parse(
        f'<a pickled_type="S\'dict\'##p0##."><outputPrefix pickled_type="{STR}">{prefix}</outputPrefix></a>'
    )
    with pytest.raises(TreatmentDataError, match="<outputPrefix> is the beginning of names"):
        allowed.check(root)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('<a pickled_type="cos##system##p0##.">id</a>', r"os\.system"),
        (
            '<?xml version="1.0" encoding="rot13"?><n cvpxyrq_glcr="pbf##flfgrz##c0##.">vq</n>',
            "rot13",
        ),
        ("<!DOCTYPE a><a/>", "declarations"),
        ("a < b", "no XML of pyhrf"),
    ],
)
def test_the_header_of_an_image(
    content: str, told: str, vem: Path, real_data: Path, tmp_path: Path
) -> None:
    """pyhrf keeps XML there, and reads it like a configuration."""
    mask = nib.load(real_data / "subj0_parcellation.nii.gz")
    image = nib.Nifti1Image(np.asanyarray(mask.dataobj), mask.affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", content.encode()))
    nib.save(image, tmp_path / "mask.nii")
    old = str(real_data / "subj0_parcellation.nii.gz")
    vem.write_text(vem.read_text().replace(old, str(tmp_path / "mask.nii")))
    with pytest.raises(TreatmentDataError, match=rf"the header of .*mask\.nii has XML .*{told}"):
        Subject.of("one", PyhrfTreatment.from_xml(vem))


def test_a_header_that_pyhrf_has_written(vem: Path, real_data: Path, tmp_path: Path) -> None:
    mask = nib.load(real_data / "subj0_parcellation.nii.gz")
    image = nib.Nifti1Image(np.asanyarray(mask.dataobj), mask.affine)
    content = (
        b'<?xml version="1.0" ?>\n<anonym pickled_type="S\'dict\'##p0##."><value_label '
        b'pickled_type="c__builtin__##str##p0##.">intensity</value_label></anonym>'
    )
    for told in (b"a remark", content):
        image.header.extensions[:] = [nib.nifti1.Nifti1Extension("comment", told)]
        nib.save(image, tmp_path / "mask.nii")
        old = str(real_data / "subj0_parcellation.nii.gz")
        vem.write_text(vem.read_text().replace(old, str(tmp_path / "mask.nii")))
        assert PyhrfTreatment.from_xml(vem).roi_sizes == {2: 640, 1: 632}


def test_comments_are_none_of_pyhrfs_business(vem: Path) -> None:
    """Its reader takes them for values: they are left out of what it gets."""
    text = vem.read_text()
    vem.write_text(text.replace("<tr ", "<!-- <!ENTITY is no entity here --><tr "))
    assert PyhrfTreatment.from_xml(vem).to_xml() == PyhrfTreatment.from_xml(vem).to_xml()
    assert "<!" not in PyhrfTreatment.from_xml(vem).to_xml()


def test_what_pyhrf_cannot_read(vem: Path) -> None:
    """Where it is to write is no affair of its own: that may be any name."""
    text = vem.read_text()
    start = text.index(">", text.index("<output_dir")) + 1
    stop = text.index("</output_dir>")
    vem.write_text(f"{text[:start]}/données{text[stop:]}", encoding="utf-8")
    sent = xml_tree.parse(Subject.of("one", PyhrfTreatment.from_xml(vem)).xml)
    assert sent.findtext("output_dir") == "./"
    vem.write_text(
        text.replace("<audio ", "<fusée ").replace("</audio>", "</fusée>"), encoding="utf-8"
    )
    with pytest.raises(TreatmentDataError, match="<fusée>: pyhrf reads ASCII only"):
        Subject.of("one", PyhrfTreatment.from_xml(vem))


FIND = """
import importlib, pkgutil, pyhrf
from pyhrf.xmlio import Initable
for _, name, _ in pkgutil.walk_packages(pyhrf.__path__, "pyhrf."):
    if ".test" not in name:
        importlib.import_module(name)
def below(kind):
    for one in kind.__subclasses__():
        if ".test" not in one.__module__:
            print("CLASS %s.%s" % (one.__module__, one.__name__))
        below(one)
below(Initable)
"""


@pytest.mark.pyhrf27
@pytest.mark.timeout(900)  # it may have to be built
def test_the_list_has_the_classes_of_pyhrf(python27: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python27, "-c", FIND], cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )  # fmt: skip
    found = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("CLASS ")}
    assert found - names.CLASSES == {
        "pyhrf.core.FMRISessionSimulationData", "pyhrf.jde.nrl.gammagaussian.InhomogeneousNRLSampler",
    }  # fmt: skip
    assert found >= names.CLASSES


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("/no/python2.7", "there is no program '/no/python2.7'"),
        ("/bin/false", "/bin/false ended with status 1"),
        (sys.executable, r"is Python 3.*: name the Python 2\.7 that has pyhrf"),
    ],
)
def test_a_wrong_python_is_told_once_and_before_anything_runs(
    named: str, told: str, vem: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_command(["jde", str(vem), "--output", str(out), "--python", named]) == 1
    said = capsys.readouterr().err
    assert re.search(f"treatment 'vem' cannot run on this machine: .*{told}", said)
    assert len(said.splitlines()) == 1
    assert not out.exists()
    assert run_command(["runs"]) == 0
    assert "There are no runs" in capsys.readouterr().out


@pytest.mark.pyhrf27
@pytest.mark.timeout(900)  # it may have to be built
def test_a_python_without_pyhrf(python27: Path, vem: Path, tmp_path: Path) -> None:
    bare = python27.parents[2] / "python" / "bin" / "python2.7"
    if not bare.exists():
        missing("pyhrf27", f"no Python without pyhrf beside {python27}")
    treatments = {name: PyhrfTreatment.from_xml(vem, bare) for name in "ab"}
    with pytest.raises(
        TreatmentError, match=r"cannot run on this machine: .* has no pyhrf"
    ) as caught:
        submit_treatments(treatments, {name: tmp_path / name for name in treatments})
    assert str(caught.value).count("has no pyhrf") == 1
    # And one that pyhrf was taken out of in part.
    command = [str(python27), "-c", CHECK_SCRIPT.read_text(), "/no/pyhrf_jde_estimate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "there is neither /no/pyhrf_jde_estimate nor " in done.stderr
