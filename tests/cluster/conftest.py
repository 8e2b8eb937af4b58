"""The cluster that all tests of this folder share, and a client for each."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel.commands.main import main
from tests.cluster.one_node import IMAGING, OneNode, one_node, wait_for, what_is_missing
from tests.conftest import missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[OneNode]:
    reason = what_is_missing()
    if reason:
        missing("cluster", reason)
    with one_node(Path(tempfile.mkdtemp(prefix="pyhrf_cluster_", dir="/tmp"))) as running:
        yield running


@pytest.fixture(scope="session")
def imaging(cluster: OneNode) -> None:
    """What treatments import has to be there, as users have to see to it."""
    cluster.install(*IMAGING)


@pytest.fixture
def client_home(cluster: OneNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A HOME from which ``ssh onenode`` works, and nothing else is set up."""
    home = Path(tempfile.mkdtemp(suffix=' client\'s "home" é'))
    cluster.make_client(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield home
    shutil.rmtree(home)


@pytest.fixture(params=["local_basic", "slurm"])
def scheduler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def configured(
    cluster: OneNode, client_home: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A client whose configuration names the cluster; afterwards nothing may be left anywhere."""
    path = client_home / ".pyhrf" / "config.cfg"
    path.parent.mkdir()
    path.write_text(
        "[parallel-cluster]\nserver = onenode\n"
        f"scheduler = {scheduler}\nmax_jobs = 2\nremote_python = {cluster.python}\n"
    )
    places = [client_home / name for name in ("tmp", "cwd $HOME `x`;\nnew é")]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("TMPDIR", str(places[0]))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(places[1])
    yield client_home
    try:
        assert [str(p) for place in places for p in place.rglob("*")] == []
        assert [p for p in (client_home / ".local").rglob("*") if p.is_file()] == []
        wait_for(lambda: not cluster.processes(), 15, "the end of all processes on the cluster")
        assert cluster.files() == []
        wait_for(lambda: cluster.jobs() == [], 15, "the end of all jobs")
    except BaseException:
        cluster.tidy()
        raise


@pytest.fixture
def tmp_path(cluster: OneNode) -> Path:
    """A directory that tasks on the cluster can write to."""
    path = Path(tempfile.mkdtemp(dir=cluster.base))
    path.chmod(0o1777)
    return path


@pytest.fixture
def address(cluster: OneNode) -> Iterator[str]:
    """Let the cluster's account log in to this machine, where it is known as 'laptop'."""
    ssh = cluster.home / ".ssh"
    cluster.make_client(cluster.home)
    config = (ssh / "config").read_text().replace("Host onenode", "Host laptop")
    (ssh / "config").write_text(config)
    cluster.own(ssh)
    yield "laptop"
    shutil.rmtree(ssh)


@dataclass
class Printed:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Printed]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> Printed:
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        assert "Traceback (most recent call last):\n  File" not in err.partition("--- ")[0]
        return Printed(status, out, err)

    return run


@pytest.fixture
def other_places(cluster: OneNode) -> Iterator[Path]:
    """Where on the cluster these tests make things; all of it has to be named here."""
    yield cluster.home
    for name in ("other venv", "bare", "something"):
        shutil.rmtree(cluster.home / name, ignore_errors=True)
    assert cluster.files() == []


@pytest.fixture
def config(client_home: Path, cluster: OneNode) -> Callable[..., None]:
    """Write a configuration that works, but for what is said."""

    def write(**changes: object) -> None:
        keys = {"server": "onenode", "remote_python": cluster.python, "scheduler": "local_basic"}
        lines = [f"{key} = {value}" for key, value in (keys | changes).items()]
        path = client_home / ".pyhrf" / "config.cfg"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["[parallel-cluster]", *lines, ""]))

    return write


#: What the suite asks of a worker on this machine, or with joblib.
NOT_THERE = {"test_nested_maps", "test_workers_run_this_interpreter_elsewhere"}
#: What does not depend on the scheduler; on Slurm each map takes seconds.
ONCE = {
    "test_arrays_of_all_kinds",
    "test_functions_of_all_kinds_travel",
    "test_n_jobs",
    "test_one_list_given",
    "test_lists_and_generators_of_arguments",
    "test_default_given_positionally",
    "test_a_returned_exception_is_a_value",
    "test_returned_arrays",
    "test_what_cannot_travel_is_refused_before_anything_runs",
    "test_a_large_array_in_a_closure",
    "test_refusals",
    "test_its_code_alone_travels_to_jobs",
}


def _belongs(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    name = getattr(item, "originalname", item.name)
    on_slurm = parameters.get("scheduler") == "slurm"
    here = parameters.get("mode") == "remote_cluster" and name not in NOT_THERE
    return here and not (on_slurm and name in ONCE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of the suite of all modes what is for this one."""
    out = [i for i in items if "cluster/test_contract" in i.nodeid and not _belongs(i)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
