"""Which modules are the user's own, and what of them travels."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import sys
import tarfile
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import ConfigurationError, NotShippableError, needs, remote_map, submit_map
from pyhrf_parallel.imports import imports_of
from pyhrf_parallel.needs import Needs, find_needs, pack


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of modules, as that of a script."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def make(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def found(*names: str) -> list[str]:
    return sorted(find_needs(names).files)


class TestWhatIsFound:
    def test_a_file_beside_the_script(self, lab: Path) -> None:
        make(lab, {"lab_one.py": "", "lab_other.py": ""})
        assert found("lab_one") == ["lab_one.py"]

    def test_a_package_with_its_data(self, lab: Path) -> None:
        make(lab, {"lab_a/__init__.py": "", "lab_a/b.py": "", "lab_a/data/x y é.txt": "1"})
        (lab / "lab_a/__pycache__").mkdir()
        make(lab, {"lab_a/__pycache__/b.cpython-311.pyc": "", "lab_a/.git/config": ""})
        assert found("lab_a.b") == ["lab_a/__init__.py", "lab_a/b.py", "lab_a/data/x y é.txt"]

    def test_what_it_imports(self, lab: Path) -> None:
        """Relative imports, several at once, of packages, and within functions and classes."""
        make(
            lab,
            {
                "lab_a/__init__.py": "from . import b",
                "lab_a/b.py": "from ..lab_none import x\nfrom .c import (y,\n z)",
                "lab_a/c.py": "def f():\n    import lab_late.inner, json\n",
                "lab_late/__init__.py": "",
                "lab_late/inner.py": "class A:\n    from lab_deep import *\n",
                "lab_deep.py": "import lab_a",
                "lab_unused.py": "",
            },
        )
        assert {name.partition("/")[0] for name in found("lab_a")} == {
            "lab_a",
            "lab_late",
            "lab_deep.py",
        }

    def test_only_what_is_reached(self, lab: Path) -> None:
        make(lab, {"lab_a/__init__.py": "", "lab_a/b.py": "", "lab_a/c.py": "import lab_big"})
        make(lab, {"lab_big.py": ""})
        assert "lab_big.py" not in found("lab_a.b")
        assert "lab_big.py" in found("lab_a.c")

    def test_a_package_without_init(self, lab: Path) -> None:
        make(
            lab, {"lab_scripts/run.py": "import lab_x", "lab_scripts/bold.nii": "", "lab_x.py": ""}
        )
        assert found("lab_scripts.run") == ["lab_scripts/run.py", "lab_x.py"]

    def test_nothing_is_imported(self, lab: Path) -> None:
        make(lab, {"lab_a/__init__.py": "raise ImportError", "lab_a/b.py": "1 / 0"})
        assert found("lab_a.b") == ["lab_a/__init__.py", "lab_a/b.py"]

    def test_a_file_with_an_error(self, lab: Path) -> None:
        make(lab, {"lab_broken.py": "def (:"})
        assert found("lab_broken") == ["lab_broken.py"]

    def test_an_editable_install(self, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make(lab, {"src/lab_editable/__init__.py": "", "src/lab_editable.egg-info/PKG-INFO": ""})
        monkeypatch.syspath_prepend(str(lab / "src"))
        assert found("lab_editable") == ["lab_editable/__init__.py"]

    @pytest.mark.parametrize(
        "name", ["json", "os.path", "numpy", "numpy.linalg", "sys", "__main__", "no_such_module"]
    )
    def test_what_is_not_own(self, name: str) -> None:
        assert found(name) == []

    def test_this_package(self) -> None:
        assert found("pyhrf_parallel.mapping") == []

    def test_what_pip_has_installed_into_a_directory(self, lab: Path) -> None:
        make(lab, {"lab_dist/__init__.py": "", "lab_own.py": "import lab_dist"})
        make(lab, {"lab_dist-1.0.dist-info/RECORD": "lab_dist/__init__.py,,\n"})
        assert found("lab_own", "lab_dist") == ["lab_own.py"]


class TestShip:
    def test_nothing(self, lab: Path) -> None:
        make(lab, {"lab_a.py": "import numpy"})
        assert find_needs(["lab_a", "numpy"], ship=False) == Needs()

    def test_more(self, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By name, as a module, and by path, also of what is not on sys.path."""
        make(lab, {"lab_a.py": "", "lab_b/__init__.py": "", "lab_b/c.py": "", "lab_late.py": ""})
        make(lab, {"elsewhere/tool.py": "import lab_late", "elsewhere/pack age/x.py": ""})
        monkeypatch.chdir(lab / "elsewhere")
        module = importlib.import_module("lab_b")
        needs = find_needs(["lab_a"], [module, "tool.py", lab / "elsewhere/pack age"])
        own = {"lab_a.py", "lab_b/__init__.py", "lab_b/c.py", "tool.py", "lab_late.py"}
        assert own | {"pack age/x.py"} <= set(needs.files)

    def test_what_is_needed_in_any_case_stays_so(self, lab: Path) -> None:
        make(lab, {"tool.py": "import numpy\ndef f():\n    import numpy, pandas"})
        assert find_needs(["pandas"], ["tool"]).installed == {"numpy", "pandas"}

    @pytest.mark.parametrize("item", ["no_such_module", "no/such.py", "no/such/package"])
    def test_what_is_not_there(self, item: str) -> None:
        with pytest.raises(ConfigurationError, match=f"ship: .*{item}"):
            find_needs([], [item])

    @pytest.mark.parametrize("ship", ["all", True, None, [], [1], 0])
    def test_what_is_refused(self, ship: Any) -> None:
        with pytest.raises(ConfigurationError, match="ship must be 'auto', False, or a list"):
            remote_map(abs, [(1,)], ship=ship)


class TestWhatIsInstalled:
    def test_by_its_distribution(self) -> None:
        needs = find_needs(["yaml_none", "numpy.linalg", "_pytest.mark", "json"])
        assert needs.distributions() == {
            name: importlib.metadata.version(name) for name in ("numpy", "pytest")
        }

    def test_what_own_modules_import(self, lab: Path) -> None:
        """What is imported within a function, on a condition, or may be missing, is not asked for."""
        text = """
            import numpy.linalg, lab_more
            try:
                import pandas
            except ImportError:
                pandas = None
            if TYPE_CHECKING:
                from nilearn import glm
            def draw():
                import matplotlib.pyplot, lab_draws
            """
        make(lab, {"lab_a.py": text, "lab_more.py": "class A:\n    import joblib"})
        make(lab, {"lab_draws.py": "import nibabel"})
        needs = find_needs(["lab_a"])
        assert sorted(needs.files) == ["lab_a.py", "lab_draws.py", "lab_more.py"]
        assert needs.installed == {"numpy", "joblib"}


def test_two_threads_at_once(lab: Path) -> None:
    """Garbage is collected, and threads take turns, as often as possible: the parser of 3.11 fails then."""

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            sum(range(200))

    nested = f"x = {'[' * 60}1{']' * 60}\n" * 10
    names = [f"module_{number}" for number in range(8)]
    make(lab, {f"{name}.py": nested for name in names})

    def find(_: int) -> int:
        files = 0
        for name in names:
            Garbage()
            files += len(find_needs([name]).files)
        return files

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(find, range(3))) == [len(names)] * 3
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def test_a_dry_run_lists_what_would_travel(lab: Path) -> None:
    make(lab, {"lab_dry/__init__.py": "def f(): pass", "lab_dry/table.csv": "1,2"})
    f = importlib.import_module("lab_dry").f
    config = {"parallel-cluster": {"server": "cluster.invalid"}}
    preview = submit_map(f, dry_run=True, config=config)
    assert preview.modules == {"lab_dry/__init__.py": 13, "lab_dry/table.csv": 3}
    assert "    with lab_dry/table.csv, 3 bytes" in str(preview).splitlines()
    assert submit_map(f, dry_run=True, config=config, ship=False).modules == {}


def test_imports_of_code() -> None:
    text = "def f():\n    import lab_a.b as b\n    return lambda: g()\ndef g():\n    from lab_c import d\n    from . import e"
    assert imports_of(compile(text, "text", "exec")) == {"lab_a.b", "lab_c", "lab_c.d"}


def test_an_archive_depends_on_the_content_alone(tmp_path: Path) -> None:
    archives = []
    for name in ("one", "two"):
        make(tmp_path / name, {"a.py": "1", "b/c.txt": "é"})
        (tmp_path / name / "a.py").chmod(0o755)
        os.utime(tmp_path / name / "b/c.txt", (1, 1) if name == "one" else None)
        files = {key: tmp_path / name / key for key in ("b/c.txt", "a.py")}
        archives.append(pack(dict(sorted(files.items(), reverse=name == "one"))))
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=BytesIO(zlib.decompress(archives[0]))) as archive:
        members = {member.name: member.mode for member in archive.getmembers()}
    assert members == {"a.py": 0o755, "b/c.txt": 0o644}


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "LIMIT", 3000)
    make(tmp_path, {"small.py": "", "large.dat": "x" * 4000})
    files = {path.name: path for path in tmp_path.iterdir()}
    with pytest.raises(NotShippableError, match=r"large\.dat \(0\.0 MB\).*ship=False"):
        Needs(files).check_size()
