"""The group of all commands, and how their errors are printed."""

from __future__ import annotations

import os
import sys

import click

from pyhrf_parallel.commands import console
from pyhrf_parallel.commands.collect import collect
from pyhrf_parallel.commands.doctor.command import doctor
from pyhrf_parallel.commands.jde import jde
from pyhrf_parallel.commands.main import NAME
from pyhrf_parallel.commands.manage import cancel, clean, logs, retry, runs, status
from pyhrf_parallel.commands.setup.command import setup_cluster
from pyhrf_parallel.errors import ParallelError
from pyhrf_parallel.version import __version__

_WRONG_USE, _INTERRUPTED = 2, 130


class _InOrder(click.Group):
    """Lists the commands in the order in which they are needed."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The cluster is the one of [parallel-cluster] in ~/.pyhrf/config.cfg, or in the file that the "
    "environment variable PYHRF_PARALLEL_CONFIG names. A run is named by RUN_ID, by the first letters "
    "of it, or by 'last'.",
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
def cli() -> None:
    """Set up a cluster for pyhrf_parallel, and manage the runs on it."""


for _command in (setup_cluster, doctor, runs, status, logs, collect, cancel, retry, clean, jde):
    cli.add_command(_command)


def run(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        The arguments of the command; by default those of this process.
    """
    words = sys.argv[1:] if argv is None else argv
    say = console.error_teller(as_json="--json" in words)
    color = False if os.environ.get("NO_COLOR") else None  # else what it is printed to decides
    # Results may be of classes in modules beside the caller; last, so that they replace nothing.
    sys.path.append("")
    try:
        status = cli.main(argv, prog_name=NAME, standalone_mode=False, color=color)
    except click.UsageError as error:
        return say(_explain(error), _WRONG_USE)
    except (click.Abort, KeyboardInterrupt):
        return say("error: interrupted", _INTERRUPTED)
    except Exception as error:
        if not _is_expected(error):
            raise
        told = [f"error: {error or type(error).__name__}", *getattr(error, "__notes__", ())]
        return say("\n".join(told), 1)
    finally:
        sys.path.remove("")
    return status if isinstance(status, int) else 0


def _explain(error: click.UsageError) -> str:
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help; new in click 8.2
        return error.format_message()
    command = error.ctx.command_path if error.ctx else NAME
    return f"error: {error.format_message()} (see {command} --help)"


def _is_expected(error: Exception) -> bool:
    """Whether an error needs no traceback: a lost connection, a full disk."""
    known = (click.ClickException, ParallelError, OSError, EOFError)
    return isinstance(error, known) or type(error).__module__.startswith("paramiko.")
