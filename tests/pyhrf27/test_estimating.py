"""Regions analysed by a program, in forks of a process that has imported pyhrf."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pyhrf_parallel import TreatmentError
from pyhrf_parallel.pyhrf27.pyhrf_treatment import ESTIMATION_SCRIPT
from pyhrf_parallel.pyhrf27.region_server import EstimateByPyhrf

pytestmark = [pytest.mark.pyhrf27, pytest.mark.timeout(900)]  # it may have to be built

# What becomes of a region is in the name of its file.
PROGRAM = """#!/usr/bin/env python
import os, random, sys, time
import numpy
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert (words["-c"], words["-v"], __name__) == ("treatment.xml", "30", "__main__")
assert sys.stdin.read() == ""
if "crash" in words["-r"]:
    raise ValueError("no such thing as %s" % words["-r"])
if "killed" in words["-r"]:
    os.kill(os.getpid(), 9)
if "slow" in words["-r"]:
    print("I am %d" % os.getpid())
    sys.stdout.flush()
    time.sleep(60)
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
    estimate("roidata_0001.pck")
    assert Path("result_0001.pck").exists()


def in_a_worker(estimate: EstimateByPyhrf, region: str) -> int:
    """Analyse a region in another process; return its exit status."""
    pid = os.fork()
    if pid == 0:
        estimate(region)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_region_that_is_killed_takes_its_worker_along(estimate: EstimateByPyhrf) -> None:
    """Whoever has started that may want to try again, with more memory."""
    assert in_a_worker(estimate, "roidata_killed.pck") == -signal.SIGKILL


def test_a_process_that_was_killed_while_it_waited(estimate: EstimateByPyhrf) -> None:
    estimate("roidata_0001.pck")
    os.kill(int(Path("result_0001.pck").read_text().split()[0]), signal.SIGKILL)
    time.sleep(0.2)
    estimate("roidata_0002.pck")
    assert Path("result_0002.pck").exists()


def test_nothing_goes_on_without_its_worker(
    estimate: EstimateByPyhrf, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = os.fork()
    if pid == 0:
        estimate("roidata_slow.pck")
    said = ""
    while "I am" not in said:
        said += capfd.readouterr().err
        time.sleep(0.05)
    region = psutil.Process(int(said.split("I am")[1].split()[0]))
    server = region.parent()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    gone, alive = psutil.wait_procs([region, *filter(None, [server])], timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert gone or alive


def test_a_script_that_starts_python_and_talks(
    estimate: EstimateByPyhrf, python27: Path, tmp_path: Path
) -> None:
    """As a module system does; pyhrf's programs are beside the Python that it starts."""
    (tmp_path / "python").write_text(f'#!/bin/sh\necho Loading; echo 0\nexec {python27} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    server = [str(tmp_path / "python"), str(ESTIMATION_SCRIPT)]
    talking = EstimateByPyhrf(server, str(tmp_path / "it's a program é"))
    for name in ("roidata_0001.pck", "roidata_0002.pck"):
        talking(name)
    talking.close()
    assert Path("result_0002.pck").exists()
    elsewhere = EstimateByPyhrf(server, str(tmp_path / "bin" / "pyhrf_jde_estim"))
    with pytest.raises(TreatmentError, match="ended with exit status"):  # it wants a configuration
        elsewhere("roidata_0001.pck")
    elsewhere.close()


def test_a_program_that_is_no_python(estimate: EstimateByPyhrf, tmp_path: Path) -> None:
    """Such as one that starts pyhrf in a container."""
    (tmp_path / "it's a program é").write_text('#!/bin/sh\necho "$@" > result_0001.pck\n')
    estimate("roidata_0001.pck")
    assert Path("result_0001.pck").read_text() == "-c treatment.xml -r roidata_0001.pck -v 30\n"


def test_no_pyhrf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(TreatmentError, match=r"python x\.py ended with exit status 7"):
        EstimateByPyhrf([str(tmp_path / "python"), "x.py"], "true")("roidata_0001.pck")
    with pytest.raises(FileNotFoundError, match="no program '/no/python'"):
        EstimateByPyhrf(["/no/python", "x.py"], "true")("roidata_0001.pck")
