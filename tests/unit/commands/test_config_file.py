"""Changes to the configuration file, which leave everything else as it was."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from pyhrf_parallel.commands import config_file
from pyhrf_parallel.configuration import load_configuration


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[parallel-cluster]\nserver = new\nport = 5\n"),
        ("# mine", "# mine\n\n[parallel-cluster]\nserver = new\nport = 5\n"),
        ("[a]\nb: %s\n", "[a]\nb: %s\n\n[parallel-cluster]\nserver = new\nport = 5\n"),
        (
            "[parallel-cluster]\n  Server: old\n    and more\n\n# of port\nPORT=4\n\n\n[z]\nserver = z\n",
            "[parallel-cluster]\n  Server: new\n\n# of port\nPORT=5\n\n\n[z]\nserver = z\n",
        ),
        (
            "[parallel-cluster]\r\nserver = old\r\n\r\n[z]\r\n\u2028 = 1\r\n",
            "[parallel-cluster]\r\nserver = new\r\nport = 5\r\n\r\n[z]\r\n\u2028 = 1\r\n",
        ),
        (  # a line less deep than the next one would be continued by it
            "[parallel-cluster]\n  server = old\n  port = 4\n  queue = a\n",
            "[parallel-cluster]\n  server = new\n  port = 5\n  queue = a\n",
        ),
        ("[parallel-cluster]\nserver =\n", "[parallel-cluster]\nserver = new\nport = 5\n"),
    ],
)
def test_all_other_lines_stay(before: str, after: str) -> None:
    values = {"server": "new", "port": 5}
    assert config_file.changed(before, values) == after
    assert config_file.changed(after, values) == after


def test_mode_link_and_first_backup_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("[a]\n")
    real.chmod(0o640)
    link.symlink_to(real)
    for name in ("x", "y"):
        text, known = config_file.read(link)
        assert known.server in (None, "x")
        new = config_file.changed(text, {"server": name})
        expected = load_configuration({"parallel-cluster": {"server": name}})
        config_file.write(link, new, expected)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "real.bak").read_text() == "[a]\n"
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link", "real.bak"}


def test_nothing_is_written_that_means_something_else(tmp_path: Path) -> None:
    path = tmp_path / "config.cfg"
    path.write_text("[a]\n")
    expected = load_configuration({"parallel-cluster": {"server": "x"}})
    with pytest.raises(click.ClickException, match="by hand"):
        config_file.write(path, "[a]\n[parallel-cluster]\nserver = y\n", expected)
    assert [p.name for p in tmp_path.iterdir()] == ["config.cfg"]
    assert path.read_text() == "[a]\n"
