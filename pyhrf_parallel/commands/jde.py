"""``pyhrf-parallel jde``: run an XML configuration of pyhrf, region by region."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from pyhrf_parallel.commands import console


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
@click.option(
    "--retries", metavar="N", type=click.IntRange(min=0), default=0,
    help="How often a region is tried again whose job died.",
)  # fmt: skip
@console.json_option
def jde(
    config: Path,
    *,
    output: Path,
    cluster: bool,
    python: str,
    n_jobs: int | None,
    retries: int,
    as_json: bool,
) -> None:
    """Run the analysis that CFG.xml describes, as pyhrf_jde_buildcfg has written it, region by region.

    pyhrf runs unmodified, on Python 2.7, and need not be installed here if the jobs run elsewhere. DIR takes the
    place of the output_dir in CFG.xml.

    If regions fail, the results of the others are written, the exit status is 1, and the run is kept:
    pyhrf-parallel retry runs these regions again, and pyhrf-parallel collect completes the results.
    """
    from pyhrf_parallel.configuration import load_configuration
    from pyhrf_parallel.pyhrf27 import PyhrfTreatment
    from pyhrf_parallel.treatment_jobs.outcome import raise_failures
    from pyhrf_parallel.treatment_jobs.submit import submit_treatments

    configuration = load_configuration()
    if cluster and not configuration.has_cluster:
        raise click.ClickException("no cluster is configured: pyhrf-parallel setup-cluster")
    if not cluster and os.sep in python:  # a path of this machine
        python = os.path.abspath(python)  # noqa: PTH100
    name = config.stem
    treatment = PyhrfTreatment.from_xml(config, python)
    if not cluster:
        configuration = replace(configuration, server=None, server_id=None)
    with submit_treatments(
        {name: treatment}, {name: output}, label="JDE", n_jobs=n_jobs, retries=retries,
        result_transfer="sftp", config=configuration,
    ) as run:  # fmt: skip
        found = run.finish()[name]
    files = sorted(path.name for path in output.iterdir() if path.is_file())
    regions, failed = len(found.subject.regions), len(found.failures)
    if as_json:
        told = {"regions": regions, "failed": failed, "output": str(output), "files": files}
        console.print_json(told | {"kept_run": run.run_id if found.how_to_go_on else None})
    else:
        click.echo(
            f"{regions} regions{f', {failed} failed or not run' if failed else ''}; {len(files)} files are in "
            f"{output}."
        )
    raise_failures([found])
