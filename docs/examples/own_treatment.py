"""A treatment of your own: the regions are the columns of a table of signals.

The commands of its job graph are this very file: ``own_treatment.py split`` and ``own_treatment.py estimate``.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np


class TableTreatment:
    """Finds mean and variance of each column of a csv file."""

    result_dump_file: str | None = None

    def __init__(self, table: str) -> None:
        self.table = table

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[int]]:
        """Write the signal of each region to a file."""
        signals = np.loadtxt(self.table, delimiter=",", ndmin=2).T
        place = Path(output_dir or ".").absolute()
        files = [str(place / f"roidata_{label:04d}.pck") for label in range(1, len(signals) + 1)]
        for file, signal in zip(files, signals, strict=True):
            if not dry:
                Path(file).write_bytes(pickle.dumps(signal, 3))
        return files, list(range(1, len(signals) + 1))

    def get_data_files(self) -> list[str]:
        """Return what is to be sent."""
        return [self.table]

    def replace_data_dir(self, d: str) -> None:
        """Look for the table elsewhere."""
        self.table = os.path.join(d, os.path.basename(self.table))  # noqa: PTH118, PTH119

    def set_init_param(self, name: str, value: Any) -> None:
        """Take no notice: there is nothing to be set."""

    def to_xml(self) -> str:
        """Return what the commands make it of again."""
        return self.table


def estimate(file: Path) -> None:
    """Analyse one region; the result has the name of its data."""
    signal = pickle.loads(file.read_bytes())
    found = {"mean": float(signal.mean()), "variance": float(signal.var())}
    result = file.with_name(file.name.replace("roidata", "result"))
    result.write_bytes(pickle.dumps((file.name, found, "ok"), 3))


if __name__ == "__main__":
    step, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    if step == "split":
        TableTreatment(Path(options["-c"]).read_text()).dump_roi_datasets(output_dir=options["-d"])
    else:
        estimate(Path(options["-r"]))
