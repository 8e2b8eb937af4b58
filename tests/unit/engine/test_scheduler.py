"""Which class runs the jobs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyhrf_parallel.engine.plan import Plan
from pyhrf_parallel.engine.scheduler import SCHEDULERS, make_scheduler


class OtherScheduler:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan


def test_the_one_that_the_plan_names(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(1, 1, stop_at_failure=True, scheduler="other")
    monkeypatch.setitem(SCHEDULERS, "other", f"{__name__}:OtherScheduler")
    found = make_scheduler(plan)
    assert isinstance(found, OtherScheduler)
    assert found.plan is plan


def test_soma_workflow_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyhrf_parallel.engine.soma.SomaScheduler", OtherScheduler)
    found = make_scheduler(Plan(1, 1, stop_at_failure=True, scheduler="pbs"))
    assert isinstance(found, OtherScheduler)
