"""The public names: for editors and type checkers, and without the price of importing them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import jedi
import pytest

from tests.conftest import ROOT

PACKAGES = (
    "pyhrf_parallel",
    "pyhrf_parallel.treatments",
    "pyhrf_parallel.treatment_jobs",
    "pyhrf_parallel.pyhrf27",
)

# jedi then reads the packages once.
pytestmark = pytest.mark.xdist_group("editor")


@pytest.mark.parametrize("package", PACKAGES)
class TestOfAPackage:
    def test_it_has_what_it_says(self, package: str) -> None:
        module = importlib.import_module(package)
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert set(module.__all__) <= set(dir(module))

    def test_an_editor_knows_them(self, package: str) -> None:
        """As jedi does, with which IPython, Jupyter and many editors complete names, without importing."""
        names = importlib.import_module(package).__all__
        project = jedi.Project(ROOT)
        line = f"from {package} import "
        completed = {
            name.name for name in jedi.Script(line, project=project).complete(1, len(line))
        }
        assert set(names) <= completed
        for name in names:
            if not name.startswith("__"):
                code = f"from {package} import {name}\n{name}"
                assert jedi.Script(code, project=project).infer(2, 1), name

    def test_the_import_is_fast(self, package: str) -> None:
        """typing alone takes as long as all that is imported here."""
        code = f"import sys; before = set(sys.modules); import {package}; print(set(sys.modules) - before)"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
        )
        imported = eval(done.stdout)  # noqa: S307  (a set of names)
        assert {name for name in imported if not name.startswith("pyhrf_parallel")} <= {
            "__future__"
        }


def test_the_import_of_remote_map_loads_what_every_mode_needs() -> None:
    code = "import sys; from pyhrf_parallel import remote_map; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    others = "numpy joblib cloudpickle tqdm click paramiko subprocess tempfile shutil configparser socket asyncio"
    assert not {*others.split()} & {*done.stdout.split()}


def test_an_editor_shows_parameters() -> None:
    code = "from pyhrf_parallel import remote_map\nremote_map("
    signatures = jedi.Script(code, project=jedi.Project(ROOT)).get_signatures()
    assert signatures
    for signature in signatures:
        names = [parameter.name for parameter in signature.params]
        assert names[:4] == ["func", "largs", "lkwargs", "mode"]
        assert {"n_jobs", "on_error", "resources", "config"} <= set(names)


@pytest.mark.parametrize("name", ["remote_map", "remote_map_marshal", "submit_map"])
def test_the_options_complete_at_a_prompt(name: str) -> None:
    function = getattr(importlib.import_module("pyhrf_parallel"), name)
    line = "f(abs, n_"
    found = jedi.Interpreter(line, [{"f": function}]).complete(1, len(line))
    assert "n_jobs=" in {completion.name_with_symbols for completion in found}
    shown = inspect.signature(function).parameters
    assert {"timeout", "retries", "resources", "config", "ship"} <= set(shown)
