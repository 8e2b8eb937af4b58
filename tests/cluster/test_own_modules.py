"""The user's own modules travel with the functions that need them."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cluster.one_node import wait_for
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster

LAB = {
    "script.py": """
        import sys
        from pyhrf_parallel import RemoteException, remote_map, submit_map
        from mylab.model import Subject, Worse
        from mylab import steps

        def main():
            subjects = [(Subject(name),) for name in ('sub-01', 'bad')]
            found = remote_map(steps.prepare, subjects, mode='remote_cluster', on_error='return')
            print(found[0].name, found[0].said)
            print(repr(found[1].__cause__), isinstance(found[1].__cause__, Worse))
            def here(subject):
                import late.inner
                return late.inner.VALUE, steps.in_a_process(), type(subject).__module__
            print(remote_map(here, subjects[:1], mode='remote_cluster'))
        main()
        """,
    "mylab/__init__.py": "",
    "mylab/model.py": """
        class Subject:
            def __init__(self, name):
                self.name, self.said = name, ''
        class Worse(Exception):
            def __init__(self, subject, *, reason):
                super().__init__(f'{subject}: {reason}')
        """,
    "mylab/steps.py": """
        import pathlib, subprocess, sys
        from .model import Subject, Worse
        def prepare(subject):
            import helper_of_mylab
            if subject.name == 'bad':
                raise Worse(subject.name, reason='no voxel')
            text = pathlib.Path(__file__).with_name('data').joinpath('word é.txt').read_text()
            subject.said = helper_of_mylab.shout(text)
            return subject
        def in_a_process():
            code = 'import helper_of_mylab; print(helper_of_mylab.shout("a"))'
            return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
        """,
    "mylab/data/word é.txt": "hello",
    "helper_of_mylab.py": "def shout(text): return text.upper()",
    "late/__init__.py": "",
    "late/inner.py": "VALUE = 7",
}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def start(script: Path, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
    )


def end(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def run(script: Path, home: Path) -> str:
    return end(start(script, home))


def test_a_script_with_modules_beside_it(configured: Path, tmp_path: Path) -> None:
    lab = tmp_path / "the lab's code"
    write(lab, LAB)
    assert run(lab / "script.py", configured).splitlines() == [
        "sub-01 HELLO",
        "Worse('bad: no voxel') True",
        "[(7, 'A\\n', 'mylab.model')]",
    ]


def test_the_page(configured: Path, tmp_path: Path) -> None:
    """What the documentation shows is what happens."""
    text = (ROOT / "docs/what-travels.md").read_text(encoding="utf-8")
    blocks = re.findall(r"`([\w/]+\.py)`[^`]*```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    write(tmp_path, dict(blocks))
    write(tmp_path, {"mylab/__init__.py": "", "mylab/labels/atlas.txt": "Desikan\n"})
    assert f"```text\n{run(tmp_path / 'analysis.py', configured)}```" in text


def test_two_versions_at_a_time(configured: Path, tmp_path: Path) -> None:
    """A run has the modules as they were when it was submitted."""
    script = """
        from pyhrf_parallel import remote_map
        import versioned, more_of_mine
        def value(seconds):
            import time
            time.sleep(seconds)
            import versioned
            return versioned.VALUE
        print(remote_map(value, [(versioned.SECONDS,)], mode='remote_cluster', ship=['more_of_mine']))
        """
    write(tmp_path, {"script.py": script, "versioned.py": "VALUE, SECONDS = 'old', 6"})
    write(tmp_path, {"more_of_mine.py": ""})
    first = start(tmp_path / "script.py", configured)
    state = configured / ".local/state/pyhrf_parallel/runs"
    wait_for(lambda: any(state.glob("*/manifest.json")), 60, "the first run")
    write(tmp_path, {"versioned.py": "VALUE, SECONDS = 'new', 0"})
    assert run(tmp_path / "script.py", configured) == "['new']\n"
    assert end(first) == "['old']\n"


def test_a_distribution_that_is_missing_there(configured: Path, tmp_path: Path) -> None:
    script = """
        import hypothesis
        from pyhrf_parallel import ClusterError, remote_map
        def version():
            return hypothesis.__version__
        try:
            remote_map(version, mode='remote_cluster')
        except ClusterError as error:
            print(error)
        """
    write(tmp_path, {"script.py": script})
    version = importlib.metadata.version("hypothesis")
    assert f"setup-cluster onenode --with hypothesis=={version} " in run(
        tmp_path / "script.py", configured
    )


@pytest.mark.usefixtures("imaging")
def test_an_analyser_of_an_own_module(configured: Path, tmp_path: Path) -> None:
    script = """
        import sys
        import nibabel as nib, numpy as np
        from pathlib import Path
        from pyhrf_parallel.treatments import FmriData, ROITreatment
        from mylab.analysis import TemporalSNR

        here = Path(__file__).parent
        signals = np.random.default_rng(0).normal(100, 1, (2, 2, 1, 30)).astype('f4')
        labels = np.array([[[1], [2]], [[2], [2]]], 'i2')
        for name, values in (('bold', signals), ('labels', labels)):
            nib.save(nib.Nifti1Image(values, np.eye(4)), here / f'{name}.nii')
        (here / 'events.tsv').write_text('onset\\tduration\\ttrial_type\\n4\\t1\\tgo\\n')
        data = FmriData.of(here / 'bold.nii', here / 'labels.nii', here / 'events.tsv', 2.0)
        treatment = ROITreatment(data, TemporalSNR(), here / 'out')
        there = treatment.run('remote_cluster')
        print([(roi.roi_id, estimates.maps['tsnr'].shape) for roi, estimates, _ in there])
        """
    analysis = """
        from pyhrf_parallel.treatments import Estimates
        from .numbers import ratio
        class TemporalSNR:
            def __call__(self, roi):
                return Estimates({'tsnr': ratio(roi.signals[0])})
        """
    numbers = "def ratio(signals):\n    return signals.mean(axis=0) / signals.std(axis=0)\n"
    write(tmp_path, {"script.py": script, "mylab/__init__.py": "", "mylab/analysis.py": analysis})
    write(tmp_path, {"mylab/numbers.py": numbers})
    assert run(tmp_path / "script.py", configured) == "[(2, (3,)), (1, (1,))]\n"
    assert any((tmp_path / "out").glob("tsnr*.nii*"))
