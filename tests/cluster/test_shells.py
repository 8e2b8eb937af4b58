"""Login shells as accounts have them, and a Slurm that only a login knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyhrf_parallel import ClusterError, remote_map
from pyhrf_parallel.commands.cli import run as run_command
from pyhrf_parallel.configuration import load_configuration
from tests.cluster.one_node import OneNode
from tests.contract import cases

pytestmark = [
    pytest.mark.usefixtures("configured"),
    pytest.mark.cluster,
    pytest.mark.parametrize("scheduler", ["slurm"], indirect=True),
]


def works(capsys: pytest.CaptureFixture[str]) -> str:
    """Have the doctor look at everything, a job included; return what it says."""
    status = run_command(["doctor"])
    said = capsys.readouterr().out
    assert status == 0, said
    return said


@pytest.fixture(params=["/bin/bash", "/bin/tcsh"])
def login_only(cluster: OneNode, request: pytest.FixtureRequest) -> Iterator[None]:
    with cluster.world(login_shell=request.param, at_login_only=True):
        yield


def test_tcsh(cluster: OneNode, configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured / ".pyhrf" / "config.cfg"
    config.unlink()
    with cluster.world(login_shell="/bin/tcsh"):
        setup = ["setup-cluster", "onenode", "--yes", "--remote-python", str(cluster.python)]
        assert run_command(setup) == 0, capsys.readouterr()
        assert "setup =" not in config.read_text()
        works(capsys)
        assert remote_map(cases.add, [(1,), (2,)], mode="remote_cluster") == [3, 4]


@pytest.mark.usefixtures("login_only")
def test_what_only_a_login_knows_is_found(
    cluster: OneNode, configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advice = "setup of [parallel-cluster]"
    with pytest.raises(ClusterError, match=r"cannot use Slurm: .*setup-cluster onenode") as caught:
        remote_map(cases.add, [(1,)], mode="remote_cluster")
    assert advice in str(caught.value)
    assert run_command(["doctor", "--no-job"]) == 1
    assert advice in capsys.readouterr().out

    (configured / ".pyhrf" / "config.cfg").unlink()
    setup = ["setup-cluster", "onenode", "--yes", "--remote-python", str(cluster.python)]
    assert run_command(setup) == 0, capsys.readouterr()
    assert f"SLURM_CONF={cluster.slurm.conf}" in (load_configuration().setup or "")
    works(capsys)
    assert run_command([*setup, "--json"]) == 0
    assert '"changed": false' in capsys.readouterr().out


@pytest.mark.usefixtures("login_only")
def test_lines_of_the_users_own(cluster: OneNode, configured: Path) -> None:
    config = configured / ".pyhrf" / "config.cfg"
    setup = f"""
    echo noise; echo more >&2
    source /dev/null
    export SLURM_CONF={cluster.slurm.conf} WORDS="a b  'c' $HOME"
    """
    config.write_text(f"{config.read_text()}setup ={setup}")

    def words() -> str:
        import os

        return os.environ["WORDS"]

    (found,) = remote_map(words, [()], mode="remote_cluster")
    assert found == f"a b  'c' {cluster.home}"


def test_lines_of_the_users_own_run_in_each_job_too(cluster: OneNode, configured: Path) -> None:
    config = configured / ".pyhrf" / "config.cfg"
    config.write_text(f'{config.read_text()}setup = export WHERE="$WHERE job=$SLURM_JOB_ID"\n')

    def where() -> str:
        import os

        return os.environ["WHERE"].replace(os.environ["SLURM_JOB_ID"], "ours")

    assert remote_map(where, [()], mode="remote_cluster") == [" job= job=ours"]
