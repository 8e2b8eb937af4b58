from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("pyhrf_exec_pyfunc")

MODULE = """
import os
class Sub:
    @staticmethod
    def twice(x): return 2 * x
def add(a, b=2): return a + b
def fail(x): raise ValueError(x)
def unpicklable(): return (x for x in [])
def die(): os._exit(4)
"""


class Runner:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "funcs.py").write_text(MODULE)
        self.out = directory / "out $HOME.pck"

    def __call__(
        self, function: str, *args: Any, **kwargs: Any
    ) -> subprocess.CompletedProcess[str]:
        params = self.directory / "params 1.pck"
        params.write_bytes(pickle.dumps((args, kwargs), 0))  # as Python 2 writes it
        return self.raw("funcs", function, str(params), str(self.out))

    def raw(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *argv],
            capture_output=True,
            text=True,
            cwd=self.directory,
            timeout=30,
            env=os.environ | {"PYTHONSAFEPATH": ""},
            check=False,
        )

    def value(self) -> Any:
        return pickle.loads(self.out.read_bytes())


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_value_is_pickled(run: Runner) -> None:
    assert run("funcs.add", 1, b=5).returncode == 0
    assert run.value() == 6
    assert run("add", 1).returncode == 0
    assert run.value() == 3
    assert run("funcs.Sub.twice", 4).returncode == 0
    assert run.value() == 8


def test_the_exception_is_pickled(run: Runner) -> None:
    done = run("funcs.fail", 7)
    assert done.returncode == 1
    assert "ValueError: 7" in done.stderr
    error = run.value()
    assert (type(error), error.args) == (ValueError, (7,))


def test_a_value_that_does_not_pickle(run: Runner) -> None:
    assert run("funcs.unpicklable").returncode == 1
    assert "generator" in str(run.value())


def test_a_death_leaves_no_output(run: Runner) -> None:
    run.out.write_text("before")
    assert run("funcs.die").returncode == 4
    assert run.out.read_text() == "before"
    assert not list(run.directory.glob("*.part"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "required"),
        (("absent_module", "absent_module.f", "p", "o"), "No module named 'absent_module'"),
        (("os", "os.absent", "p", "o"), "absent"),
        (("os", "os.getcwd", "absent.pck", "o"), "absent.pck"),
    ],
)
def test_wrong_use(run: Runner, argv: tuple[str, ...], message: str) -> None:
    done = run.raw(*argv)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (run.directory / "o").exists()


def test_help(run: Runner) -> None:
    done = run.raw("--help")
    assert done.returncode == 0
    assert "PARAMS" in done.stdout
