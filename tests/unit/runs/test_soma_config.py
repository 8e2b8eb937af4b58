"""What soma-workflow's own configuration says of a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.runs.soma_config import with_resource, with_server

RESOURCES = """
[Alambic]
CLUSTER_ADDRESS = alambic.org
SUBMITTING_MACHINES = node1 node2
LOGIN = ann
SCHEDULER_TYPE = pbspro
PYTHON_COMMAND = LD=/x%y "/a place/python" -u
[Bare]
CLUSTER_ADDRESS = bare.org
[Empty]
"""
NAMED = Configuration(server_id="Alambic")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SOMA_WORKFLOW_CONFIG", raising=False)
    path = tmp_path / ".soma-workflow.cfg"
    path.write_text(RESOURCES)
    return path


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (Configuration(), {}),
        (
            NAMED,
            {
                "server": "node1",
                "user": "ann",
                "scheduler": "pbspro",
                "remote_python": "/a place/python",
            },
        ),
        (Configuration(server_id="Bare"), {"server": "bare.org"}),
        # what the configuration says goes first
        (replace(NAMED, server="s", user="u", scheduler="drmaa", remote_python="p"), {}),
        (Configuration(server_id="None", server="s"), {}),
    ],
)
def test_what_a_resource_fills_in(settings: Configuration, changes: dict[str, str]) -> None:
    assert with_resource(settings) == replace(settings, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "told"),
    [("None", "only the resources Alambic, Bare, Empty"), ("Empty", "no SUBMITTING_MACHINES")],
)
def test_a_resource_that_does_not_say_where(name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        with_resource(Configuration(server_id=name))


@pytest.mark.parametrize("content", [b"no section", b"[a]\nb = \xff\n", None])
def test_a_file_that_cannot_be_read(content: bytes | None, path: Path) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        with_resource(NAMED)
    named = replace(NAMED, server="s")
    assert with_resource(named) == named


def test_a_file_elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = path.rename(path.with_name("elsewhere"))
    monkeypatch.setenv("SOMA_WORKFLOW_CONFIG", str(moved))
    assert with_resource(NAMED).server == "node1"


@pytest.mark.parametrize(
    ("asked", "found"),  # server, user and resource
    [
        ((None, None, None), ("s", "u", "r")),
        ((None, "v", None), ("s", "u", "r")),  # a user alone names no cluster
        (("s", None, None), ("s", "u", "r")),
        (("t", None, None), ("t", None, None)),
        (("t", "v", "q"), ("t", "v", "q")),
        ((None, None, "q"), (None, "u", "q")),
    ],
)
def test_another_cluster(
    asked: tuple[str | None, str | None, str | None], found: tuple[str | None, ...]
) -> None:
    other = with_server(Configuration(server="s", user="u", server_id="r"), *asked)
    assert (other.server, other.user, other.server_id) == found
