"""Whole scripts, run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

from tests.conftest import ROOT, files_in, furnish


class Script:
    """Runs scripts in directories of their own, and finds all processes that they started.

    Parameters
    ----------
    directory : Path
        Empty; HOME and TMPDIR will be in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.token = f"TOKEN_{uuid.uuid4().hex}"
        # What users have, and nothing of what whoever runs the tests has.
        self.environment = {
            name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ
        }
        self.environment |= {self.token: "1", "PYTHONPATH": str(ROOT)}
        for name in ("HOME", "TMPDIR"):
            (directory / name).mkdir()
            self.environment[name] = str(directory / name)
        furnish(directory / "HOME")
        # joblib would put its own files there, out of sight
        self.environment["JOBLIB_TEMP_FOLDER"] = self.environment["TMPDIR"]

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        path = self.directory / "script.py"
        path.write_text(text)
        return subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environment,
            start_new_session=True,
        )

    def run(self, text: str, *arguments: str) -> tuple[str, str]:
        process = self.start(text, *arguments)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        return out, err

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if self.token in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 40
        while not list(self.directory.glob(pattern)):
            assert time.monotonic() < deadline, f"no {pattern}"
            time.sleep(0.02)

    def assert_nothing_left(self) -> None:
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [p.cmdline() for p in left] == []
        for name in ("HOME", "TMPDIR"):
            assert files_in(self.directory / name) == []
