"""Change keys of a configuration file, and nothing else in it.

configupdater is of no use here: it drops the indentation of a line that it changes, and makes the lines below its
continuation.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from pyhrf_parallel.account import home
from pyhrf_parallel.configuration import ENVIRONMENT_VARIABLE, Configuration, load_configuration

SECTION = "parallel-cluster"
_KEY = re.compile(r"(?P<indent>\s*)(?P<key>[^#;\[\s][^=:]*?)\s*(?P<sign>[=:])\s*(?P<value>.*)")


def configuration_file() -> Path:
    """Return the file that `load_configuration` reads."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named).expanduser() if named else home() / ".pyhrf" / "config.cfg"


def read(path: Path) -> tuple[str, Configuration]:
    """Return the text of a configuration file and its settings; no text and the defaults if there is none."""
    if not path.exists():
        return "", Configuration()
    meaning = load_configuration(path)
    return path.read_bytes().decode(), meaning  # not read_text, which would lose a "\r"


def keys_of(text: str) -> set[str]:
    """Return the keys in the section."""
    lines = text.split("\n")
    start, stop = _section(lines)
    matches = (_KEY.match(line) for line in lines[start:stop])
    return {match["key"].lower() for match in matches if match}


def changed(text: str, values: Mapping[str, object]) -> str:
    r"""Return the text with these values in the section, and all other lines unchanged.

    Examples
    --------
    >>> changed('[parallel-cluster]\n# mine\nserver: old\n', {'server': 'new', 'port': 23})
    '[parallel-cluster]\n# mine\nserver: new\nport = 23\n'
    """
    end = "\r" if "\r\n" in text else ""
    lines = text.split("\n")  # splitlines would split at, and lose, other characters too
    if _section(lines)[0] == 0:
        lines[-1:] = [*filter(None, lines[-1:]), *([end] if text else []), f"[{SECTION}]{end}", ""]
    for key, value in values.items():
        lines = _set(lines, key, str(value), end)
    result = "\n".join(lines)
    return result if result == text or result.endswith("\n") else f"{result}{end}\n"


def _section(lines: list[str]) -> tuple[int, int]:
    """Return the range of the lines of the section, without its header; (0, 0) if there is none."""
    start = 0
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("[") and start:
            return start, number - 1
        if line.lstrip().startswith(f"[{SECTION}]"):
            start = number
    return start, len(lines) if start else 0


def _set(lines: list[str], key: str, value: str, end: str) -> list[str]:
    start, stop = _section(lines)
    for number in range(start, stop):
        match = _KEY.match(lines[number])
        if match and match["key"].lower() == key:
            after = _end_of_value(lines, number, stop)
            if match["value"].strip() == value and after == number + 1:
                return lines
            before = lines[number][: match.start("value")].rstrip("\r")
            gap = "" if match["value"].strip() else " "
            line = f"{before}{gap}{value}{end}"
            return [*lines[:number], line, *lines[after:]]
    while stop > start and not lines[stop - 1].strip():
        stop -= 1
    return [*lines[:stop], f"{key} = {value}{end}", *lines[stop:]]


def _end_of_value(lines: list[str], number: int, stop: int) -> int:
    """Return the line after the value that begins in a line and goes on in deeper lines."""
    depth, end = _depth(lines[number]), number + 1
    for following in range(number + 1, stop):
        line = lines[following]
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if _depth(line) <= depth:
            break
        end = following + 1
    return end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def write(path: Path, text: str, expected: Configuration) -> None:
    """Replace a configuration file atomically, and keep a copy of the first version.

    Parameters
    ----------
    path : Path
        The file; a symbolic link is followed.
    text : str
        Its new content.
    expected : Configuration
        The settings that it must hold.

    Raises
    ------
    click.ClickException
        If it would hold others, or cannot be written. The file is then unchanged.
    """
    path = path.resolve()
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(new, text, path.stat().st_mode & 0o777 if path.exists() else 0o600)
        if load_configuration(new) != expected:
            raise click.ClickException(
                f"{path} has a form that this command cannot edit: do it by hand ({text})"
            )
        backup = path.with_name(f"{path.name}.bak")
        if path.exists() and not backup.exists():
            shutil.copy2(path, backup)
        new.replace(path)
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        with suppress(OSError):
            new.unlink()


def _create(path: Path, text: str, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
        os.fchmod(file.fileno(), mode)
        file.write(text.encode())
