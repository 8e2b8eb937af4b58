"""Resources of a job: reading the values of `resources` and of their configuration keys.

They become lines of a script for the scheduler, so each is checked to be a single plain value.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

_SIZE = re.compile(r"\d+(?:[KMGT]B?)?", re.IGNORECASE)
_TIME = re.compile(r"(?:\d+-)?\d+(?::\d+){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_NAME = re.compile(r"[^\s\x00-\x1f]+")


def read_positive(text: str) -> int:
    """Read a positive integer."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def read_options(text: str) -> str:
    """Read options of the scheduler's command, on one line."""
    if any("\n" in word for word in shlex.split(text)):
        raise ValueError
    return text


def _size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        raise ValueError
    return text.upper().removesuffix("B")


def _fitting(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return read


#: Of each resource, what reads it and what it accepts. A reader raises ValueError for anything else.
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "mem": (_size, "a size as 4G or 500M"),
    "time": (_fitting(_TIME), "a time as 01:30:00, 2-12:00:00, or 90 for minutes"),
    "cpus": (read_positive, "an integer from 1 on"),
    "queue": (_fitting(_NAME), "the name of a queue"),
}


def read_amount(key: str, value: object) -> Any:
    """Return a resource in the form that the scheduler takes.

    Raises
    ------
    ValueError
        If it is not accepted; the message says what is.

    Examples
    --------
    >>> read_amount('mem', '4gb'), read_amount('time', 90), read_amount('cpus', '2')
    ('4G', '90', 2)
    >>> read_amount('mem', '4 gigs')
    Traceback (most recent call last):
        ...
    ValueError: mem: '4 gigs' is not accepted; use a size as 4G or 500M
    """
    reader, accepted = READERS[key]
    text = str(value).strip()
    try:
        return reader(text)
    except ValueError:
        raise ValueError(f"{key}: {text!r} is not accepted; use {accepted}") from None
