"""``pyhrf-parallel collect``: fetch the results of a run into a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyhrf_parallel.commands import console
from pyhrf_parallel.commands.finding import find
from pyhrf_parallel.errors import ClusterError, RemoteException
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.progress import reporting

if TYPE_CHECKING:
    from pyhrf_parallel.runs.map_run import MapRun
    from pyhrf_parallel.runs.run import Run
    from pyhrf_parallel.treatment_jobs import TreatmentRun

_TOLD = 5  # failures that are printed


def _collect_treatments(run: TreatmentRun, *, keep: bool, as_json: bool) -> None:
    """Fetch the results of treatments."""
    from pyhrf_parallel.treatment_jobs.outcome import raise_failures

    with _leaving_alone(run):
        collected = run.collect(progress=None)
    treatments = run.treatments()
    rows = []
    for name, found in collected.items():
        if name in treatments:
            found.write_outputs(treatments[name])
        regions = len(found.subject.regions)
        rows.append(
            {"treatment": name, "regions": regions, "failed": len(found.failures),
             "result": found.subject.result_path if found.results else None}
        )  # fmt: skip
    complete = all(found.is_complete for found in collected.values())
    kept = keep or not complete
    if not kept:
        run.clean()
    if as_json:
        console.print_json({"run_id": run.run_id, "treatments": rows, "cleaned": not kept})
    else:
        for row in rows:
            click.echo(
                f"{row['treatment']}: {row['regions']} regions, {row['failed']} failed or not run: "
                f"{row['result'] or 'no result'}"
            )
        told = "The run was kept." if kept else "The run was cleaned."
        click.echo(told if complete else run.how_to_go_on)
    raise_failures(collected.values())


@contextmanager
def _leaving_alone(run: Run) -> Iterator[None]:
    """Say on Ctrl-C that the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nRun {run.run_id} goes on, and can be collected later.", err=True)
        raise


@click.command(short_help="Fetch the results of a run into a file.")
@click.argument("run_id")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The pickle to write, a list in the order of the tasks.",
)
@click.option("--keep", is_flag=True, help="Do not clean the run afterwards.")
@click.option("--no-wait", is_flag=True, help="Fail if the run is not over.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@console.json_option
@click.pass_context
def collect(
    context: click.Context,
    run_id: str,
    *,
    output: Path | None,
    keep: bool,
    no_wait: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Wait for the run RUN_ID, write its results to FILE, and remove the run.

    FILE is a pickle of the list of results; in the place of a task that failed, or was not run, is a
    RemoteException, and the exit status is 1 then. The run is removed from the cluster only after FILE is
    written. Ctrl-C leaves the run alone.

    Of treatments, each result goes to the directory that was named when it was submitted, with images and a
    report if the treatment makes them; FILE is not given. If regions failed, the run is kept, so that
    pyhrf-parallel retry can run them again.
    """
    from pyhrf_parallel.runs.map_run import MapRun

    with find(run_id) as run:
        if not isinstance(run, MapRun):
            if output is not None:
                raise click.UsageError(
                    "the results of treatments go where they were submitted to go"
                )
            if no_wait:
                _check_end(run)
            _collect_treatments(run, keep=keep, as_json=as_json)
            return
        if output is None:
            raise click.UsageError("give --output FILE")
        _check(output, force=force)
        if no_wait:
            _check_end(run)
        outcomes, problem = _gather(run)
        _write(output, _values(outcomes, problem), force=force)
        # Of what went wrong as a whole, more may be found on the cluster.
        kept = keep or bool(problem)
        if not kept:
            run.clean()
    _report(run.run_id, outcomes, output, kept=kept, as_json=as_json)
    if problem:
        raise click.ClickException(f"{problem} (run {run.run_id} was kept)")
    context.exit(0 if outcomes.settled == len(outcomes.values) and not outcomes.failed else 1)


def _check(output: Path, *, force: bool) -> None:
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists; give --force to replace it")
    if not os.access(output.absolute().parent, os.W_OK):
        raise click.ClickException(f"{output.absolute().parent} is no directory to write to")


def _check_end(run: Run) -> None:
    """Refuse a run that is not over."""
    if not run.done():
        raise click.ClickException(
            f"run {run.run_id} is not over: pyhrf-parallel status {run.run_id}"
        )


def _gather(run: MapRun) -> tuple[Outcomes, str]:
    """Wait for the end; return the outcomes of the tasks, and why some have none."""
    manifest = run.manifest
    with _leaving_alone(run), reporting(None, manifest.tasks, manifest.function) as report:
        outcomes = Outcomes(run.work, report)
        problem = run.follow_to_end(outcomes)
        if problem and not outcomes.settled:
            raise ClusterError(problem)
    return outcomes, problem


def _values(outcomes: Outcomes, problem: str) -> list[Any]:
    """Return the results, with an exception in place of each missing one."""
    values = list(outcomes.values)
    for index, failure in outcomes.failures.items():
        values[index] = failure
    for index in range(len(values)):
        if not outcomes.is_settled(index):
            message = f"Task {index} was not run: {problem or _why_not_run(outcomes)}"
            values[index] = RemoteException(
                message, index=index, call=outcomes.work.describe(index)
            )
    return values


def _why_not_run(outcomes: Outcomes) -> str:
    if outcomes.complete and outcomes.failures:
        return f"task {min(outcomes.failures)} had failed"
    return "the run was cancelled"


def _write(output: Path, values: list[Any], *, force: bool) -> None:
    import cloudpickle  # results may be of classes that only their script knows

    _check(output, force=force)  # it may have taken hours
    try:
        write_then_rename(output, cloudpickle.dumps(values))
    except OSError as error:
        raise click.ClickException(
            f"{output} cannot be written: {error.strerror or error}"
        ) from error


def _report(run_id: str, outcomes: Outcomes, output: Path, *, kept: bool, as_json: bool) -> None:
    tasks = len(outcomes.values)
    counts = {
        "tasks": tasks,
        "returned": outcomes.settled - outcomes.failed,
        "failed": outcomes.failed,
        "not_run": tasks - outcomes.settled,
    }
    if as_json:
        console.print_json(
            {"run_id": run_id, "output": str(output)} | counts | {"cleaned": not kept}
        )
    else:
        click.echo(
            f"{counts['returned']} results of {tasks} tasks are in {output}; the run was "
            f"{'kept' if kept else 'cleaned'}."
        )
    for line in _failures(outcomes, counts["not_run"]):
        click.echo(line, err=True)


def _failures(outcomes: Outcomes, not_run: int) -> list[str]:
    """Describe the failures: the first one in full, some others in short."""
    if not outcomes.failures and not not_run:
        return []
    ordered = [outcomes.failures[index] for index in sorted(outcomes.failures)]
    lines = [
        f"error: {len(ordered)} of {len(outcomes.values)} tasks failed, {not_run} were not run"
    ]
    lines += [str(failure) for failure in ordered[:1]]
    lines += [" - ".join(str(failure).splitlines()[:2]) for failure in ordered[1:_TOLD]]
    if len(ordered) > _TOLD:
        lines.append(f"and {len(ordered) - _TOLD} more")
    return lines
