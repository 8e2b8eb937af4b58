"""What tasks print in the modes that run them as jobs, as who waits for them sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyhrf_parallel import RemoteException, remote_map
from pyhrf_parallel.backends import Mode

JOBS = ("local_with_dumps", "remote_cluster")


def say(number: int) -> int:
    print(f"said {number}")
    print(f"complained {number}", end="", file=sys.stderr)
    return number


@pytest.mark.parametrize("mode", JOBS)
@pytest.mark.parametrize("progress", [False, True])
def test_it_is_shown(mode: Mode, *, progress: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """By sys.stderr, which in a notebook is its cell: no descriptor of the kernel is seen there."""
    assert remote_map(say, [(1,), (2,)], mode=mode, n_jobs=1, progress=progress) == [1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    for number in (1, 2):
        assert f"said {number}\n" in err
        assert f"complained {number}" in err
        assert err.count(f"said {number}") == 1


@pytest.mark.parametrize("mode", JOBS)
def test_of_a_task_that_fails(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        print("last words")
        raise ValueError

    with pytest.raises(RemoteException) as caught:
        remote_map(fail, [()], mode=mode)
    assert caught.value.log_tail == "last words\n"
    assert capsys.readouterr().err == "last words\n"


def test_it_is_shown_while_the_task_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pyhrf_parallel import remote_map\n"
        "def task(place):\n"
        "    print('waiting', flush=True)\n"
        "    while not (Path(place) / 'seen').exists(): time.sleep(0.01)\n"
        "remote_map(task, [(sys.argv[1],)], mode='remote_cluster')\n"
    )
    with subprocess.Popen(
        [sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"  # it would not come before the task ends
        (tmp_path / "seen").touch()
        assert process.wait() == 0


def test_nobody_reads_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pyhrf_parallel import remote_map\n"
        "for stream in (None, open('/dev/full', 'w')):\n"
        "    sys.stderr = stream\n"
        "    for mode in ('local_with_dumps', 'remote_cluster'):\n"
        "        remote_map(print, [('x',)], mode=mode)\n"
        "sys.stderr = None\n"
        "print('all ran')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "all ran" in done.stdout
