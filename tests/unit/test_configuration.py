from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import ClusterError, ConfigurationError, remote_map, submit_map
from pyhrf_parallel.backends import MODES, Mode
from pyhrf_parallel.configuration import (
    SECTIONS,
    Configuration,
    load_configuration,
    settings_of,
)
from pyhrf_parallel.runs.manifests import list_runs
from tests.conftest import PYHRF_CONFIG, ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYHRF_PARALLEL_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def config(home: Path) -> Path:
    path = home / ".pyhrf" / "config.cfg"
    path.parent.mkdir()
    return path


# As pyhrf 0.5 writes it when it is imported.
PYHRF = PYHRF_CONFIG.read_text()


def test_without_a_file_there_are_defaults_and_none_is_written(home: Path) -> None:
    assert load_configuration() == Configuration()
    assert list(home.iterdir()) == []


def test_the_file_of_pyhrf_asks_for_nothing(config: Path) -> None:
    """Nobody has chosen its one process."""
    config.write_text(PYHRF)
    assert load_configuration() == Configuration()
    assert config.read_text() == PYHRF
    config.write_text(PYHRF.replace("server = None", "server = cluster"))
    assert load_configuration() == Configuration(server="cluster")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nb_procs = 1", "nb_procs = 2"), ("niceness = 10\nnb_procs", "niceness = 5\nnb_procs"),
        ("spm_path = None", "spm_path = /opt/spm"), ("save_result_dump = 0", "save_result_dump = 1"),
        ("hosts = /home/me/.pyhrf/hosts_LAN", "hosts = /home/me/hosts"), ("level = WARNING", ""),
        ("[log]\nlog_to_file = False\nlevel = WARNING", ""),
    ],
)  # fmt: skip
def test_a_file_that_somebody_has_changed(old: str, new: str, config: Path) -> None:
    config.write_text(PYHRF.replace(old, new))
    asked = Configuration(nb_procs=1, niceness=10)
    changed: dict[str, Any] = {
        "nb_procs = 2": {"nb_procs": 2},
        "niceness = 5\nnb_procs": {"niceness": 5},
    }
    assert load_configuration() == replace(asked, **changed.get(new, {}))


def test_one_process_that_somebody_has_asked_for(config: Path) -> None:
    config.write_text("[parallel-local]\nniceness = 10\nnb_procs = 1\n")
    assert load_configuration() == Configuration(nb_procs=1, niceness=10)


def test_the_cluster_section(config: Path) -> None:
    config.write_text(
        "[parallel-cluster]\nserver = cluster.example.org\nserver_id = slurm\nuser = é\nremote_path = /a b%c"
    )
    found = load_configuration()
    assert (found.server, found.server_id) == ("cluster.example.org", "slurm")
    assert (found.user, found.remote_path) == ("é", "/a b%c")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[parallel-local]\nnb_procs = many\n", ["[parallel-local] nb_procs", "'many'", "integer"]),
        ("[parallel-local]\nniceness = 20\n", ["[parallel-local] niceness", "'20'", "0 to 19"]),
        ("[parallel-local]\nnprocs = 2\n", ["[parallel-local]", "'nprocs'", "nb_procs, niceness"]),
        ("[parallel-cluster]\nhost = x\n", ["[parallel-cluster]", "'host'", "server_id"]),
        ("nb_procs = 1\n", ["no section headers"]),
        ("[parallel-local]\nnb_procs = 1\nnb_procs = 2\n", ["nb_procs", "already exists"]),
    ],
)
def test_errors_name_file_section_key_and_accepted_values(
    config: Path, text: str, parts: list[str]
) -> None:
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration()
    for part in [str(config), *parts]:
        assert part in str(caught.value)


def test_a_file_that_is_not_utf8(config: Path) -> None:
    config.write_bytes("[parallel-cluster]\nuser = é\n".encode("latin1"))
    with pytest.raises(ConfigurationError, match=r"not UTF-8.*byte 26"):
        load_configuration()


def test_a_file_that_cannot_be_read(config: Path) -> None:
    config.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration()


def test_a_file_that_was_named_must_exist(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration(home / "absent.cfg")
    monkeypatch.setenv("PYHRF_PARALLEL_CONFIG", str(home / "absent.cfg"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration()


def test_the_environment_variable_and_the_argument(
    config: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate((config, home / "environment", home / "argument"), 1):
        path.write_text(f"[parallel-local]\nnb_procs = {number}\n")
    assert load_configuration().nb_procs == 1
    monkeypatch.setenv("PYHRF_PARALLEL_CONFIG", str(home / "environment"))
    assert load_configuration().nb_procs == 2
    assert load_configuration(home / "argument").nb_procs == 3
    assert load_configuration({"parallel-local": {"nb_procs": -1}}).nb_procs == -1


@pytest.mark.parametrize("mapping", [{"parallel-local": {"nb_procs": "x"}}, {"parallel-local": 3}])
def test_a_mapping_is_checked_too(mapping: Any) -> None:
    with pytest.raises(ConfigurationError, match="config="):
        load_configuration(mapping)


def test_maps_refuse_a_bad_configuration_before_any_task() -> None:
    calls: list[int] = []
    with pytest.raises(ConfigurationError):
        remote_map(calls.append, [(1,)], config={"parallel-local": {"nb_procs": "x"}})
    assert calls == []


def test_a_cluster_that_does_not_exist() -> None:
    config = {"parallel-cluster": {"server": "cluster.invalid"}}
    with pytest.raises(ClusterError, match=r"cluster\.invalid cannot be reached"):
        remote_map(len, [("a",)], mode="remote_cluster", config=config)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resources", [{"memory": "4G"}, "4G", [("mem", "4G")]])
def test_resources_that_nobody_knows(mode: Mode, resources: Any, home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mem.*(, time|'4G')"):
        remote_map(Path.touch, [(home / "ran",)], mode=mode, resources=resources)
    with pytest.raises(ConfigurationError):
        submit_map(Path.touch, [(home / "ran",)], resources=resources)
    assert not (home / "ran").exists()
    assert list_runs() == []


class TestOfDocumentation:
    """Each setting is declared once, and described in two places."""

    def test_the_table_of_modes_has_all_keys(self) -> None:
        table = (ROOT / "docs" / "modes.md").read_text().partition("| section | key |")[2]
        rows = [row.split("|") for row in table.partition("\n\n")[0].splitlines()[2:]]
        found: dict[str, list[str]] = {}
        for _, section, keys, *_ in rows:
            found.setdefault(section.strip(" `") or list(found)[-1], []).extend(
                key.strip(" `") for key in keys.split(",")
            )
        assert found == {name: [*settings_of(name), *SECTIONS[name]] for name in SECTIONS}

    def test_the_docstring_has_all_attributes(self) -> None:
        lines = inspect.cleandoc(str(Configuration.__doc__)).partition("Attributes")[2].splitlines()
        names = [line.partition(" : ")[0] for line in lines if " : " in line and line[0] != " "]
        assert ", ".join(names) == ", ".join(f.name for f in fields(Configuration))
