"""Why Slurm lets a job wait: its own word, which administrators know, and what it means."""

from __future__ import annotations

import re

# The first pattern that matches decides; whether such a job can ever start is decided below.
_PLAIN = (
    ("Resources", "waits for free nodes"),
    ("Nodes required for job are DOWN.*", "the nodes that could run it are down, drained or reserved"),
    ("Priority", "jobs of higher priority go first"),
    ("BeginTime", "may not start yet: Slurm has put it off, or --begin did"),
    ("Dependency", "waits for the end of another job"),
    ("DependencyNeverSatisfied", "waits for a job that has failed"),
    ("JobHeldUser", "is held; to release it: scontrol release"),
    ("JobHeldAdmin", "is held by an administrator"),
    ("PartitionConfig|PartitionNodeLimit", "asks for more than the queue gives"),
    ("PartitionTimeLimit", "asks for more time than the queue gives"),
    ("Partition(Down|Inactive)", "the queue is closed"),
    ("ReqNodeNotAvail.*|NodeDown", "a node that it needs is down, drained or reserved"),
    ("Reservation.*", "waits for its reservation"),
    ("Licenses", "waits for a licence"),
    ("BadConstraints", "no node has what it asks for"),
    ("InvalidAccount|AccountNotAllowed", "its account may not be used there"),
    ("InvalidQOS|QOSNotAllowed", "its quality of service may not be used there"),
    (".*(PerJob|WallDuration).*", "asks for more than one job may have"),
    ("QOSMin.*", "asks for less than a job has to"),
    ("(Assoc|QOS)MaxJobs.*|QOSMaxSubmit.*", "as many of your jobs as may run are running"),
    ("(Assoc|QOS)Max.*", "you use as much as you may"),
    ("(Assoc|QOS)Grp.*", "your group uses as much as it may"),
    ("launch failed requeued held", "Slurm could not start it, and holds it"),
)  # fmt: skip
_NEVER = re.compile(
    "PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|BadConstraints|DependencyNeverSatisfied"
    "|Invalid(Account|QOS)|(Account|QOS)NotAllowed|(Assoc|QOS)Max.*(PerJob|WallDuration).*|QOSMin.*"
    "|launch failed requeued held"
)
#: The message of sbatch, repeated for minutes, when Slurm holds as many jobs as it may.
_FULL = "temporarily unable to accept job"


def explain(reason: str) -> str:
    """Explain why a job waits; empty if Slurm gives no reason yet.

    Examples
    --------
    >>> explain('PartitionTimeLimit')
    'PartitionTimeLimit: asks for more time than the queue gives'
    """
    reason = reason.strip("()")
    if reason in ("", "None"):
        return ""
    found = next((text for pattern, text in _PLAIN if re.fullmatch(pattern, reason)), "")
    return f"{reason}: {found}" if found else reason


def explain_complaint(line: str) -> str:
    """Explain why sbatch has not submitted a job yet, from a line of its stderr."""
    if _FULL in line:
        return "MaxJobCount: Slurm takes no more jobs for now; it is asked again"
    return line.strip()


def can_never_start(reason: str) -> bool:
    """Whether a job will wait for ever unless somebody changes it, or the cluster.

    Examples
    --------
    >>> can_never_start('AssocMaxWallDurationPerJobLimit'), can_never_start('AssocMaxJobsLimit')
    (True, False)
    """
    return _NEVER.fullmatch(reason.strip("()")) is not None
