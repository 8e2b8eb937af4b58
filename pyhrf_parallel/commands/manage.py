"""``pyhrf-parallel runs``, ``status``, ``logs``, ``cancel`` and ``clean``: managing runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from pyhrf_parallel.commands import console
from pyhrf_parallel.commands.finding import cluster_of, find, known_runs
from pyhrf_parallel.errors import ClusterError, ParallelError

if TYPE_CHECKING:
    from pyhrf_parallel.engine.plan import JobStatus
    from pyhrf_parallel.runs.manifests import Manifest
    from pyhrf_parallel.runs.run import RunStatus

_HEADINGS = ("RUN_ID", "FUNCTION", "TASKS", "CREATED", "CLUSTER")
_GOING_ON = ("running", "stopped")
_OVER = ("done", "failed", "cancelled")


@click.command(short_help="List the runs that were submitted from here.")
@click.option("--status", "ask", is_flag=True, help="Ask the clusters how far they are.")
@console.json_option
def runs(ask: bool, as_json: bool) -> None:
    """List the runs that this account has submitted from here and not cleaned, oldest first."""
    rows = [_summary(manifest) | (_progress(manifest) if ask else {}) for manifest in known_runs()]
    if as_json:
        console.print_json(rows)
    elif not rows:
        click.echo("There are no runs.")
    else:
        headings = (*_HEADINGS, "STATUS") if ask else _HEADINGS
        console.print_table(headings, [_cells(row) for row in rows])


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "run_id": manifest.run_id,
        "function": _what(manifest),
        "tasks": manifest.tasks,
        "created": manifest.created,
        "cluster": cluster_of(manifest),
        "directory": manifest.directory,
        "submitted_by": manifest.submitted_by,
    }


def _what(manifest: Manifest) -> str:
    """Return what a run does: the function of a map, or the treatments."""
    names = [str(treatment["name"]) for treatment in manifest.treatments]
    return f"treatment {', '.join(names)}" if names else manifest.function


def _progress(manifest: Manifest) -> dict[str, Any]:
    """Return the progress of a run, or why it is unknown: one failure must not hide the other runs."""
    try:
        with find(manifest.run_id) as run:
            status = run.status()
    except ParallelError as error:
        return {"phase": "unknown", "returned": None, "failed": None, "error": str(error)}
    return {
        "phase": status.phase,
        "returned": status.returned,
        "failed": status.failed,
        "error": status.error,
    }


def _cells(row: dict[str, Any]) -> list[object]:
    created = row["created"].replace("T", " ")[:16]
    cells = [row["run_id"], row["function"], row["tasks"], created, row["cluster"]]
    if "phase" in row:
        cells.append(
            _told(row["phase"], row["tasks"], row["returned"], row["failed"], row["error"])
        )
    return cells


def _told(phase: str, tasks: int, returned: int | None, failed: int | None, error: str) -> str:
    """Return the progress of a run as one line."""
    text = phase if returned is None else f"{phase}: {returned} of {tasks} tasks returned"
    if failed:
        text += f", {failed} failed"
    return f"{text} ({error.splitlines()[0]})" if error else text


@click.command(short_help="Say how far a run is, and how its jobs are doing.")
@click.argument("run_id")
@console.json_option
def status(run_id: str, as_json: bool) -> None:
    """Show the progress of the run RUN_ID and the state of its jobs."""
    with find(run_id) as run:
        manifest, found = run.manifest, run.status()
    if as_json:
        console.print_json(_summary(manifest) | asdict(found))
    else:
        _print_status(manifest, found)


def _print_status(manifest: Manifest, found: RunStatus) -> None:
    told = _told(found.phase, found.tasks, found.returned, found.failed, "")
    for name, text in (
        ("run", manifest.run_id),
        ("function", _what(manifest)),
        ("created", f"{manifest.created[:19].replace('T', ' ')} by {manifest.submitted_by}"),
        ("cluster", f"{cluster_of(manifest)}, {manifest.directory}"),
        ("status", told),
        ("error", found.error),
    ):
        if text:
            click.echo(f"{name:10}{text}")
    if found.jobs:
        click.echo()
        headings = ("JOB", "GROUP", "ID", "STATUS", "EXIT", "REASON")
        console.print_table(headings, [_job_cells(job) for job in found.jobs])


def _job_cells(job: JobStatus) -> list[object]:
    cells = (
        job.name,
        job.group,
        job.scheduler_id,
        job.status,
        job.exit_value,
        job.reason or job.waits,
    )
    return ["" if cell is None else cell for cell in cells]


@click.command(short_help="Print what the jobs of a run have written.")
@click.argument("run_id")
@click.option("--job", metavar="NAME", help="Only of this job, or of the 'engine'.")
@click.option(
    "--lines", "-n", metavar="N", type=click.IntRange(min=1), default=50, show_default=True,
    help="How many lines of each, the last ones.",
)  # fmt: skip
@click.option("--all", "whole", is_flag=True, help="All lines.")
@console.json_option
def logs(run_id: str, job: str | None, lines: int, whole: bool, as_json: bool) -> None:
    """Print the end of the output of the tasks and the engine of the run RUN_ID.

    Jobs that have written nothing are left out.
    """
    with find(run_id) as run:
        found = run.logs(None if whole else lines)
    if job is not None:
        if job not in found:
            raise click.ClickException(
                f"run {run.run_id} has no job {job!r} that has written something; those that have: "
                f"{', '.join(found) or 'none'}"
            )
        found = {job: found[job]}
    if as_json:
        console.print_json(found)
        return
    if not found:
        click.echo("Nothing was written.")
    for name, text in found.items():
        if job is None:
            cut = not whole and len(text.splitlines()) == lines
            click.secho(f"--- {name}{f' (the last {lines} lines)' if cut else ''} ---", bold=True)
        click.echo(text, nl=not text.endswith("\n"))


@click.command(short_help="Stop the jobs of a run.")
@click.argument("run_id")
@console.json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Stop the jobs of the run RUN_ID. Results of tasks that have ended can still be collected."""
    with find(run_id) as run:
        before = after = run.status()
        if before.phase in _GOING_ON:
            run.cancel()
            after = replace(before, phase="cancelled")
            with suppress(ClusterError):  # whoever waits for it may have removed it by now
                found = run.status()  # or removes it just now
                after = replace(found, phase="cancelled") if found.phase == "running" else found
    if as_json:
        console.print_json(_summary(run.manifest) | asdict(after))
    elif before.phase in _GOING_ON:
        click.echo(
            f"Run {run.run_id} is {_told(after.phase, after.tasks, after.returned, after.failed, '')}."
        )
    else:
        click.echo(f"Run {run.run_id} was {before.phase} already.")


@click.command(short_help="Run again what has failed of treatments.")
@click.argument("run_id")
@console.json_option
def retry(run_id: str, as_json: bool) -> None:
    """Run again the regions of the run RUN_ID that failed or were not run, and merge."""
    from pyhrf_parallel.runs.map_run import MapRun

    with find(run_id) as run:
        if isinstance(run, MapRun):
            raise click.ClickException(
                f"run {run.run_id} is a map: only treatments can be run again"
            )
        run.retry()
        found = run.status()
    if as_json:
        console.print_json(_summary(run.manifest) | asdict(found))
    else:
        click.echo(f"Run {run.run_id} goes on: pyhrf-parallel collect {run.run_id} waits for it.")


@click.command(short_help="Stop runs, and remove all that they have there and here.")
@click.argument("run_ids", metavar="RUN_ID...", nargs=-1)
@click.option("--all-done", is_flag=True, help="All that are over: done, failed or cancelled.")
@click.option(
    "--forget", is_flag=True, help="Do not connect: only remove what is known of the runs here."
)
@console.yes_option
@console.json_option
def clean(run_ids: Sequence[str], all_done: bool, forget: bool, yes: bool, as_json: bool) -> None:
    """Stop the runs RUN_ID... if they are not over, and remove them with their results.

    With --forget, for a cluster that cannot be reached any more, the files there are left.
    """
    if bool(run_ids) == all_done:
        raise click.UsageError("give either the ids of runs, or --all-done")
    if forget and all_done:
        raise click.UsageError("--forget needs the ids of runs")
    if all_done:
        manifests = [m for m in known_runs() if _progress(m)["phase"] in _OVER]
    else:
        # By id: the same run may be named twice.
        manifests = list({(m := find(name).manifest).run_id: m for name in run_ids}.values())
    if manifests:
        _ask(manifests, yes=yes)
    errors = {m.run_id: error for m in manifests if (error := _clean(m.run_id, here_only=forget))}
    cleaned = [m.run_id for m in manifests if m.run_id not in errors]
    if as_json:
        console.print_json({"cleaned": cleaned, "errors": errors})
    else:
        click.echo(f"Cleaned: {', '.join(cleaned) or 'none'}.")
    if errors:
        raise click.ClickException(
            "\n".join(f"{run_id}: {error}" for run_id, error in errors.items())
        )


def _ask(manifests: Sequence[Manifest], *, yes: bool) -> None:
    if not yes:
        rows = [_cells(_summary(manifest)) for manifest in manifests]
        console.print_table(_HEADINGS, rows)
    console.confirm("Remove these with their results?", yes=yes)


def _clean(run_id: str, *, here_only: bool) -> str:
    """Remove a run; return why that was impossible, or an empty string."""
    try:
        with find(run_id) as run:
            if here_only:
                run.forget()
            else:
                run.clean()
    except ParallelError as error:
        return str(error)
    return ""
