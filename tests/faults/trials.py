"""One fault each: what happens to a script, and what may come of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pyhrf_parallel.backends import MODES
from tests.conftest import ROOT
from tests.scripts import Script

_CLIENT = Path(__file__).with_name("client.py").read_text()
_PATIENCE = (
    120  # seconds after which something hangs: far more than any trial takes on a busy machine
)
_WORKER_MODES = [mode for mode in MODES if mode != "serial"]
_MEMORY = "MemoryError"

Call = tuple[int, str, float]


@dataclass
class Trial:
    """A script in a place of its own, to which something happens.

    Attributes
    ----------
    place : Path
        Empty at first.
    rng : random.Random
        Decides on everything.
    """

    place: Path
    rng: random.Random
    hangs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.script = Script(self.place)
        self.script.environment["PLACE"] = str(self.place)

    # ---- doing ----------------------------------------------------------------------------------

    def start(self, **plan: Any) -> subprocess.Popen[str]:
        """Start a client."""
        self.plan = plan
        return self.script.start(_CLIENT, json.dumps(plan))

    def wait(self, client: subprocess.Popen[str]) -> str:
        """Wait for its end; return what it has written to stderr."""
        try:
            _, err = client.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.hangs.append(f"the client does not end: {self.plan}")
            client.kill()
            _, err = client.communicate()
        return err

    def run(self, **plan: Any) -> Any:
        """Run a client to its end; return what it has found."""
        err = self.wait(self.start(**plan))
        found = self.found()
        if found is None and not self.hangs:
            self.wrong.append(f"the client failed: {err[-2000:]} ({plan})")
        return found

    def found(self) -> Any:
        """Return what the client has found, None for nothing."""
        try:
            return json.loads((self.place / "found").read_text())
        except FileNotFoundError:
            return None

    def wait_for(self, pattern: str) -> None:
        """Wait for a file of the client's, or its tasks'."""
        deadline = time.monotonic() + _PATIENCE
        while not list(self.place.glob(pattern)):
            if time.monotonic() > deadline:
                self.hangs.append(f"no {pattern}")
                return
            time.sleep(0.01)

    def kill_one(self, *words: str) -> bool:
        """Kill one of the processes whose command line has one of these words; tell whether there was one."""
        found = []
        for process in self.script.processes():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if "resource_tracker" not in line and any(word in line for word in words):
                    found.append(process)
        if not found:
            return False
        with suppress(psutil.Error):
            self.rng.choice(found).kill()
        return True

    # ---- judging --------------------------------------------------------------------------------

    def judge(
        self, calls: list[Call], found: Any, *, may_lose: int = 0, timeout: bool = False
    ) -> None:
        """Compare what came of a map with what has to; `may_lose` tasks were killed from outside."""
        if not isinstance(found, list) or len(found) != len(calls):
            self.wrong.append(f"{found} of {self.plan}")
            return
        for call, result in zip(calls, found, strict=True):
            if _is_right(call, result, timeout):
                continue
            if result[0] == "lost" and may_lose:
                may_lose -= 1
            elif result[0] in ("lost", "failed"):
                self.lost.append(f"{call}: {result} of {self.plan}")
            else:
                self.wrong.append(f"{call}: {result} of {self.plan}")

    def judge_what_is_left(self, *, may_leave: str = "") -> None:
        """Look for processes and files; those of this name may stay."""
        deadline = time.monotonic() + 40
        while (alive := self.script.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in alive:
            with suppress(psutil.Error):
                self.left.append(f"{process.cmdline()} after {self.plan}")
                process.kill()
        for name in ("HOME", "TMPDIR"):
            for path in (self.place / name).iterdir():
                if not (may_leave and path.name.startswith(may_leave)) and any(
                    one.is_file() for one in [path, *path.rglob("*")]
                ):
                    self.left.append(f"{name}/{path.name} after {self.plan}")


def _is_right(call: Call, result: Any, timeout: bool) -> bool:
    index, what, amount = call
    if what == "hang" and timeout:
        return bool(result[:2] == ["failed", "TimeoutError"])
    expected = {
        "raise": ["failed", "ValueError", str(index)],
        "array": ["array", int(amount), float(index), float(index)],
        "exit": "exited with status 7",
        "kill": "SIGKILL",
    }.get(what, [index, what])
    if isinstance(expected, str):
        return bool(result[0] == "lost" and expected in result[1])
    return bool(result == expected)


def _calls(rng: random.Random, kinds: str, most: int = 8) -> list[Call]:
    amounts = {"sleep": 0.3, "array": 200_000}
    calls = []
    for index in range(rng.randrange(2, most)):
        what = rng.choice(kinds.split())
        calls.append((index, what, amounts.get(what, 0) * rng.random()))
    return calls


def signals(trial: Trial) -> None:
    """A signal reaches the script at any instant, in any mode."""
    rng = trial.rng
    mode = rng.choice(MODES)
    calls = _calls(rng, "sleep sleep array")
    name = rng.choice(["INT", "INT", "TERM", "HUP", "KILL"])
    client = trial.start(
        does="maps",
        maps=[{"mode": mode, "tasks": calls, "options": {"n_jobs": 2} if mode != "serial" else {}}],
    )
    if rng.random() < 0.7:
        trial.wait_for("began-*")
    time.sleep(rng.random() * 1.2)
    for _ in range(rng.choice([1, 3])):
        with suppress(ProcessLookupError):
            if name == "INT":  # as a terminal does
                os.killpg(client.pid, signal.SIGINT)
            else:
                client.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(rng.random() * 0.1)
    trial.wait(client)
    if (found := trial.found()) is not None:  # it had ended before
        trial.judge(calls, found[0])
    # Documented: who is ended otherwise cannot clean up; in remote_cluster the engine does.
    gone = name == "INT" or mode in ("serial", "remote_cluster")
    trial.judge_what_is_left(may_leave="" if gone else "pyhrf_parallel_")


def deaths(trial: Trial) -> None:
    """Tasks raise, exit, are killed, take too long; the others return."""
    rng = trial.rng
    mode = rng.choice(_WORKER_MODES)
    calls = _calls(rng, "sleep sleep array raise exit kill hang")
    calls = [(i, what, 60 if what == "hang" else amount) for i, what, amount in calls]
    options = {"n_jobs": rng.randrange(1, 4), "retries": rng.randrange(2), "timeout": 1.5}
    found = trial.run(does="maps", maps=[{"mode": mode, "tasks": calls, "options": options}])
    if found:
        trial.judge(calls, found[0], timeout=True)
    trial.judge_what_is_left()


def killed_workers(trial: Trial) -> None:
    """Somebody kills a worker: at most its task is lost."""
    rng = trial.rng
    mode = rng.choice(_WORKER_MODES)
    calls = [(i, "sleep", 0.3 + rng.random()) for i in range(rng.randrange(2, 6))]
    retries = rng.randrange(2)
    client = trial.start(
        does="maps",
        maps=[{"mode": mode, "tasks": calls, "options": {"n_jobs": 2, "retries": retries}}],
    )
    trial.wait_for("began-*")
    time.sleep(rng.random() * 0.5)
    killed = trial.kill_one("popen_loky", "pyhrf_parallel.worker.process")
    err = trial.wait(client)
    found = trial.found()
    if found is None:
        trial.wrong.append(f"the client failed: {err[-2000:]} ({trial.plan})")
    else:
        trial.judge(calls, found[0], may_lose=1 if killed and not retries else 0)
    trial.judge_what_is_left()


def killed_engine(trial: Trial) -> None:
    """Somebody kills the engine of a map: it says so."""
    rng = trial.rng
    calls = _calls(rng, "sleep sleep array")
    client = trial.start(
        does="maps", maps=[{"mode": "remote_cluster", "tasks": calls, "options": {"n_jobs": 2}}]
    )
    if rng.random() < 0.7:
        trial.wait_for("began-*")
    time.sleep(rng.random() * 0.5)
    trial.kill_one("pyhrf_parallel.engine.engine")
    trial.wait(client)
    found = (trial.found() or [None])[0]
    if not (isinstance(found, dict) and "ClusterError" in found["error"]):
        trial.judge(calls, found)
    trial.judge_what_is_left()


def two_maps(trial: Trial) -> None:
    """Two maps at a time: what becomes of one costs the other nothing."""
    rng = trial.rng
    bad = [(0, rng.choice(["raise", "exit", "kill", "hang"]), 60.0), *_calls(rng, "sleep", 4)[1:]]
    good = [(i, "sleep", 0.5 + rng.random()) for i in range(3)]
    # One of the same kind, mostly: these share most.
    first = rng.choice(_WORKER_MODES)
    second = first if rng.random() < 0.7 else rng.choice(MODES)
    fails: dict[str, Any] = {"mode": first, "tasks": bad, "options": {"n_jobs": 2, "timeout": 2}}
    works: dict[str, Any] = {"mode": second, "tasks": good, "options": {"n_jobs": 2}}
    maps = [fails, works]
    if rng.random() < 0.5:  # the other one in the main thread
        maps.reverse()
    found = trial.run(does="maps", maps=maps)
    if found:
        for one, result in zip(maps, found, strict=True):
            trial.judge(one["tasks"], result, timeout=one is fails)
    trial.judge_what_is_left()


def narrow_places(trial: Trial) -> None:
    """A small disk, few files, no home: the map works, or says why it does not."""
    rng = trial.rng
    mode = rng.choice(_WORKER_MODES)
    calls = _calls(rng, "sleep array array")
    plan: dict[str, Any] = {
        "does": "maps",
        "maps": [{"mode": mode, "tasks": calls, "options": {"n_jobs": 2}}],
    }
    narrow = rng.choice(["disk", "files", "home"])
    disk = trial.place / "TMPDIR"
    mounted = False
    if narrow == "disk":
        size = rng.choice(["16k", "64k", "256k", "1m", "3m"])
        mounted = (
            not os.getuid()
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", disk], check=False
            ).returncode
        )
    elif narrow == "files":
        plan["files"] = rng.choice([16, 24, 32, 48, 64])
    else:
        del trial.script.environment["HOME"]
    try:
        client = trial.start(**plan)
        err = trial.wait(client)
        found = (trial.found() or [None])[0]
        told = ("ParallelError", "OSError", "BrokenProcessPool")
        if isinstance(found, list):
            for call, result in zip(calls, found, strict=True):
                # What did not fit has failed, and says so.
                if not _is_right(call, result, timeout=False) and result[0] not in (
                    "lost",
                    "failed",
                ):
                    trial.wrong.append(f"{call}: {result} of {plan}")
        elif found is None and "files" in plan:
            if not err:  # it could not even write what it has found
                trial.lost.append(f"nothing is said ({plan})")
        elif found is None or not set(told) & set(found["error"]):
            trial.wrong.append(f"{found or err[-2000:]} of {plan}, {narrow}")
        trial.judge_what_is_left()
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", disk], check=False)


def fuzz(trial: Trial) -> None:
    """Arguments of all kinds come out of any mode as out of a loop."""
    plan = {"does": "fuzz", "mode": trial.rng.choice(_WORKER_MODES), "seed": trial.rng.random()}
    if trial.run(**plan) is False:
        trial.wrong.append(str(plan))
    trial.judge_what_is_left()


def abandoned_runs(trial: Trial) -> None:
    """A submitted run whose client and engine are killed is collected whole by another process."""
    rng = trial.rng
    if rng.random() < 0.5:
        plan: dict[str, Any] = {"regions": rng.randrange(1, 6)}
        trial.script.environment["PYTHONPATH"] = str(ROOT)
    else:
        plan = {"tasks": _calls(rng, "sleep sleep array raise"), "options": {"n_jobs": 2}}
    client = trial.start(does="submit", **plan)
    trial.wait_for("run_id")
    killed = rng.choice([["client"], ["engine"], ["client", "engine"], ["client", "worker"]])
    for words in killed:
        time.sleep(rng.random() * 1.5)
        if words == "client":
            client.kill()
        else:
            trial.kill_one(
                "pyhrf_parallel.engine.engine"
                if words == "engine"
                else "pyhrf_parallel.worker.process"
            )
    trial.wait(client)
    (trial.place / "found").unlink(missing_ok=True)
    run_id = (trial.place / "run_id").read_text()
    found = trial.run(does="collect", run_id=run_id, **plan)
    if "regions" in plan:
        expected = [[f"roidata_{n + 1:04d}.pck", float(n), "ok"] for n in range(plan["regions"])]
        told = (
            isinstance(found, dict) and "worker" in killed and "was lost: its job" in found["error"]
        )
        if found != expected and not told and not trial.wrong:
            trial.wrong.append(f"{found} of {plan}")
    elif found is not None:
        trial.judge(plan["tasks"], found, may_lose=int("worker" in killed))
    trial.judge_what_is_left()


#: By name: each is told of a trial, and notes there what it finds.
KINDS: dict[str, Callable[[Trial], None]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        signals, deaths, killed_workers, killed_engine, two_maps, narrow_places, fuzz, abandoned_runs,
    )
}  # fmt: skip
