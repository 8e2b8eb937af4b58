"""A user's script in a trial: does what its plan says, and writes down what came of it."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pyhrf_parallel import MapRun, RemoteException, TaskLostError, remote_map, submit_map
from pyhrf_parallel.outcomes import Outcomes


def task(index: int, what: str, amount: float) -> Any:
    """Return, or fail in some way."""
    if "PLACE" in os.environ:  # not on a cluster
        Path(os.environ["PLACE"], f"began-{index}").touch()
    if what == "raise":
        raise ValueError(index)
    if what == "exit":
        os._exit(7)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "array":
        import numpy as np

        return np.full(int(amount), float(index))
    time.sleep(amount)
    return [index, what]


def describe(result: Any) -> Any:
    """Return what is compared of a result: it goes into a file."""
    if isinstance(result, TaskLostError):
        return ["lost", str(result.args[0])]
    if isinstance(result, RemoteException):
        return ["failed", type(result.__cause__).__name__, str(result.__cause__)]
    if hasattr(result, "tolist"):
        return ["array", len(result), float(result.min()), float(result.max())]
    return result


def run_map(plan: dict[str, Any]) -> Any:
    """Run one map; return what came of each task, or of the map."""
    calls = [tuple(call) for call in plan["tasks"]]
    try:
        results = remote_map(task, calls, mode=plan["mode"], on_error="return", **plan["options"])
    except Exception as error:
        return {"error": [kind.__name__ for kind in type(error).__mro__], "text": str(error)}
    return [describe(result) for result in results]


def run_maps(plan: dict[str, Any]) -> list[Any]:
    """Run maps in threads, all at once."""
    found: list[Any] = [None] * len(plan["maps"])

    def note(number: int) -> None:
        found[number] = run_map(plan["maps"][number])

    threads = [threading.Thread(target=note, args=(n,)) for n in range(1, len(found))]
    for thread in threads:
        thread.start()
    note(0)
    for thread in threads:
        thread.join()
    return found


def make_value(rng: random.Random, depth: int = 0) -> Any:
    """Return some argument, out of what scripts pass."""
    import numpy as np

    makers: list[Any] = [
        lambda: rng.randrange(-5, 2**70),
        rng.random,
        lambda: "é\n\0" * rng.randrange(5),
        lambda: rng.randbytes(rng.choice([0, 9, 70_000])),
        lambda: None,
        lambda: np.arange(rng.choice([0, 3, 40_000, 300_000])).reshape(-1, 1)[::-1],
        lambda: np.asfortranarray(np.ones((rng.randrange(1, 300), 300))),
        lambda: np.float32(rng.random()),
    ]
    if depth < 3:
        makers += [
            lambda: [make_value(rng, depth + 1) for _ in range(rng.randrange(4))],
            lambda: tuple(make_value(rng, depth + 1) for _ in range(rng.randrange(3))),
            lambda: {str(n): make_value(rng, depth + 1) for n in range(rng.randrange(3))},
        ]
    return rng.choice(makers)()


def fuzz(plan: dict[str, Any]) -> bool:
    """Tell whether a mode gives what the loop gives, on arguments of all kinds."""
    rng = random.Random(plan["seed"])
    largs = [tuple(make_value(rng) for _ in range(2)) for _ in range(rng.randrange(1, 12))]
    lkwargs = [{"c": make_value(rng)} if rng.random() < 0.5 else {} for _ in largs]
    offset = rng.random()

    def combine(a: Any, b: Any, c: Any = None) -> Any:
        return {"b": b, "a": [a, c], "offset": offset}

    one, other = (
        remote_map(combine, largs, lkwargs, mode=mode, n_jobs=2)
        for mode in ("serial", plan["mode"])
    )
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return [str(value.dtype), value.shape, value.tobytes()]
    if isinstance(value, dict):
        return [[key, _plain(one)] for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(_plain, value)]
    return repr(value)


def submit(plan: dict[str, Any]) -> None:
    """Submit a map, or treatments; wait for its end, if this process lives that long."""
    if "regions" in plan:
        from docs.examples.own_treatment import TableTreatment
        from pyhrf_parallel import submit_treatments

        place = Path(os.environ["PLACE"])
        rows = "\n".join(",".join(str(n + d) for n in range(plan["regions"])) for d in (-1, 0, 1))
        (place / "signals.csv").write_text(rows)
        script = str(Path(sys.modules[TableTreatment.__module__].__file__ or ""))
        with submit_treatments(
            {"one": TableTreatment(str(place / "signals.csv"))},
            {"one": str(place / "out")},
            exec_cmd=[sys.executable, script, "estimate"],
            split_cmd=[sys.executable, script, "split"],
            n_jobs=2,
        ) as run:
            (place / "run_id").write_text(run.run_id)
            run.follow(Outcomes(run.work))
        return
    calls = [tuple(call) for call in plan["tasks"]]
    with submit_map(task, calls, on_error="return", **plan["options"]) as run_of_map:
        Path(os.environ["PLACE"], "run_id").write_text(run_of_map.run_id)
        run_of_map.result()


def collect(plan: dict[str, Any]) -> Any:
    """Collect what an earlier process has submitted."""
    if "regions" in plan:
        from pyhrf_parallel import TreatmentError, TreatmentRun

        with TreatmentRun.load(plan["run_id"]) as run:
            try:
                found = run.result()["one"]
            except TreatmentError as error:
                return {"error": str(error)}
            finally:
                run.clean()
            return [[name, result["mean"], status] for name, result, status in found]
    with MapRun.load(plan["run_id"]) as run_of_map:
        results = [describe(result) for result in run_of_map.result()]
        run_of_map.clean()
        return results


def main() -> None:
    """Do what the plan says."""
    plan = json.loads(sys.argv[1])
    if plan.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (plan["files"], plan["files"]))
    does = {"maps": run_maps, "fuzz": fuzz, "submit": submit, "collect": collect}[plan["does"]]
    found = does(plan)
    place = Path(os.environ["PLACE"])
    (place / "found.part").write_text(json.dumps(found))
    (place / "found.part").rename(place / "found")


if __name__ == "__main__":
    main()
