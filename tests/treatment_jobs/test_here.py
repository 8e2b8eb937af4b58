"""Treatments as jobs of this machine: the real engine, real commands."""

from __future__ import annotations

import gzip
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pyhrf_parallel import (
    TransferError,
    prepare_treatment_jobs,
    run_soma_workflow,
)
from pyhrf_parallel.commands.cli import run as run_command
from tests.treatment_jobs.conftest import (
    ESTIMATE,
    SPLIT,
    files,
    means,
    run_here,
    script,
    table,
)

pytestmark = pytest.mark.usefixtures("home")


class TestResults:
    @pytest.mark.parametrize("rois_per_job", [None, 1, 2])
    def test_one_treatment(self, tmp_path: Path, rois_per_job: int | None) -> None:
        results = run_here({"one": table(tmp_path, 5)}, tmp_path / "out", rois_per_job=rois_per_job)
        assert means(results) == [1, 2, 3, 4, 5]
        assert pickle.loads((tmp_path / "out" / "one" / "result.pck").read_bytes()) == results
        assert files(tmp_path / "out") == ["one/result.pck", "one/result.pck.provenance.json"]

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
        assert files(tmp_path / "out") == ["one/mine.pck", "one/mine.pck.provenance.json"]

    def test_without_waiting(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("empty", "full"):
            (tmp_path / name).mkdir()
        (tmp_path / "full" / "mine").write_text("mine")
        treatments = {"empty": table(tmp_path / "a", 2), "full": table(tmp_path / "b", 2)}
        for treatment in treatments.values():
            treatment.split_command = SPLIT  # type: ignore[attr-defined]
        temporary = {name: tmp_path / name for name in treatments}
        results = {name: tmp_path / "out" / name for name in treatments}
        found = run_soma_workflow(
            treatments, ESTIMATE, temporary, None, None, None, None, results, "LABEL"
        )
        assert found == []
        assert not (tmp_path / "empty").exists()
        assert (tmp_path / "full" / "mine").read_text() == "mine"
        assert run_command(["collect", "last"]) == 0
        assert "empty: 2 regions, 0 failed" in capsys.readouterr().out
        assert files(tmp_path / "out") == [
            f"{name}/result.pck{suffix}"
            for name in treatments
            for suffix in ("", ".provenance.json")
        ]

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
        run_here({"one": table(tmp_path, 2)}, tmp_path / "out", remote_paths={"one": place})
        assert files(place) == ["result.pck"]
        assert (place / "result.pck").read_text() == "mine"

    def test_a_directory_that_others_may_write_to(self, tmp_path: Path) -> None:
        with TemporaryDirectory(dir="/tmp") as way:  # pytest's is in one that nobody else may enter
            place = Path(way, "shared")
            place.mkdir()
            place.chmod(0o777)
            run_here({"one": table(tmp_path)}, tmp_path / "out", remote_paths={"one": place})
            Path(way).chmod(0o755)
            with pytest.raises(Exception, match=r"others than this account may write to .*shared"):
                run_here({"one": table(tmp_path)}, tmp_path / "out", remote_paths={"one": place})
            place.chmod(0o1777)
            run_here({"one": table(tmp_path)}, tmp_path / "out", remote_paths={"one": place})
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
        assert len(preview.plan.groups) == 2
        assert files(home) == []

    def test_jobs_for_a_workflow_of_ones_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The documented objects, run by soma-workflow without any of our own engine."""
        place, out, temporary = (tmp_path / name for name in ("place", "out", "tmp"))
        for directory in (place, out, temporary):
            directory.mkdir()
        treatment = table(tmp_path, 2)
        treatment.split_command = SPLIT  # type: ignore[attr-defined]
        treatment.estimation_command = ESTIMATE  # type: ignore[attr-defined]
        split, jobs, dependencies, group = prepare_treatment_jobs(
            treatment, temporary, out, "me", "laptop", None, None, str(place), "LABEL",
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

    def test_the_same_jobs_are_prepared_again(self, tmp_path: Path) -> None:
        place = tmp_path / "place"
        place.mkdir()
        arguments = tmp_path, tmp_path, "me", "laptop", None, None, str(place), "LABEL"
        for _ in range(2):
            prepare_treatment_jobs(table(tmp_path), *arguments)
            assert files(place) == ["signals.csv", "treatment.xml"]
        (place / "treatment.xml").write_text("another")
        with pytest.raises(TransferError, match=r"exists with another content; remove it"):
            prepare_treatment_jobs(table(tmp_path), *arguments)


def test_the_positional_arguments_are_the_originals(tmp_path: Path) -> None:
    treatment = table(tmp_path, 1)
    treatment.split_command = SPLIT  # type: ignore[attr-defined]
    found = run_soma_workflow(
        {"one": treatment}, ESTIMATE, {"one": tmp_path / "tmp"}, None, None, None, {"one": tmp_path},
        {"one": tmp_path / "out"}, "LABEL", True,
    )  # fmt: skip
    assert means(found) == [1]


def test_a_result_that_is_to_be_compressed(tmp_path: Path, home: Path) -> None:
    treatment = table(tmp_path)
    treatment.result_dump_file = "dump.pck.gz"
    found = run_here({"one": treatment}, tmp_path / "out")
    assert means(found) == [1, 2, 3]
    assert files(tmp_path / "out" / "one") == ["dump.pck.gz", "dump.pck.gz.provenance.json"]
    with gzip.open(tmp_path / "out" / "one" / "dump.pck.gz") as file:
        assert means(pickle.load(file)) == [1, 2, 3]


@pytest.mark.parametrize("protocol", [4, 5])
def test_results_of_any_protocol_are_merged(protocol: int, tmp_path: Path) -> None:
    """Python pickles with protocol 4 or 5 where nothing else is said."""
    body = (
        "import pickle\n"
        f"subprocess.run({ESTIMATE!r} + sys.argv[1:], check=True)\n"
        "path = region.replace('roidata', 'result')\n"
        "content = pickle.load(open(path, 'rb'))\n"
        f"pickle.dump(content, open(path, 'wb'), {protocol})\n"
        "sys.exit()"
    )
    command = script(tmp_path / "x.py", body)
    found = run_here({"one": table(tmp_path)}, tmp_path / "out", exec_cmd=command)
    assert means(found) == [1, 2, 3]
