"""Treatments as jobs of this machine: the real engine, real commands."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import (
    TransferError,
    TreatmentError,
    TreatmentRun,
    prepare_treatment_jobs,
    run_soma_workflow,
    submit_treatments,
)
from pyhrf_parallel.commands.cli import run as run_command
from tests.conftest import ROOT
from tests.treatment_jobs.conftest import ESTIMATE, SPLIT, means, processes_in, run_here, table

pytestmark = pytest.mark.usefixtures("home")


def script(path: Path, body: str) -> list[str]:
    """Return a command that does something before it analyses a region, whose number is NUMBER."""
    path.write_text(
        "import os, signal, subprocess, sys, time\n"
        "region = sys.argv[sys.argv.index('-r') + 1]\n"
        "number = int(region[8:12])\n"
        f"{body}\n"
        f"sys.exit(subprocess.run({ESTIMATE!r} + sys.argv[1:]).returncode)\n"
    )
    return [sys.executable, str(path)]


def files(place: Path) -> list[str]:
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())


class TestResults:
    @pytest.mark.parametrize("rois_per_job", [None, 1, 2])
    def test_one_treatment(self, tmp_path: Path, rois_per_job: int | None) -> None:
        results = run_here({"one": table(tmp_path, 5)}, tmp_path / "out", rois_per_job=rois_per_job)
        assert means(results) == [1, 2, 3, 4, 5]
        assert pickle.loads((tmp_path / "out" / "one" / "result.pck").read_bytes()) == results
        assert files(tmp_path / "out") == ["one/result.pck"]

    def test_of_the_last_treatment_or_of_all(self, tmp_path: Path) -> None:
        treatments = {"a": table(tmp_path / "a", 2), "b": table(tmp_path / "b", 3)}
        assert means(run_here(treatments, tmp_path / "out")) == [1, 2, 3]
        everything = run_here(treatments, tmp_path / "out", return_all=True)
        assert {name: means(found) for name, found in everything.items()} == {
            "a": [1, 2], "b": [1, 2, 3],
        }  # fmt: skip

    def test_a_name_of_the_result_file(self, tmp_path: Path) -> None:
        treatment = table(tmp_path, 1)
        treatment.result_dump_file = "/elsewhere/mine.pck"
        run_here({"one": treatment}, tmp_path / "out")
        assert files(tmp_path / "out") == ["one/mine.pck"]

    def test_without_waiting(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("empty", "full"):
            (tmp_path / name).mkdir()
        (tmp_path / "full" / "mine").write_text("mine")
        treatments = {"empty": table(tmp_path / "a", 2), "full": table(tmp_path / "b", 2)}
        temporary = {name: tmp_path / name for name in treatments}
        found = run_here(treatments, tmp_path / "out", wait_ending=False, tmp_local_dirs=temporary)
        assert found == []
        assert not (tmp_path / "empty").exists()
        assert (tmp_path / "full" / "mine").read_text() == "mine"
        assert run_command(["collect", "last"]) == 0
        assert "empty: 2 regions, 0 failed" in capsys.readouterr().out
        assert files(tmp_path / "out") == ["empty/result.pck", "full/result.pck"]

    def test_outputs_are_made_on_request(self, tmp_path: Path) -> None:
        treatment = table(tmp_path, 2)
        got: list[Any] = []
        treatment.output = got.append  # type: ignore[attr-defined]
        run_here({"one": treatment}, tmp_path / "out")
        assert got == []
        results = run_here({"one": treatment}, tmp_path / "out", make_outputs=True)
        assert got == [results]

    def test_a_directory_for_the_regions(self, tmp_path: Path) -> None:
        place = tmp_path / "scratch; touch x `y` $HOME"
        place.mkdir()
        (place / "result.pck").write_text("mine")
        run_here({"one": table(tmp_path, 2)}, tmp_path / "out", remote_pathes={"one": place})
        assert files(place) == ["result.pck"]
        assert (place / "result.pck").read_text() == "mine"

    def test_a_directory_that_others_may_write_to(self, tmp_path: Path) -> None:
        place = tmp_path / "shared"
        place.mkdir()
        place.chmod(0o777)
        with pytest.raises(Exception, match=r"others than this account may write to .*shared"):
            run_here({"one": table(tmp_path)}, tmp_path / "out", remote_pathes={"one": place})
        place.chmod(0o1777)
        run_here({"one": table(tmp_path)}, tmp_path / "out", remote_pathes={"one": place})
        assert list(place.iterdir()) == []

    def test_hostile_names(self, tmp_path: Path) -> None:
        place = tmp_path / "a\nb $HOME `x` 'é\""
        assert means(run_here({"on e/'$": table(place, 2, "si;g `n`.csv")}, place / "out")) == [
            1,
            2,
        ]

    def test_split_jobs_run_one_after_the_other(self, tmp_path: Path) -> None:
        slow = tmp_path / "slow_split.py"
        slow.write_text(
            "import subprocess, sys, time\nbegan = time.time()\ntime.sleep(0.3)\n"
            f"subprocess.run({SPLIT!r} + sys.argv[1:], check=True)\n"
            f"open({str(tmp_path / 'times')!r}, 'a').write(f'{{began}} {{time.time()}}\\n')\n"
        )
        treatments = {name: table(tmp_path / name, 1) for name in "abc"}
        run_here(treatments, tmp_path / "out", split_cmd=[sys.executable, str(slow)])
        spans = [
            [*map(float, line.split())] for line in (tmp_path / "times").read_text().splitlines()
        ]
        assert all(one[1] <= following[0] for one, following in itertools.pairwise(spans))


class TestFailures:
    def test_of_a_region(self, tmp_path: Path) -> None:
        command = script(tmp_path / "x.py", "if number == 2: sys.exit('no HRF fits')")
        with pytest.raises(TreatmentError) as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        told = str(caught.value)
        assert "treatment 'one': 1 of 3 regions failed" in told
        assert "region 2: TreatmentError:" in told
        assert "ended with exit status 1" in told
        assert "no HRF fits" in told
        assert str(tmp_path / "out" / "one" / "result.pck") in told
        # What has finished was brought here.
        merged = pickle.loads((tmp_path / "out" / "one" / "result.pck").read_bytes())
        assert means(merged) == [1, 3]

    def test_returned(self, tmp_path: Path) -> None:
        command = script(tmp_path / "x.py", "if number == 2: sys.exit('no HRF fits')")
        found = run_here(
            {"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command, on_error="return"
        )
        assert means([found[0], found[2]]) == [1, 3]
        assert found[1][:2] == (None, None)
        assert "no HRF fits" in found[1][2]

    def test_a_crash_that_pyhrf_hides(self, tmp_path: Path) -> None:
        body = """
if number == 3:
    import pickle
    open('result_0003.pck', 'wb').write(pickle.dumps(('roi', None, 'Traceback\\nValueError: bad'), 0))
    sys.exit(0)"""
        command = script(tmp_path / "x.py", body)
        with pytest.raises(TreatmentError, match=r"region 3: ValueError: bad"):
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)

    def test_a_command_that_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(TreatmentError, match=r"has left no result_0001\.pck"):
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd="true")

    def test_a_command_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TreatmentError, match="no program 'pyhrf_jde_estim'"):
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=None)
        with pytest.raises(TreatmentError, match=r"roi_split failed: .*no program 'none'"):
            run_here({"one": table(tmp_path)}, tmp_path / "out", split_cmd="none")

    @pytest.mark.parametrize("rois_per_job", [None, 1, 3])
    def test_a_job_that_is_killed(self, tmp_path: Path, rois_per_job: int | None) -> None:
        body = "if number == 2: os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)"
        command = script(tmp_path / "x.py", body)
        with pytest.raises(TreatmentError, match=r"region 2: .*killed by SIGKILL") as caught:
            run_here(
                {"one": table(tmp_path)},
                tmp_path / "out",
                exec_cmd=command,
                rois_per_job=rois_per_job,
            )
        assert "1 of 3 regions" in str(caught.value)
        merged = pickle.loads((tmp_path / "out" / "one" / "result.pck").read_bytes())
        assert means(merged) == [1, 3]

    def test_a_job_that_is_killed_once(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        body = (
            f"if number == 2 and not os.path.exists({str(mark)!r}):\n"
            f"    open({str(mark)!r}, 'w').close()\n"
            "    os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)"
        )
        command = script(tmp_path / "x.py", body)
        found = run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command, retries=1)
        assert means(found) == [1, 2, 3]

    def test_of_the_split(self, tmp_path: Path) -> None:
        out = tmp_path / "out" / "bad"
        out.mkdir(parents=True)
        (out / "result.pck").write_text("of an earlier run")
        treatments = {"bad": table(tmp_path / "bad"), "good": table(tmp_path / "good", 2)}
        treatments["bad"].to_xml = lambda: "./none.csv"  # type: ignore[method-assign]
        with pytest.raises(TreatmentError) as caught:
            run_here(treatments, tmp_path / "out")
        told = str(caught.value)
        assert "treatment 'bad' ended early: job roi_split failed" in told
        assert "none.csv not found" in told
        assert "3 of 3 regions failed or were not run" in told
        assert "'good'" not in told
        assert means(pickle.loads((tmp_path / "out" / "good" / "result.pck").read_bytes())) == [
            1,
            2,
        ]
        assert (out / "result.pck").read_text() == "of an earlier run"

    def test_of_the_merge_and_going_on(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # No space for the merged result; a directory stands in its way.
        body = "if number == 1: os.mkdir('result.pck')"
        command = script(tmp_path / "x.py", body)
        with pytest.raises(TreatmentError, match=r"merge_results failed") as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        told = str(caught.value)
        run_id = told.partition("pyhrf-parallel retry ")[2].partition(",")[0]
        with TreatmentRun.load(run_id) as run:
            Path(run.subjects[0].place, "result.pck").rmdir()
        assert run_command(["retry", run_id]) == 0
        assert run_command(["collect", run_id]) == 0
        assert "cleaned" in capsys.readouterr().out
        assert means(pickle.loads((tmp_path / "out/one/result.pck").read_bytes())) == [1, 2, 3]

    def test_again_what_has_failed(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        body = (
            f"open({str(tmp_path / 'ran')!r}, 'a').write(f'{{number}} ')\n"
            f"if number == 2 and not os.path.exists({str(mark)!r}): sys.exit('not yet')"
        )
        command = script(tmp_path / "x.py", body)
        with submit_treatments(
            {"one": table(tmp_path)}, {"one": tmp_path / "out"}, exec_cmd=command, split_cmd=SPLIT
        ) as run:
            with pytest.raises(TreatmentError, match="not yet"):
                run.results()
            assert means(run.results(on_error="return")["one"][::2]) == [1, 3]
            mark.touch()
            run.retry()
            assert means(run.results()["one"]) == [1, 2, 3]
            run.clean()
        assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2", "2", "3"]

    def test_a_result_that_cannot_be_written_in_the_end(self, tmp_path: Path) -> None:
        out = tmp_path / "out" / "one"
        command = script(tmp_path / "x.py", f"import shutil; shutil.rmtree({str(out)!r}, True)")
        with pytest.raises(TransferError, match=r"did not get to .*result\.pck") as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        (note,) = caught.value.__notes__
        assert "The run was kept: pyhrf-parallel retry" in note
        out.mkdir()
        assert run_command(["collect", "last"]) == 0
        assert files(out) == ["result.pck"]


class TestInterruption:
    def test_ctrl_c_leaves_nothing(self, tmp_path: Path, home: Path) -> None:
        command = script(
            tmp_path / "x.py", f"open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(60)"
        )
        client = start_client(tmp_path, command)
        wait_for(tmp_path / "begun")
        client.send_signal(signal.SIGINT)
        assert client.wait(30) != 0
        assert processes_in(home) == []

    def test_a_killed_client(self, tmp_path: Path, home: Path) -> None:
        command = script(
            tmp_path / "x.py", f"open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(1)"
        )
        client = start_client(tmp_path, command)
        wait_for(tmp_path / "begun")
        client.kill()
        client.wait()
        assert run_command(["collect", "last"]) == 0
        assert means(pickle.loads((tmp_path / "out/one/result.pck").read_bytes())) == [1, 2, 3]

    def test_a_run_that_is_cancelled(self, tmp_path: Path) -> None:
        command = script(
            tmp_path / "x.py",
            f"if number > 1: open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(60)",
        )
        with submit_treatments(
            {"one": table(tmp_path)},
            {"one": tmp_path / "out"},
            exec_cmd=command,
            split_cmd=SPLIT,
            n_jobs=1,
        ) as run:
            wait_for(tmp_path / "begun")
            run.cancel()
            with pytest.raises(TreatmentError, match=r"ended early: the run was cancelled"):
                run.results()
            assert run.status().phase == "cancelled"
            run.clean()


def start_client(tmp_path: Path, command: list[str]) -> subprocess.Popen[bytes]:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from tests.treatment_jobs.conftest import *\n"
        f"run_here({{'one': table(Path({str(tmp_path)!r}))}}, Path({str(tmp_path / 'out')!r}), "
        f"exec_cmd={command!r})"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


class TestBeforehand:
    def test_a_dry_run(self, tmp_path: Path, home: Path) -> None:
        treatments = {"a": table(tmp_path / "a", 40), "b": table(tmp_path / "b", 2)}
        preview = run_here(treatments, tmp_path / "out", dry_run=True, rois_per_job=1)
        told = str(preview)
        for expected in (
            "On this machine:", "send signals.csv,", "send treatment.xml, 13 bytes", "40 job(s) for 40",
            "merge_results: pyhrf_pack_results", "─► ... jde_r0040 (40 jobs)", "treatment 'b'",
        ):  # fmt: skip
            assert expected in told
        assert len(preview.plan.stages) == 2
        assert files(home) == []

    def test_jobs_for_a_workflow_of_ones_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The documented objects, run by soma-workflow without any of our own engine."""
        place, out, temporary = (tmp_path / name for name in ("place", "out", "tmp"))
        for directory in (place, out, temporary):
            directory.mkdir()
        split, jobs, dependencies, group = prepare_treatment_jobs(
            table(tmp_path, 2), temporary, out, "me", "laptop", None, None, str(place), "LABEL",
            exec_cmd=ESTIMATE,
        )  # fmt: skip
        assert list(temporary.iterdir()) == []
        assert files(place) == ["signals.csv", "treatment.xml"]
        assert split.name == "roi_split"
        assert [job.name for job in jobs] == [
            "jde_r0001", "jde_r0002", "merge_results", "scp_result", "clean_files",
        ]  # fmt: skip
        assert group.name == "LABEL"
        assert [e.name for e in group.elements] == [
            "roi_split", "LABEL-roi_jobs", "merge_results", "scp_result", "clean_files",
        ]  # fmt: skip
        assert [job.name for job in group.elements[1].elements] == ["jde_r0001", "jde_r0002"]
        assert {(a.name, b.name) for a, b in dependencies} == {
            ("roi_split", "jde_r0001"), ("roi_split", "jde_r0002"), ("jde_r0001", "merge_results"),
            ("jde_r0002", "merge_results"), ("merge_results", "scp_result"), ("scp_result", "clean_files"),
        }  # fmt: skip
        # Run in their order, as they are: the words are right, and so is the place.
        split.command[:1] = SPLIT
        jobs[2].command[0] = str(Path(sys.executable).with_name("pyhrf_pack_results"))
        for job in (split, *jobs[:3]):
            subprocess.run(
                job.command, cwd=job.working_directory, check=True, stdout=subprocess.PIPE
            )
        assert means(pickle.loads((place / "result.pck").read_bytes())) == [1, 2]
        subprocess.run(jobs[-1].command, cwd=jobs[-1].working_directory, check=True)
        assert files(place) == []
        assert (tmp_path / "signals.csv").exists()

    def test_a_place_with_files(self, tmp_path: Path) -> None:
        place = tmp_path / "place"
        place.mkdir()
        (place / "signals.csv").write_text("mine")
        arguments = "me", "laptop", None, None, str(place), "LABEL"
        with pytest.raises(TransferError, match=r"signals\.csv did not get to .*exists"):
            prepare_treatment_jobs(table(tmp_path), tmp_path, tmp_path, *arguments)
        assert (place / "signals.csv").read_text() == "mine"


def test_the_positional_arguments_are_the_originals(tmp_path: Path) -> None:
    found = run_soma_workflow(
        {"one": table(tmp_path, 1)}, ESTIMATE, {"one": tmp_path / "tmp"}, None, None, None, {"one": tmp_path},
        {"one": tmp_path / "out"}, "LABEL", True, split_cmd=SPLIT,
    )  # fmt: skip
    assert means(found) == [1]


class TestKeeping:
    def test_an_engine_that_gives_up(self, tmp_path: Path) -> None:
        """What has finished stays, and is merged by a retry."""
        command = script(
            tmp_path / "x.py",
            f"if number == 3 and not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(60)\n"
            f"open({str(tmp_path / 'ran')!r} + str(number), 'w')",
        )
        with submit_treatments(
            {"one": table(tmp_path)}, {"one": tmp_path / "out"}, exec_cmd=command, split_cmd=SPLIT
        ) as run:
            wait_for(tmp_path / "ran2")
            run.cancel()
            state = Path(run.manifest.directory) / "state.json"
            told = json.loads(state.read_text()) | {"phase": "failed", "error": "disk full"}
            state.write_text(json.dumps(told))
            assert run.status().phase == "failed"
            for on_error in ("raise", "return"):
                with pytest.raises(TreatmentError, match=r"ended early: .*disk full"):
                    run.results(on_error=on_error)
            (tmp_path / "go").touch()
            run.retry()
            assert means(run.results()["one"]) == [1, 2, 3]
            run.clean()

    def test_an_engine_that_dies_in_a_retry(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        body = (
            f"if number == 2 and not os.path.exists({str(mark)!r}): sys.exit('not yet')\n"
            f"if number == 2: open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(1)"
        )
        command = script(tmp_path / "x.py", body)
        with submit_treatments(
            {"one": table(tmp_path)}, {"one": tmp_path / "out"}, exec_cmd=command, split_cmd=SPLIT
        ) as run:
            with pytest.raises(TreatmentError):
                run.results()
            mark.touch()
            run.retry()
            wait_for(tmp_path / "begun")
            pid = int((Path(run.manifest.directory) / "engine.pid").read_text().split()[0])
            os.killpg(pid, signal.SIGKILL)
            time.sleep(0.3)
            assert run._connected().revive()
            assert means(run.results()["one"]) == [1, 2, 3]
            run.clean()

    def test_half_a_result_of_a_killed_job(self, tmp_path: Path) -> None:
        body = (
            "if number == 2: open('result_0002.pck', 'wb').write(b'(half.'); "
            "os.kill(os.getppid(), signal.SIGKILL); time.sleep(9)"
        )
        command = script(tmp_path / "x.py", body)
        found = run_here(
            {"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command, on_error="return"
        )
        assert means([found[0], found[2]]) == [1, 3]
        assert "SIGKILL" in found[1][2]

    def test_two_results_in_one_place(self, tmp_path: Path) -> None:
        treatments = {"a": table(tmp_path / "a"), "b": table(tmp_path / "b")}
        paths = dict.fromkeys(treatments, tmp_path / "out")
        with pytest.raises(TreatmentError, match="would write the same result"):
            run_here(treatments, tmp_path / "out", local_result_pathes=paths)

    def test_no_result_at_all_is_told_in_any_case(self, tmp_path: Path) -> None:
        with pytest.raises(TreatmentError, match="roi_split failed"):
            run_here({"one": table(tmp_path)}, tmp_path, split_cmd="false", on_error="return")
