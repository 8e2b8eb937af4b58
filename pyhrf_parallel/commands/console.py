"""What all commands share: asking, printing and connecting."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.extras import require

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Add the option ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(
        function
    )


def yes_option(function: F) -> F:
    """Add the option ``--yes`` to a command."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


@dataclass
class _Printed:
    """Whether JSON was printed, of which stdout takes one value only."""

    json: bool = False


_PRINTED = _Printed()


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    _PRINTED.json = True
    click.echo(json.dumps(value, indent=1))


def error_teller(*, as_json: bool) -> Callable[[str, int], int]:
    """Return a function that prints an error and returns the given exit status.

    With ``--json``, the error is printed as JSON, too, if no JSON was printed before.
    """
    _PRINTED.json = False

    def say(text: str, status: int) -> int:
        click.echo(text, err=True)
        if as_json and not _PRINTED.json:
            print_json({"error": text.removeprefix("error: ")})
        return status

    return say


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with columns as wide as their cells."""
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation, unless `yes`.

    Raises
    ------
    click.UsageError
        If there is no terminal to ask on.
    click.ClickException
        If the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give --yes if you are sure")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was changed")


def connect(settings: Configuration) -> Cluster:
    """Log in to a cluster.

    Raises
    ------
    ClusterError
        If that is impossible; TransferError if only the access to files is.
    BackendUnavailableError
        If paramiko is not installed.
    """
    require("paramiko", "remote_cluster", "cluster")
    from pyhrf_parallel.runs.cluster import Cluster

    return Cluster(settings)


def split_user(host: str, settings: Configuration) -> Configuration:
    """Enter ``[USER@]HOST`` into a configuration."""
    user, _, server = host.rpartition("@")
    return replace(settings, server=server, user=user or settings.user)
