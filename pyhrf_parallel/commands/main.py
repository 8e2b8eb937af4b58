"""``pyhrf-parallel``: set up a cluster, find problems with it, and manage runs."""

from __future__ import annotations

import sys

from pyhrf_parallel.version import __version__

NAME = "pyhrf-parallel"


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        The arguments of the command; by default those of this process.

    Returns
    -------
    int
        0; 1 for an error; 2 for wrong use; 130 after Ctrl-C.
    """
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:  # who has no click asks, too
        print(f"{NAME} {__version__}")
        return 0
    try:
        import click  # noqa: F401
    except ImportError as error:
        print(
            f"error: the commands need click, which cannot be imported ({error}); install it with: "
            "pip install 'pyhrf_parallel[cluster]'",
            file=sys.stderr,
        )
        return 1
    from pyhrf_parallel.commands.cli import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
