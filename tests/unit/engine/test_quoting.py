"""What goes over SSH is read by the account's login shell, whatever that is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhrf_parallel.engine.quoting import remote_command

HOSTILE = [
    "", " ", "~", "~root", "*", "$HOME", "`id`", "$(id)", "it's", 'a "b"', "a!b", "!!", "!1", "\\", "\\n",
    "\\0101", "\n", "a\nb\n", "\t", "#", ";", "&", "|", "<", ">", "%s", "%b", "{a,b}", "[a]", "^a^b", "é", "-n",
    "import x\nprint('!')\n", "\udcff", "x" * 10_000,
]  # fmt: skip
ECHO = "import json, sys; print(json.dumps(sys.argv[1:]))"


SHELLS = [
    name for name in ("sh", "bash", "dash", "tcsh", "csh", "zsh", "ksh") if shutil.which(name)
]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(shell: str, command: str) -> str:
    """Run a command as sshd does."""
    done = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_hostile_words_arrive_as_they_are(shell: str) -> None:
    found = run(shell, remote_command([sys.executable, "-c", ECHO, *HOSTILE]))
    assert json.loads(found) == HOSTILE


def test_what_runs_before(shell: str) -> None:
    setup = "source /dev/null\necho noise !; X='a\nb!'  # and\nexport X\nsay() { echo \"$@\"; }; say more"
    code = "import json, os; print(json.dumps(os.environ['X']))"
    assert json.loads(run(shell, remote_command([sys.executable, "-c", code], setup))) == "a\nb!"


def test_exit_status_and_what_cannot_be_run(shell: str) -> None:
    for words, status in (
        (["sh", "-c", "exit 7"], 7),
        (["/none/there"], 127),
        (["/etc/passwd"], 126),
    ):
        for setup in ("", "false"):
            command = remote_command(words, setup)
            done = subprocess.run([shell, "-c", command], capture_output=True, check=False)
            assert done.returncode == status


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_words(words: list[str]) -> None:
    for shell in {"dash", "tcsh"}.intersection(SHELLS):
        assert (
            json.loads(run(shell, remote_command([sys.executable, "-Sc", ECHO, *words]))) == words
        )
