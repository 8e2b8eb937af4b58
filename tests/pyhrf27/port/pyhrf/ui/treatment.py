"""What pyhrf's own treatment does in `run(parallel='cluster')`, call by call."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import pyhrf


class Analyser:
    outFile = "unused"  # noqa: N815  (its name)

    def get_label(self) -> str:
        return "pyhrf JDE"


class FMRITreatment:
    def __init__(self, table: str, output_dir: str, make_outputs: bool = True) -> None:
        self._init_parameters = {
            "table": table, "output_dir": output_dir, "make_outputs": make_outputs,
        }  # fmt: skip
        self.output_dir = output_dir
        self.make_outputs = make_outputs
        self.result_dump_file = None
        self.analyser = Analyser()
        self.retrieved: list[Any] = []

    def set_init_param(self, name: str, value: Any) -> None:
        assert name in self._init_parameters
        self._init_parameters[name] = value

    def get_data_files(self) -> list[str]:
        return [self._init_parameters["table"]]  # type: ignore[list-item]

    def replace_data_dir(self, d: str) -> None:
        table = str(self._init_parameters["table"])
        self._init_parameters["table"] = os.path.join(d, os.path.basename(table))  # noqa: PTH118, PTH119

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[Any]]:
        signals = np.loadtxt(str(self._init_parameters["table"]), delimiter=",").T
        place = Path(output_dir or Path(self.output_dir, "ROI_datasets"))
        if output_dir is None:  # in a dry split, too
            place.mkdir(parents=True, exist_ok=True)
        ids = list(np.arange(1, len(signals) + 1, dtype=np.int32)[::-1])  # the biggest first
        files = [str(place.absolute() / f"roidata_{i:04d}.pck") for i in ids]
        for roi_id, file in zip(ids, files, strict=True):
            if not dry:
                Path(file).write_bytes(pickle.dumps((int(roi_id), signals[roi_id - 1].tolist()), 0))
        return files, ids

    def run(self, parallel: str) -> Any:
        assert parallel == "cluster"
        from pyhrf.parallel import run_soma_workflow  # type: ignore[import-not-found]

        cfg = pyhrf.cfg["parallel-cluster"]
        name = "default_treatment"
        remote_path = os.path.join(cfg["remote_path"], time.strftime("%Y_%H_%M_%S"))  # noqa: PTH118
        os.mkdir(remote_path)  # noqa: PTH102
        result = run_soma_workflow(
            {name: self}, "pyhrf_jde_estim", {name: tempfile.mkdtemp(prefix="pyhrftmp")}, cfg["server_id"],
            cfg["server"], cfg["user"], {name: remote_path}, {name: os.path.abspath(self.output_dir)},  # noqa: PTH100
            self.analyser.get_label(), wait_ending=True,
        )  # fmt: skip
        assert len(result) > 0
        return self.output(result, self.result_dump_file is not None, self.make_outputs)

    def output(
        self, result: list[Any], dump: bool = True, outputs: bool = True
    ) -> dict[int, float]:
        assert isinstance(result, list)
        assert all(isinstance(one, tuple) and one[2] == "ok" for one in result)
        self.retrieved = result
        return {roi: found for roi, found, _ in result} if outputs else {}
