"""``pyhrf-parallel jde``: run an XML configuration of pyhrf, region by region."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pyhrf_parallel.commands import console
from pyhrf_parallel.commands.console import CommandError


@click.command(short_help="Run an XML configuration of pyhrf 0.5, region by region.")
@click.argument("config", metavar="CFG.xml", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--output", "-o", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
    help="Where result.pck and pyhrf's own images go.",
)  # fmt: skip
@click.option("--cluster", is_flag=True, help="On the configured cluster, and not on this machine.")
@click.option(
    "--python", metavar="PATH", default="python2.7", show_default=True,
    help="The Python 2.7 that has pyhrf, where the jobs run.",
)  # fmt: skip
@click.option("--n-jobs", metavar="N", type=int, help="How many jobs share the regions.")
@console.json_option
def jde(
    config: Path, *, output: Path, cluster: bool, python: str, n_jobs: int | None, as_json: bool
) -> None:
    """Run the analysis that CFG.xml describes, as pyhrf_jde_buildcfg has written it, region by region.

    pyhrf runs unmodified, on Python 2.7, and need not be installed here if the jobs run elsewhere. If regions
    fail, the results of the others are written, and the exit status is 1.
    """
    from pyhrf_parallel.configuration import load_configuration
    from pyhrf_parallel.pyhrf27 import PyhrfTreatment
    from pyhrf_parallel.treatment_jobs import run_soma_workflow

    configuration = load_configuration()
    if cluster and not configuration.has_cluster:
        raise CommandError("no cluster is configured: pyhrf-parallel setup-cluster")
    if not cluster and os.sep in python:  # a path of this machine
        python = os.path.abspath(python)  # noqa: PTH100
    name = config.stem
    treatment = PyhrfTreatment.from_xml(config, python)
    server = (configuration.server_id or configuration.server) if cluster else None
    results = run_soma_workflow(
        {name: treatment}, None, None, server, configuration.server, configuration.user, None, {name: output},
        "JDE", wait_ending=True, n_jobs=n_jobs, result_transfer="sftp",
    )  # fmt: skip
    files = sorted(path.name for path in output.iterdir() if path.is_file())
    if as_json:
        console.print_json({"regions": len(results), "output": str(output), "files": files})
    else:
        click.echo(f"{len(results)} regions; {len(files)} files are in {output}.")
