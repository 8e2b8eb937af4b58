"""``pyhrf-parallel setup-cluster``: make a Python environment on the cluster, and write the configuration."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyhrf_parallel.commands import config_file, console
from pyhrf_parallel.commands.doctor.login_shell import adopt_login
from pyhrf_parallel.commands.setup.environment import Environment, SetupAction
from pyhrf_parallel.commands.setup.interpreters import MINOR
from pyhrf_parallel.commands.setup.queues import find_queues, has_slurm
from pyhrf_parallel.configuration import Configuration, settings_of

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

_OF_ONE_CLUSTER = [
    key for key, setting in settings_of(config_file.SECTION).items() if setting["of_one_cluster"]
]
_ALWAYS = ("server", "remote_python", "scheduler")  # are written even where they are the defaults


@click.command("setup-cluster", short_help="Make the environment on a cluster, and configure it.")
@click.argument("host", metavar="[USER@]HOST")
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), help="Of the SSH server.")
@click.option(
    "--identity",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A private key.",
)
@click.option(
    "--remote-path", metavar="DIR", help="Where runs live: login and compute nodes share it.  [~]"
)
@click.option(
    "--remote-python",
    metavar="PATH",
    help="The interpreter for runs; its environment is made if it does not exist.  "
    f"[{Configuration.remote_python}]",
)
@click.option(
    "--base-python", metavar="COMMAND", help=f"The cluster's Python {MINOR}.  [looked for]"
)
@click.option(
    "--scheduler",
    type=click.Choice(["slurm", "local_basic"]),
    help="local_basic is the login node itself.  [slurm if there is sbatch]",
)
@click.option(
    "--setup",
    metavar="SHELL",
    help="What to run before anything else there, for example 'module load slurm python/3.11'.  [what "
    "a login sets, if Slurm needs it]",
)
@click.option("--queue", metavar="NAME", help="The partition for jobs.  [the cluster's default]")
@click.option("--online", is_flag=True, help="Let pip on the cluster use its package index.")
@click.option(
    "--with",
    "packages",
    metavar="PACKAGE",
    multiple=True,
    help="Install this there too, for example numpy (implies --online; may be repeated).",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@console.yes_option
@console.json_option
def setup_cluster(
    host: str,
    *,
    base_python: str | None,
    online: bool,
    packages: Sequence[str],
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a Python environment on the cluster HOST, and write [parallel-cluster] of ~/.pyhrf/config.cfg.

    HOST is a name of ~/.ssh/config or of the network, and `ssh HOST` has to work without questions. The
    packages are sent from here: the cluster needs no access to the internet. All other lines of the
    configuration file stay as they are; the first one is kept as config.cfg.bak.

    Existing parts are left alone: run the command again at any time, for example after an update of
    pyhrf_parallel.
    """
    path = config_file.configuration_file()
    text, known = config_file.read(path)
    with console.connect(_wanted(host, known, options)) as cluster:
        scheduler = _scheduler(cluster, options["scheduler"], config_file.keys_of(text), known)
        if scheduler == "slurm" and not cluster.settings.setup:
            adopt_login(cluster)
        wanted = replace(cluster.settings, scheduler=scheduler)
        _check_queue(cluster, wanted)
        environment = Environment(cluster, base_python, online=online, packages=packages)
        actions = environment.actions()
        actions += _configuring(path, text, known, wanted)
        if not as_json:
            _show(actions)
        if actions and not dry_run:
            console.confirm("Do that?", yes=yes)
            _do(actions, environment, quiet=as_json)
        there = None if dry_run else environment.verify()
    _report(wanted, path, actions, there, as_json=as_json)


def _wanted(host: str, known: Configuration, options: dict[str, Any]) -> Configuration:
    """Return the settings for the cluster; of those for another cluster, only the general ones are kept."""
    base = console.split_user(host, known)
    if base.server != known.server:
        default = Configuration()
        unset = {key: getattr(default, key) for key in _OF_ONE_CLUSTER}
        base = console.split_user(host, replace(known, **unset))
    given = {key: value for key, value in options.items() if value is not None}
    if "identity" in given:
        given["identity_file"] = str(Path(given.pop("identity")).absolute())
    # All is said here: a resource of soma-workflow would only bring another interpreter in.
    return replace(base, server_id=None, **given)


def _scheduler(cluster: Cluster, given: str | None, keys: set[str], known: Configuration) -> str:
    if given:
        return given
    if "scheduler" in keys and known.server == cluster.settings.server:
        return known.scheduler
    return "slurm" if adopt_login(cluster) or has_slurm(cluster) else "local_basic"


def _check_queue(cluster: Cluster, wanted: Configuration) -> None:
    if wanted.queue and wanted.scheduler == "slurm":
        queues = find_queues(cluster)
        if wanted.queue not in queues:
            raise click.ClickException(
                f"{cluster.address} has no queue {wanted.queue!r}, only {', '.join(queues) or 'none'}"
            )


def _configuring(
    path: Path, text: str, known: Configuration, wanted: Configuration
) -> list[SetupAction]:
    values = {key: getattr(wanted, key) for key in _ALWAYS}
    for key in _OF_ONE_CLUSTER:
        if key not in values and getattr(wanted, key) != getattr(known, key):
            value = getattr(wanted, key)  # None is how pyhrf writes "the default"
            values[key] = str(value).replace("\n", "\n    ")
    new = config_file.changed(text, values)
    if new == text:
        return []
    diff = difflib.unified_diff(text.splitlines(), new.splitlines(), lineterm="", n=1)
    lines = [f"write {path}:", *list(diff)[3:]]
    expected = replace(wanted, server_id=None)
    return [
        SetupAction("here", "\n    ".join(lines), lambda: config_file.write(path, new, expected))
    ]


def _show(actions: list[SetupAction]) -> None:
    place = ""
    for action in actions:
        if action.place != place:
            place = action.place
            click.secho(f"{'Here' if place == 'here' else f'On {place}'}:", bold=True)
        click.echo(f"  {action.text}")


def _do(actions: list[SetupAction], environment: Environment, *, quiet: bool) -> None:
    try:
        for number, action in enumerate(actions, 1):
            action.action()
            if not quiet:
                click.echo(f"  {number} of {len(actions)} done")
    finally:
        environment.clear()


def _report(
    wanted: Configuration,
    path: Path,
    actions: list[SetupAction],
    there: dict[str, str] | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        console.print_json(
            {
                "server": wanted.server,
                "changed": bool(actions) and there is not None,
                "steps": [{"place": action.place, "text": action.text} for action in actions],
                "environment": there,
                "configuration": str(path),
            }
        )
    elif there is None:
        click.echo("Nothing was changed (--dry-run)." if actions else "Nothing has to be done.")
    else:
        _say_what_is_there(wanted, path, there, changed=bool(actions))


def _say_what_is_there(
    wanted: Configuration, path: Path, there: dict[str, str], *, changed: bool
) -> None:
    click.echo(
        f"{wanted.server} is {'set up' if changed else 'set up already, nothing was changed'}: "
        f"{wanted.remote_python} has Python {there['python']}, pyhrf_parallel {there['pyhrf_parallel']} "
        f"and soma-workflow {there['soma-workflow']}; {path} names it, with scheduler "
        f"{wanted.scheduler}."
    )
    if changed:
        click.echo(
            "What your functions import has to be there too (--with numpy, for example). Next: "
            "pyhrf-parallel doctor"
        )
