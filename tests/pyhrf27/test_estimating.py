"""Regions analysed by a program, in forks of a process that has imported pyhrf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyhrf_parallel import TreatmentError
from pyhrf_parallel.pyhrf27.estimating import EstimateByPyhrf
from pyhrf_parallel.pyhrf27.treatment import ESTIMATION_SCRIPT

pytestmark = [pytest.mark.pyhrf27, pytest.mark.timeout(900)]  # it may have to be built

# What becomes of a region is in the name of its file.
PROGRAM = """#!/usr/bin/env python
import os, random, sys
import numpy
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert (words["-c"], words["-v"], __name__) == ("treatment.xml", "30", "__main__")
assert sys.stdin.read() == ""
if "crash" in words["-r"]:
    raise ValueError("no such thing as %s" % words["-r"])
if "killed" in words["-r"]:
    os.kill(os.getpid(), 9)
if "gone" in words["-r"]:
    os.kill(os.getppid(), 9)
print("on stdout")
with open(words["-r"].replace("roidata", "result"), "w") as file:
    file.write("%d %r %r" % (os.getppid(), random.random(), numpy.random.rand()))
"""


@pytest.fixture
def estimate(
    python27: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EstimateByPyhrf]:
    """An estimator with a program of the test's own, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "it's a program é"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    made = EstimateByPyhrf([str(python27), str(ESTIMATION_SCRIPT)], str(program))
    yield made
    made.close()


def test_one_process_and_random_numbers_of_their_own(
    estimate: EstimateByPyhrf, capfd: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name in ("roidata_0001.pck", "roidata_0002.pck", "roidata_0001.pck"):
        estimate(name)
        found.append(Path(name.replace("roidata", "result")).read_text().split())
    servers, *numbers = zip(*found, strict=True)
    assert len(set(servers)) == 1
    assert [len(set(column)) for column in numbers] == [3, 3]
    out, err = capfd.readouterr()
    assert (out, err.count("on stdout")) == ("", 3)


def test_what_fails_fails_alone(
    estimate: EstimateByPyhrf, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("result_crash.pck").write_text("of an earlier attempt")
    with pytest.raises(TreatmentError, match="a program é ended with exit status 1"):
        estimate("roidata_crash.pck")
    assert "ValueError: no such thing as roidata_crash.pck" in capfd.readouterr().err
    assert not Path("result_crash.pck").exists()
    with pytest.raises(TreatmentError, match="signal 9"):
        estimate("roidata_killed.pck")
    with pytest.raises(TreatmentError, match=r"python ended with signal 9"):
        estimate("roidata_gone.pck")
    estimate("roidata_0001.pck")
    assert Path("result_0001.pck").exists()


def test_a_program_that_is_no_python(estimate: EstimateByPyhrf, tmp_path: Path) -> None:
    """Such as one that starts pyhrf in a container."""
    (tmp_path / "it's a program é").write_text('#!/bin/sh\necho "$@" > result_0001.pck\nexit 3\n')
    with pytest.raises(TreatmentError, match="exit status 3"):
        estimate("roidata_0001.pck")
    assert Path("result_0001.pck").read_text() == "-c treatment.xml -r roidata_0001.pck -v 30\n"


def test_no_pyhrf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(TreatmentError, match="python ended with exit status 7"):
        EstimateByPyhrf([str(tmp_path / "python"), "x.py"], "true")("roidata_0001.pck")
    with pytest.raises(FileNotFoundError, match="no program 'pyhrf_not_there'"):
        EstimateByPyhrf([str(tmp_path / "python"), "x.py"], "pyhrf_not_there")("roidata_0001.pck")
