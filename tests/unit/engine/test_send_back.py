"""What a job may replace on the machine that it sends a result to, whatever programs that machine has."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pyhrf_parallel.engine.quoting import remote_command
from pyhrf_parallel.engine.send_back import PLACE_SCRIPT

NEW, OLD = b"the new result", b"the earlier result"
PROGRAMS = ("sh", "cat", "ln", "mv", "rm", "sed", "wc")
CHECKSUMS = ("sha256sum", "shasum", "openssl")
SHELLS = [name for name in ("sh", "bash", "dash", "tcsh", "csh", "zsh") if shutil.which(name)]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Machine:
    """A directory with a file that has arrived, a target, and the programs that there are."""

    def __init__(self, place: Path) -> None:
        self.place, self.binaries = place, place / "bin"
        self.results = place / 'it\'s `x` $HOME !\n\\ "é"'
        self.target = self.results / "-a 'result'.pck"
        for directory in (self.binaries, self.results):
            directory.mkdir()
        (place / "result").write_bytes(NEW)
        self.have(*PROGRAMS)

    def have(self, *programs: str) -> None:
        for name in programs:
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"no {name}")
            (self.binaries / name).symlink_to(found)

    def run(self, *replaceable: str, shell: str = "sh", expected: str = sha256(NEW)) -> str:
        """Return what is said; nothing but the target may be left."""
        words = [str(self.place), str(self.target), expected, str(len(NEW)), *replaceable]
        command = remote_command(["sh", "-c", PLACE_SCRIPT, "sh", *words])
        done = subprocess.run(
            [str(shutil.which(shell)), "-c", command], capture_output=True, text=True, check=True,
            env={"PATH": str(self.binaries), "HOME": str(self.place)},
        )  # fmt: skip
        assert {*self.results.iterdir()} <= {self.target}
        return done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_is_replaced_but_what_may_be(shell: str, machine: Machine) -> None:
    machine.have("sha256sum")
    assert machine.run(shell=shell) == "sent"
    assert machine.target.read_bytes() == NEW
    machine.target.write_bytes(OLD)
    told = machine.run(sha256(b"another"), shell=shell)
    assert told == f"refused a file of {len(OLD)} bytes, SHA-256 {sha256(OLD)}"
    assert machine.target.read_bytes() == OLD
    assert machine.run(sha256(b"another"), sha256(OLD), shell=shell) == "sent"
    assert machine.target.read_bytes() == NEW


@pytest.mark.parametrize("program", CHECKSUMS)
def test_any_program_that_computes_checksums(program: str, machine: Machine) -> None:
    machine.have(program)
    if program == "shasum":
        machine.have("perl")
    machine.target.write_bytes(OLD)
    assert machine.run() == f"refused a file of {len(OLD)} bytes, SHA-256 {sha256(OLD)}"
    assert machine.run(sha256(OLD)) == "sent"
    assert machine.target.read_bytes() == NEW
    assert machine.run(sha256(NEW), expected=sha256(b"what was sent")) == "damaged"


def test_no_program_that_computes_checksums(machine: Machine) -> None:
    assert machine.run() == "sent"
    assert machine.target.read_bytes() == NEW
    machine.target.write_bytes(OLD)
    assert "cannot be computed there" in machine.run(sha256(OLD))
    assert machine.target.read_bytes() == OLD
    (machine.place / "result").write_bytes(NEW[:-1])
    assert machine.run() == "damaged"


def test_what_is_no_file(machine: Machine, tmp_path: Path) -> None:
    machine.have("sha256sum")
    machine.target.mkdir()
    assert machine.run() == "refused a directory"
    assert list(machine.target.iterdir()) == []
    machine.target.rmdir()
    machine.target.symlink_to(tmp_path / "nowhere")
    assert machine.run() == "refused not a regular file"
    assert machine.target.is_symlink()
    assert not (tmp_path / "nowhere").exists()
    machine.target.unlink()
    os.mkfifo(machine.target)
    assert machine.run() == "refused not a regular file"


def test_a_file_system_without_hard_links(machine: Machine) -> None:
    machine.have("sha256sum", "false")
    (machine.binaries / "ln").unlink()
    (machine.binaries / "false").rename(machine.binaries / "ln")
    assert machine.run() == "sent"
    assert machine.target.read_bytes() == NEW
    machine.target.write_bytes(OLD)
    assert machine.run().startswith("refused a file")
    assert machine.run(sha256(OLD)) == "sent"


def test_a_file_that_appears_at_the_last_moment(machine: Machine) -> None:
    """Between the look whether there is one and the name that the new one gets."""
    machine.have("sha256sum")
    real = (machine.binaries / "ln").readlink()
    (machine.binaries / "ln").unlink()
    late = machine.binaries / "ln"
    late.write_text(f'#!{shutil.which("sh")}\nprintf mine >"$3"\nexec {real} "$@"\n')
    late.chmod(0o755)
    assert machine.run(sha256(OLD)) == f"refused a file of 4 bytes, SHA-256 {sha256(b'mine')}"
    assert machine.target.read_bytes() == b"mine"
