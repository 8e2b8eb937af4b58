"""What mode 'local' takes from joblib."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from pyhrf_parallel import ConfigurationError, RemoteException, remote_map
from pyhrf_parallel.backends.local.pools import Pool, PoolSettings
from tests.contract import cases


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_the_backend_of_the_user_is_honoured() -> None:
    with joblib.parallel_config("threading", n_jobs=2):
        results = remote_map(lambda i: (i, os.getpid()), [(i,) for i in range(40)], mode="local")
    assert results == [(i, os.getpid()) for i in range(40)]


def test_threads_share_what_cannot_be_pickled() -> None:
    lock = threading.Lock()
    with joblib.parallel_config("threading"):
        assert remote_map(lambda x: x is lock, [(lock,)] * 3, mode="local", n_jobs=2) == [True] * 3


@pytest.mark.parametrize("backend", ["threading", "sequential", "multiprocessing"])
def test_failures_on_other_backends(backend: str) -> None:
    calls = [(i, 4, 6) for i in range(9)]
    with joblib.parallel_config(backend):
        with pytest.raises(ValueError, match="bad 4") as caught:
            remote_map(cases.fail_at, calls, mode="local", n_jobs=2)
        results = remote_map(cases.fail_at, calls, mode="local", n_jobs=2, on_error="return")
    assert "Task 4 of 9" in caught.value.__notes__[0]
    assert [r if isinstance(r, int) else -1 for r in results] == [0, 1, 2, 3, -1, 5, -1, 7, 8]
    assert isinstance(results[6], RemoteException)
    assert results[6].index == 6


def test_other_backends_refuse_a_timeout() -> None:
    with (
        joblib.parallel_config("threading"),
        pytest.raises(ConfigurationError, match="ThreadingBackend"),
    ):
        remote_map(len, [("a",)], mode="local", timeout=1)


def test_the_number_of_jobs_of_the_user_is_honoured() -> None:
    running: list[int] = []
    most = 0

    def note(i: int) -> None:
        nonlocal most
        running.append(i)
        most = max(most, len(running))
        time.sleep(0.02)
        running.remove(i)

    with joblib.parallel_config("threading", n_jobs=3):
        remote_map(note, [(i,) for i in range(12)], mode="local")
    assert most == 3
    most = 0
    with joblib.parallel_config("threading", n_jobs=3):
        remote_map(note, [(i,) for i in range(12)], mode="local", n_jobs=2)
    assert most == 2


def test_blas_threads_are_limited() -> None:
    limits = remote_map(cases.threads, [()] * 4, mode="local", n_jobs=2)
    assert set(limits) == {str(max(1, joblib.cpu_count() // 2))}
    limits = remote_map(cases.threads, [()] * 4, mode="remote_cluster", n_jobs=2)
    assert set(limits) == {str(max(1, joblib.cpu_count() // 2))}


def test_niceness_of_the_configuration() -> None:
    assert remote_map(niceness, mode="local") == [niceness()]
    wanted = niceness() + 3
    config = {"parallel-local": {"niceness": wanted}}
    assert remote_map(niceness, mode="local", config=config) == [wanted]


def test_the_temporary_folder_of_joblib_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen() -> list[str]:
        return [path.name for path in tmp_path.iterdir() if path.name.startswith("pyhrf")]

    with joblib.parallel_config(temp_folder=str(tmp_path)):
        (names,) = remote_map(seen, mode="local")
    assert len(names) == 1
    assert seen() == []
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path))
    (names,) = remote_map(seen, mode="local")
    assert len(names) == 1


def test_max_nbytes_of_joblib_is_used() -> None:
    def is_mapped(image: Any) -> bool:
        return isinstance(image.base, np.memmap)

    image = np.zeros(1000)
    assert remote_map(is_mapped, [(image,)], mode="local") == [False]
    with joblib.parallel_config(max_nbytes="1K"):
        assert remote_map(is_mapped, [(image,)], mode="local") == [True]


def test_processes_are_used_again() -> None:
    def pid() -> int:
        time.sleep(0.1)  # so that both take part
        return os.getpid()

    def pids() -> set[int]:
        return set(remote_map(pid, [()] * 20, mode="local", n_jobs=2))

    assert pids() & pids()


def test_joblib_itself_works_right_after_a_failure() -> None:
    for _ in range(5):
        with pytest.raises(ValueError, match="bad 0"):
            remote_map(cases.fail_at, [(0, 0), (1, 0)], mode="local", n_jobs=2)
        assert joblib.Parallel(2)(joblib.delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_it_works_from_a_thread() -> None:
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.extend(remote_map(abs, [(-1,), (-2,)], mode="local", n_jobs=2))
    )
    thread.start()
    thread.join()
    assert results == [1, 2]


def test_other_backends_refuse_retries() -> None:
    with joblib.parallel_config("threading"), pytest.raises(ConfigurationError, match="retries"):
        remote_map(len, [("a",)], mode="local", retries=1)


def test_tasks_that_use_joblib_leave_nothing_in_shared_memory() -> None:
    def use_joblib(i: int) -> tuple[int, list[int]]:
        return os.getpid(), list(joblib.Parallel(2)(joblib.delayed(abs)(-i) for _ in range(3)))

    found = remote_map(use_joblib, [(i,) for i in range(3)], mode="local_with_dumps")
    assert [values for _, values in found] == [[i] * 3 for i in range(3)]

    def left() -> list[str]:
        """Of these tasks: others use joblib at the same time."""
        names = [path.name for path in Path("/dev/shm").iterdir()]
        return [
            name for name in names if any(str(pid) in re.split("[-_]", name) for pid, _ in found)
        ]

    deadline = time.monotonic() + 30
    while left() and time.monotonic() < deadline:  # joblib's tracker cleans up by itself
        time.sleep(0.1)
    assert left() == []


def test_processes_are_killed_before_they_have_been_given_work() -> None:
    backend, _ = joblib.parallel.get_active_backend()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that loky's thread is in the middle of something
    try:
        for _ in range(20):
            pool = Pool(joblib, PoolSettings.of(backend, 3, 0))
            pool.submit(3, partial(time.sleep, 60), lambda: None)
            pool.end()
    finally:
        sys.setswitchinterval(before)
