"""The commands about runs, from `runs` to `clean`, against a real cluster."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import MapRun, RemoteException, submit_map
from pyhrf_parallel.runs.manifests import list_runs
from tests.cluster.conftest import Command
from tests.cluster.one_node import OneNode, wait_for
from tests.contract import cases

pytestmark = pytest.mark.cluster


class TestRuns:
    @pytest.fixture(autouse=True)
    def all_is_gone(
        self, cluster: OneNode, config: Callable[..., None], client_home: Path
    ) -> Iterator[None]:
        config()
        yield
        left = list_runs()
        for manifest in left:  # not to disturb other tests
            MapRun.load(manifest.run_id).clean()
        assert left == []
        wait_for(lambda: not cluster.processes(), 15, "the end of all processes on the cluster")
        assert cluster.files() == []

    def submit(self, func: Any, *arguments: object, **options: Any) -> str:
        with submit_map(func, [(argument,) for argument in arguments], **options) as run:
            run_id: str = run.run_id
            return run_id

    def test_round_trip(self, command: Command, tmp_path: Path) -> None:
        assert command("runs").out == "There are no runs.\n"
        assert command("runs", "--json").json() == []
        run_id = self.submit(math.sqrt, 4, 9, 16)
        assert run_id in command("runs").out
        (row,) = command("runs", "--json").json()
        assert (row["run_id"], row["tasks"], row["cluster"]) == (run_id, 3, "onenode")
        output = tmp_path / "results.pck"
        printed = command("collect", run_id[:-2], "--output", output, "--keep", "--json")
        assert printed.status == 0
        assert printed.json()["returned"] == 3
        assert pickle.loads(output.read_bytes()) == [2, 3, 4]

        assert "done: 3 of 3 tasks returned" in command("runs", "--status").out
        printed = command("status", "last")
        assert "done: 3 of 3 tasks returned" in printed.out
        assert "\njob-" in printed.out
        status = command("status", "last", "--json").json()
        assert (status["phase"], status["returned"]) == ("done", 3)
        assert command("logs", run_id, "--json").json() == {}  # test_files_there.py has full ones
        assert command("logs", run_id).out == "Nothing was written.\n"
        assert "those that have: none" in command("logs", run_id, "--job", "nix").err
        assert "was done already" in command("cancel", run_id).out

        assert "give --output FILE" in command("collect", "last").err
        refused = command("collect", "last", "--output", output)
        assert (refused.status, "--force" in refused.err) == (1, True)
        assert command("collect", "last", "-o", output, "--force").status == 0
        assert {p.name for p in tmp_path.iterdir()} == {"results.pck"}
        assert "There are no runs" in command("status", "last").err

    def test_failures_are_in_their_places(self, command: Command, tmp_path: Path) -> None:
        self.submit(math.sqrt, 4, -1, 9, -4, on_error="return")
        output = tmp_path / "results.pck"
        printed = command("collect", "last", "--output", output)
        assert printed.status == 1
        assert "error: 2 of 4 tasks failed, 0 were not run" in printed.err
        assert "Task 1 failed on" in printed.err
        assert "Task 3 failed on" in printed.err
        values = pickle.loads(output.read_bytes())
        assert (values[0], values[2]) == (2, 3)
        assert isinstance(values[1], RemoteException)
        assert values[3].call == "sqrt(-4)"

    def test_tasks_after_the_first_failure_may_not_have_run(
        self, command: Command, tmp_path: Path
    ) -> None:
        """The second has begun when the first fails: its job, which is stopped for that, has not died of it."""
        with submit_map(cases.meet, [(tmp_path, 0), (tmp_path, 1)], n_jobs=2) as run:
            wait_for(lambda: run.status().phase == "done", 60, "the engine's last word")
        output = tmp_path / "results.pck"
        printed = command("collect", "last", "--output", output, "--json")
        assert printed.status == 1
        assert printed.json()["not_run"] == 1
        _, second = pickle.loads(output.read_bytes())
        assert str(second).startswith("Task 1 was not run: task 0 had failed: meet(")

    def test_cancel_and_collect_the_rest(self, command: Command, tmp_path: Path) -> None:
        run_id = self.submit(time.sleep, 0, 60, n_jobs=1)
        assert "is not over" in command("collect", "last", "-o", tmp_path / "x", "--no-wait").err
        wait_for(lambda: command("status", run_id, "--json").json()["returned"] == 1, 20, "a task")
        printed = command("cancel", run_id, "--json")
        assert (printed.status, printed.json()["phase"]) == (0, "cancelled")
        printed = command("collect", run_id, "--output", tmp_path / "x")
        assert printed.status == 1
        first, second = pickle.loads((tmp_path / "x").read_bytes())
        assert first is None
        assert "the run was cancelled" in str(second)

    def test_names_and_cleaning(self, command: Command, client_home: Path) -> None:
        first, second = self.submit(math.sqrt, 4), self.submit(time.sleep, 60)  # in one second
        printed = command("status", first[:3])
        assert printed.status == 1
        assert f"2 runs begin with '{first[:3]}': {first}, {second}" in printed.err
        assert f"known: {first}, {second}" in command("logs", "nix").err
        refused = command("clean", first)
        assert refused.status == 2
        assert "--yes" in refused.err

        wait_for(lambda: "done" in command("status", first).out, 20, "the first run")
        printed = command("clean", "--all-done", "--yes", "--json")
        assert printed.json() == {"cleaned": [first], "errors": {}}
        assert command("clean", "last", second, "--yes").out == f"Cleaned: {second}.\n"

    def test_a_cluster_that_is_gone_does_not_hide_the_others(
        self, command: Command, client_home: Path
    ) -> None:
        run_id, lost = self.submit(math.sqrt, 4), self.submit(math.sqrt, 9)
        forgotten = MapRun.load(lost).manifest
        known = client_home / ".ssh" / "known_hosts"
        keys = known.read_text()
        known.write_text("")
        printed = command("runs", "--status")
        assert printed.status == 0
        assert "unknown (The host key" in printed.out
        printed = command("clean", run_id, "--yes")
        assert printed.status == 1
        assert run_id in printed.err
        assert command("clean", "--all-done", "--forget", "--yes").status == 2
        assert command("clean", lost, "--forget", "--yes").out == f"Cleaned: {lost}.\n"
        assert lost not in command("runs").out
        known.write_text(keys)
        MapRun(forgotten).clean()  # it is not gone after all
        assert command("clean", run_id, "--yes").status == 0

    def test_where_results_cannot_go(self, command: Command, tmp_path: Path) -> None:
        run_id = self.submit(math.sqrt, 4)
        printed = command("collect", run_id, "--output", tmp_path / "none" / "x")
        assert (printed.status, "no directory to write to" in printed.err) == (1, True)
        assert command("clean", run_id, "--yes").status == 0
