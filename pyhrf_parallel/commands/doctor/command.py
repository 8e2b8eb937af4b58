"""``pyhrf-parallel doctor``: check everything between here and a job on the cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import click

from pyhrf_parallel.commands import console
from pyhrf_parallel.commands.doctor.access import ACCESS
from pyhrf_parallel.commands.doctor.chain import Chain, Check, Finding, examine
from pyhrf_parallel.commands.doctor.site import PYHRF, SITE
from pyhrf_parallel.configuration import load_configuration
from pyhrf_parallel.errors import ParallelError

CHECKS = (*ACCESS, *SITE)
#: Where no cluster is configured, and jobs run on this machine.
HERE = (*ACCESS[:2], replace(SITE[-1], needs=("cluster",)))
_COLORS = {"ok": "green", "warn": "yellow", "FAIL": "red", "skip": "yellow"}


@click.command(short_help="Find problems, from the configuration to a job.")
@click.option("--no-job", is_flag=True, help="Do not run a job.")
@click.option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="How long the job may take.",
)
@click.option(
    "--python27",
    metavar="PATH",
    help="A Python 2.7 on the cluster to check for pyhrf, for the command jde.",
)
@console.json_option
@click.pass_context
def doctor(
    context: click.Context, no_job: bool, patience: float, python27: str | None, as_json: bool
) -> None:
    """Check everything between here and a job on the cluster, step by step.

    Each line says ok, warn, FAIL or skip, and what was found; advice follows each FAIL and warn. The last check
    maps two small tasks in jobs of the cluster, or of this machine if no cluster is configured. The exit status
    is 0 if nothing fails, else 1.
    """
    findings = []
    chain = Chain(not no_job, patience, python27)
    watched = sys.stdout.isatty() and not as_json
    for name, finding in _findings(chain, _announce if watched else _say_nothing):
        findings.append({"check": name, **finding._asdict()})
        if not as_json:
            _show(name, finding)
    ok = all(finding["outcome"] != "FAIL" for finding in findings)
    if as_json:
        console.print_json({"ok": ok, "checks": findings})
    context.exit(0 if ok else 1)


def _findings(chain: Chain, announce: Callable[[str], object]) -> Iterator[tuple[str, Finding]]:
    try:
        yield from examine(_checks(chain), chain, announce)
    finally:
        if chain.connected is not None:
            chain.connected.close()


def _checks(chain: Chain) -> tuple[Check, ...]:
    with suppress(ParallelError):  # told by the first check
        if not load_configuration().has_cluster:
            if chain.python27:
                raise click.UsageError(
                    "--python27 is looked for on a cluster, and none is configured"
                )
            return HERE
    return (*CHECKS, PYHRF) if chain.python27 else CHECKS


def _say_nothing(_name: str) -> None:
    pass


def _announce(name: str) -> None:
    """Show the current check, in a line that its finding replaces."""
    click.echo(f"...   {name}\r", nl=False)


def _show(name: str, finding: Finding) -> None:
    width = max(len(check.name) for check in CHECKS)
    outcome = click.style(f"{finding.outcome:4}", fg=_COLORS[finding.outcome])
    found = finding.found.replace("\n", f"\n{' ' * (width + 8)}")
    click.echo(f"{outcome}  {name:{width}}  {found}")
    if finding.advice:
        click.echo(f"{' ' * (width + 6)}  -> {finding.advice}")
