"""Why jobs wait, in plain words, and for how long."""

from __future__ import annotations

import pytest

from pyhrf_parallel.engine.waiting import can_never_start, explain, explain_complaint


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("", ""),
        ("None", ""),
        ("(None)", ""),
        ("Something New", "Something New"),
        ("(Resources)", "Resources: waits for free nodes"),
        ("QOSMaxCpuPerUserLimit", "QOSMaxCpuPerUserLimit: you use as much as you may"),
        ("QOSGrpCpuLimit", "QOSGrpCpuLimit: your group uses as much as it may"),
        (
            "AssocMaxCpuPerJobLimit",
            "AssocMaxCpuPerJobLimit: asks for more than one job may have",
        ),
        (
            "ReqNodeNotAvail, Reserved for x",
            "ReqNodeNotAvail, Reserved for x: a node that it needs is down, drained or reserved",
        ),
    ],
)
def test_explanation(reason: str, told: str) -> None:
    assert explain(reason) == told


@pytest.mark.parametrize(
    ("reason", "never"),
    [
        ("Resources", False),
        ("QOSMaxCpuPerUserLimit", False),
        ("AssocGrpCpuLimit", False),
        ("JobHeldUser", False),
        ("PartitionDown", False),
        ("", False),
        ("Dependency", False),
        ("DependencyNeverSatisfied", True),
        ("QOSMaxCpuPerJobLimit", True),
        ("QOSMinGRES", True),
        ("(PartitionTimeLimit)", True),
        ("InvalidQOS", True),
        ("AccountNotAllowed", True),
        ("launch failed requeued held", True),
    ],
)
def test_hope(reason: str, never: bool) -> None:
    assert can_never_start(reason) is never


def test_what_sbatch_says_while_it_tries() -> None:
    line = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
    assert explain_complaint(line).startswith("MaxJobCount: ")
    assert explain_complaint("sbatch: warning: x\n") == "sbatch: warning: x"
