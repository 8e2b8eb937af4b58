"""What all commands share: how they ask, print and connect."""

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
    from pyhrf_parallel.runs.remote import Cluster

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
    """Whether there is JSON on stdout, which takes one value only."""

    json: bool = False


_PRINTED = _Printed()


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    _PRINTED.json = True
    click.echo(json.dumps(value, indent=1))


def error_teller(*, as_json: bool) -> Callable[[str, int], int]:
    """Return what tells the error of a command that begins, and returns the exit status given to it.

    A script that wants JSON gets it, if it did not get any yet.
    """
    _PRINTED.json = False

    def say(text: str, status: int) -> int:
        click.echo(text, err=True)
        if as_json and not _PRINTED.json:
            print_json({"error": text.removeprefix("error: ")})
        return status

    return say


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of cells in columns that are as wide as they have to be."""
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on, unless that is already said.

    Raises
    ------
    click.UsageError
        If there is nobody to ask.
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
        If that is impossible; TransferError if only access to files is.
    BackendUnavailableError
        If paramiko is not installed.
    """
    require("paramiko", "remote_cluster", "cluster")
    from pyhrf_parallel.runs.remote import Cluster

    return Cluster(settings)


def split_user(host: str, settings: Configuration) -> Configuration:
    """Enter ``[USER@]HOST`` into a configuration."""
    user, _, server = host.rpartition("@")
    return replace(settings, server=server, user=user or settings.user)
