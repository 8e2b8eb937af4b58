"""Measure this library side by side with what one would use instead, and print a table.

Absolute times depend on the machine and on what else it does; the quotients hardly do, as all that a row
compares is measured by turns. ``--write`` keeps the table in ``results.md``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import time
from importlib.metadata import version

from cases import CASES
from measuring import HERE, Row, neutral_environment

_PACKAGES = ("pyhrf_parallel", "joblib", "soma-workflow", "numpy")
_HEAD = ("name", "work", "measured", "compared with", "ratio", "target", "met")


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=CASES, metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument("--write", action="store_true", help="write the table to results.md, too")
    options = parser.parse_args()
    with neutral_environment():
        rows = _measure(options.only or list(CASES))
    table = _table(rows)
    print(table)
    if options.write:
        heading = "# Benchmarks, as `make bench` measures them"
        (HERE / "results.md").write_text(
            f"{heading}\n\n{_machine()}\n\n{table}\n", encoding="utf-8"
        )


def _measure(names: list[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        began = time.perf_counter()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        rows += CASES[name]()
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return rows


def _table(rows: list[Row]) -> str:
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    value, target, met = f"{row.value:.3g}{row.unit}", "", ""
    if row.target is not None:
        target, met = f"<= {row.target:.3g}{row.unit}", "yes" if row.met else "**no**"
    return row.name, row.work, row.measured, row.compared, value, target, met


def _machine() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    today = dt.datetime.now(tz=dt.UTC).date()
    return f"{today}: {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}."


if __name__ == "__main__":
    main()
