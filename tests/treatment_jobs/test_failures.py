"""Treatments as jobs of this machine: what fails, is interrupted or killed, and what is kept then."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

from pyhrf_parallel import (
    ConfigurationError,
    TransferError,
    TreatmentError,
    TreatmentRun,
    submit_treatments,
)
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.commands.finding import find
from tests.conftest import ROOT
from tests.treatment_jobs.conftest import (
    ESTIMATE,
    SPLIT,
    clean,
    files,
    kept,
    means,
    processes_in,
    run_here,
    script,
    table,
)

pytestmark = pytest.mark.usefixtures("home")


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
        clean(told)

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
        with pytest.raises(TreatmentError, match=r"region 3: ValueError: bad") as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        clean(str(caught.value))

    def test_a_result_that_ends_too_early(self, tmp_path: Path) -> None:
        """At a byte that a whole one could end with."""
        body = """
if number == 3:
    import pickle
    whole = pickle.dumps(('roi', {'mean': 3.5, 'text': 'a. b'}, 'ok'), 0)
    open('result_0003.pck', 'wb').write(whole[: whole.index(b'.', 5) + 1])
    sys.exit(0)"""
        command = script(tmp_path / "x.py", body)
        with pytest.raises(
            TreatmentError, match=r"region 3: .*result_0003\.pck is not compl"
        ) as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        merged = pickle.loads((tmp_path / "out" / "one" / "result.pck").read_bytes())
        assert means(merged) == [1, 2]
        clean(str(caught.value))

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
        clean(str(caught.value))

    @pytest.mark.parametrize("who", ["getppid", "getpid"])  # the worker, or its command
    def test_a_job_that_is_killed_once(self, who: str, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        body = (
            f"if number == 2 and not os.path.exists({str(mark)!r}):\n"
            f"    open({str(mark)!r}, 'w').close()\n"
            f"    os.kill(os.{who}(), signal.SIGKILL); time.sleep(9)"
        )
        command = script(tmp_path / "x.py", body)
        found = run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command, retries=1)
        assert means(found) == [1, 2, 3]

    def test_of_the_split(self, tmp_path: Path) -> None:
        out = tmp_path / "out" / "bad"
        run_here({"bad": table(tmp_path / "bad")}, tmp_path / "out")
        before = (out / "result.pck").read_bytes()
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
        assert (out / "result.pck").read_bytes() == before

    def test_of_the_merge_and_going_on(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # No space for the merged result; a directory stands in its way.
        body = "if number == 1: os.mkdir('result.pck')"
        command = script(tmp_path / "x.py", body)
        with pytest.raises(TreatmentError, match=r"merge_results failed") as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        run_id = kept(str(caught.value))
        with TreatmentRun.load(run_id) as run:
            Path(run.subjects[0].directory, "result.pck").rmdir()
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
                run.result()
            assert means(run.result(on_error="return")["one"][::2]) == [1, 3]
            mark.touch()
            run.retry()
            assert means(run.result()["one"]) == [1, 2, 3]
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
        assert files(out) == ["result.pck", "result.pck.provenance.json"]


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

    def test_a_run_goes_on_whose_engine_was_killed(
        self, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun = tmp_path / "begun"
        code = f"begun = {str(begun)!r}\nif not os.path.exists(begun):\n    open(begun, 'w'); time.sleep(100)"
        client = start_client(tmp_path, script(tmp_path / "x.py", code))
        wait_for(begun)
        client.kill()
        client.wait()
        with find("last") as run:
            assert run_command(["retry", "last"]) == 1
            assert "is not over" in capsys.readouterr().err
            engine = int(Path(run.manifest.directory, "engine.pid").read_text().split()[0])
            os.kill(engine, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(engine)], timeout=5)
            assert run_command(["status", "last"]) == 0
            assert "stopped" in capsys.readouterr().out
            assert run_command(["retry", "last"]) == 0
            assert "goes on" in capsys.readouterr().out
            while not run.done():
                time.sleep(0.1)
            assert run.status().phase == "done"
            run.clean()

    def test_a_run_is_cancelled_whose_engine_was_killed(
        self, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun = tmp_path / "begun"
        command = script(
            tmp_path / "x.py", f"open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
        )
        client = start_client(tmp_path, command)
        wait_for(begun)
        client.kill()
        client.wait()
        with find("last") as run:
            engine = int(Path(run.manifest.directory, "engine.pid").read_text().split()[0])
            os.kill(engine, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(engine)], timeout=5)
            assert processes_in(tmp_path / "x.py") != []
            assert run_command(["cancel", "last"]) == 0
            assert "is cancelled" in capsys.readouterr().out
            assert processes_in(tmp_path / "x.py") == []
            run.clean()

    def test_a_run_is_cancelled_while_its_client_waits(
        self, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = script(
            tmp_path / "x.py", f"open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(100)"
        )
        client = start_client(tmp_path, command)
        wait_for(tmp_path / "begun")
        assert run_command(["cancel", "last"]) == 0
        assert "is cancelled" in capsys.readouterr().out
        assert client.wait(timeout=30) == 1

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
            assert run.cancel()
            with pytest.raises(CancelledError, match=rf"cancelled\. .*retry {run.run_id}"):
                run.result()
            assert run.collect()["one"].problem == "the run was cancelled"
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


class TestKeeping:
    @pytest.mark.parametrize("how", ["a status", "a hidden crash"])
    def test_single_regions_that_have_failed(
        self, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They run again, and nothing else does."""
        crash = "import pickle; pickle.dump(('roi', None, 'Traceback: bad'), open('result_0002.pck', 'wb'), 0)"
        body = (
            f"open({str(tmp_path / 'ran')!r}, 'a').write(f'{{number}} ')\n"
            f"if number == 2 and not os.path.exists({str(tmp_path / 'mended')!r}):\n"
            f"    {crash if how == 'a hidden crash' else 'pass'}\n"
            f"    sys.exit({0 if how == 'a hidden crash' else 1})"
        )
        command = script(tmp_path / "x.py", body)
        with pytest.raises(TreatmentError) as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        run_id = kept(str(caught.value))
        result = tmp_path / "out" / "one" / "result.pck"
        assert [found for _, found, report in pickle.loads(result.read_bytes()) if report == "ok"]
        assert run_command(["runs", "--status"]) == 0
        assert "done: 2 of 3 tasks returned, 1 failed" in capsys.readouterr().out
        # Once more without success: it is still there, and the same command goes on.
        assert run_command(["retry", run_id]) == 0
        assert run_command(["collect", run_id]) == 1
        said = capsys.readouterr()
        assert kept(said.out) == run_id
        assert "region 2: " in said.err
        (tmp_path / "mended").touch()
        assert run_command(["retry", run_id]) == 0
        assert run_command(["collect", run_id]) == 0
        assert "The run was cleaned." in capsys.readouterr().out
        assert means(pickle.loads(result.read_bytes())) == [1, 2, 3]
        assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2", "2", "2", "3"]

    def test_outputs_that_could_not_be_made(self, tmp_path: Path) -> None:
        """All regions are done, and their result is here; only the last step is to be done again."""
        mark = tmp_path / "mended"
        code = (
            "import os, sys, tarfile\n"
            f"if not os.path.exists({str(mark)!r}): sys.exit('no space left')\n"
            "open('made.txt', 'w').write('made')\n"
            "with tarfile.open(sys.argv[2], 'w') as file: file.add('made.txt')"
        )
        treatment = table(tmp_path)
        treatment.output_command = lambda *names: [sys.executable, "-c", code, *names]  # type: ignore[attr-defined]
        with pytest.raises(TreatmentError, match=r"make_outputs failed: .*no space left") as caught:
            run_here({"one": treatment}, tmp_path / "out", exec_cmd=ESTIMATE, on_error="return")
        run_id = kept(str(caught.value))
        mark.touch()
        assert run_command(["retry", run_id]) == 0
        assert run_command(["collect", run_id]) == 0
        assert files(tmp_path / "out" / "one") == [
            "made.txt", "result.pck", "result.pck.provenance.json",
        ]  # fmt: skip

    def test_outputs_that_would_replace_a_file_of_the_users(self, tmp_path: Path) -> None:
        """Nothing at all is replaced then; files of the same analysis are, the next time."""
        code = (
            "import sys, tarfile\n"
            "with tarfile.open(sys.argv[2], 'w') as file:\n"
            "    for name in 'abc':\n"
            "        open(name, 'w').write('made')\n"
            "        file.add(name, name + '.nii')"
        )
        treatment, out = table(tmp_path), tmp_path / "out" / "one"
        treatment.output_command = lambda *names: [sys.executable, "-c", code, *names]  # type: ignore[attr-defined]
        out.mkdir(parents=True)
        (out / "b.nii").write_text("mine")
        with pytest.raises(TreatmentError, match=r"replace .*b\.nii, which is not a known result"):
            run_here({"one": treatment}, tmp_path / "out")
        assert files(out) == ["b.nii"]
        assert (out / "b.nii").read_text() == "mine"
        (out / "b.nii").unlink()
        assert run_command(["collect", "last"]) == 0
        for _ in range(2):
            made = ["a.nii", "b.nii", "c.nii", "result.pck", "result.pck.provenance.json"]
            assert files(out) == made
            run_here({"one": treatment}, tmp_path / "out")

    def test_results_of_the_others_are_brought_all_the_same(self, tmp_path: Path) -> None:
        treatments = {name: table(tmp_path / name) for name in "abc"}
        paths = {name: tmp_path / "out" / name for name in treatments}
        with submit_treatments(treatments, paths, exec_cmd=ESTIMATE, split_cmd=SPLIT) as run:
            for name in "ab":
                (paths[name] / "result.pck").write_text("mine")
            with pytest.raises(TreatmentError, match=r"(?s)replace .*a/result.*\n.*b/result"):
                run.result()
            assert (paths["a"] / "result.pck").read_text() == "mine"
            assert means(pickle.loads((paths["c"] / "result.pck").read_bytes())) == [1, 2, 3]
            for name in "ab":
                (paths[name] / "result.pck").unlink()
            assert [means(found) for found in run.result().values()] == [[1, 2, 3]] * 3
            run.clean()

    def test_a_result_that_would_replace_what_is_analysed(self, tmp_path: Path) -> None:
        treatment = table(tmp_path)
        treatment.result_dump_file = "signals.csv"
        before = (tmp_path / "signals.csv").read_bytes()
        with pytest.raises(TreatmentError, match=r"replace .*signals\.csv, which is analysed"):
            run_here({"one": treatment}, tmp_path, local_result_paths={"one": tmp_path})
        assert (tmp_path / "signals.csv").read_bytes() == before

    def test_nothing_to_run_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        treatments, paths = {"one": table(tmp_path)}, {"one": tmp_path / "out"}
        with submit_treatments(treatments, paths, exec_cmd=ESTIMATE, split_cmd=SPLIT) as run:
            run.result()
            with pytest.raises(ConfigurationError, match="on_error"):
                run.result(on_error="ignore")
            assert run_command(["retry", run.run_id]) == 1
            assert f"nothing of run {run.run_id} has failed" in capsys.readouterr().err
            run.clean()

    def test_all_regions_have_failed(self, tmp_path: Path) -> None:
        """To begin anew is no more work then: nothing is kept, and the reason is told once."""
        command = script(tmp_path / "x.py", "sys.exit(3)")
        with pytest.raises(TreatmentError) as caught:
            run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
        assert "regions 1, 2, 3: TreatmentError" in str(caught.value)
        assert "was kept" not in str(caught.value)

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
                    run.result(on_error=on_error)
            (tmp_path / "go").touch()
            run.retry()
            assert means(run.result()["one"]) == [1, 2, 3]
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
                run.result()
            mark.touch()
            run.retry()
            wait_for(tmp_path / "begun")
            pid = int((Path(run.manifest.directory) / "engine.pid").read_text().split()[0])
            os.killpg(pid, signal.SIGKILL)
            time.sleep(0.3)
            assert run._connected().revive()
            assert means(run.result()["one"]) == [1, 2, 3]
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
            run_here(treatments, tmp_path / "out", local_result_paths=paths)

    def test_no_result_at_all_is_told_in_any_case(self, tmp_path: Path) -> None:
        with pytest.raises(TreatmentError, match="roi_split failed"):
            run_here({"one": table(tmp_path)}, tmp_path, split_cmd="false", on_error="return")
