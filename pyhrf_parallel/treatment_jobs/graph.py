"""The job graph of a treatment, made of a description of it: no network, no files.

::

    roi_split ──► jde_r0001 ──► merge_results ──► scp_result ──► clean_files
              ──► jde_r0002 ──►
              ──► ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyhrf_parallel.treatment_jobs.region_files import result_name

SPLIT, REGION, MERGE = "roi_split", "jde_r{:04d}", "merge_results"
OUTPUT, BRING_BACK, CLEAN = "make_outputs", "scp_result", "clean_files"
CONFIG, RESULT, ARCHIVE = "treatment.xml", "result.pck", "outputs.tar"
#: Where programs of a treatment may leave what others leave in a user's home.
HOME = ".home"
SPLIT_COMMAND, MERGE_COMMAND = "pyhrf_split_roidata", "pyhrf_pack_results"
# A level of Python's logging, as in pyhrf: its 1 is a hundred lines for each voxel.
_WARNINGS = ["-v", "30"]
_SHOWN = 3  # region jobs of a graph that are drawn


@dataclass(frozen=True)
class Description:
    """What the graph of a treatment depends on.

    Attributes
    ----------
    label : str
        The name of the group of all its jobs.
    regions : dict of int to str
        For each region's label the name of the file with its data, the biggest first.
    place : str
        The directory, where the jobs run, of all their files.
    estimate : sequence of str
        The command that is run on each region.
    split : sequence of str
        The command that writes the regions.
    inputs : sequence of str
        The names of the files that the treatment reads.
    send_to : (str, str) or None
        ``user@host``, and the path there, for the result; None if it is fetched.
    output : sequence of str
        The command that makes files for people of the result; none if that is not done there.
    replaceable : sequence of str
        The SHA-256 checksums of the files that the result may replace where it is sent.
    """

    label: str
    regions: dict[int, str]
    place: str
    estimate: Sequence[str]
    split: Sequence[str] = (SPLIT_COMMAND,)
    inputs: Sequence[str] = ()
    send_to: tuple[str, str] | None = None
    output: Sequence[str] = ()
    replaceable: Sequence[str] = ()

    @property
    def results(self) -> list[str]:
        """The names of the files with the results of the regions."""
        return [result_name(name) for name in self.regions.values()]


@dataclass(frozen=True)
class GraphJob:
    """A job: its name, its words, and the group that it is in."""

    name: str
    command: list[str]
    group: str


@dataclass(frozen=True)
class JobGraph:
    """Jobs that run in one place, and which of them runs before which, by their positions."""

    label: str
    place: str
    jobs: list[GraphJob]
    dependencies: list[tuple[int, int]]

    def __str__(self) -> str:
        """Draw the graph, each job below what it waits for."""
        regions = [job for job in self.jobs if job.group == region_group(self.label)]
        lines = [self.jobs[0].name]
        shown = [job.name for job in regions[:_SHOWN]]
        if len(regions) > _SHOWN:
            shown += [f"... {regions[-1].name} ({len(regions)} jobs)"]
        for position, name in enumerate(shown):
            lines.append(f" {'└' if position == len(shown) - 1 else '├'}─► {name}")
        indent = " " * 5
        for job in self.jobs[1 + len(regions) :]:
            lines.append(f"{indent}└─► {job.name}")
            indent += " " * 5
        return "\n".join(lines)


def region_group(label: str) -> str:
    """Return the name of the group of the regions' jobs."""
    return f"{label}-roi_jobs"


def split_command(what: Description) -> list[str]:
    """Return the words that write the data of each region."""
    return [*what.split, "-c", CONFIG, *_WARNINGS, "-d", "./"]


def region_command(estimate: Sequence[str], name: str) -> list[str]:
    """Return the words that analyse the region of a file."""
    return [*estimate, "-c", CONFIG, "-r", name, *_WARNINGS]


def merge_command() -> list[str]:
    """Return the words that join results, which are to follow."""
    return [MERGE_COMMAND, "-v1", "-o", RESULT]


def clean_command(what: Description) -> list[str]:
    """Return the words that remove all files of the treatment."""
    files = [CONFIG, *what.inputs, *what.regions.values(), *what.results, RESULT]
    return ["rm", "-rf", "--", *files, HOME]


def build_graph(what: Description) -> JobGraph:
    """Return the documented graph: a job for each region.

    Parameters
    ----------
    what : Description
        With one region at least.
    """
    regions = [
        GraphJob(
            REGION.format(roi_id), region_command(what.estimate, name), region_group(what.label)
        )
        for roi_id, name in what.regions.items()
    ]
    jobs = [
        GraphJob(SPLIT, split_command(what), what.label),
        *regions,
        GraphJob(MERGE, [*merge_command(), *what.results], what.label),
        *_last_jobs(what),
    ]
    n = len(regions)
    edges = [(0, job) for job in range(1, n + 1)] + [(job, n + 1) for job in range(1, n + 1)]
    return JobGraph(
        what.label, what.place, jobs, edges + [(j, j + 1) for j in range(n + 1, len(jobs) - 1)]
    )


def _last_jobs(what: Description) -> Iterator[GraphJob]:
    if what.output:
        yield GraphJob(OUTPUT, list(what.output), what.label)
    if what.send_to is not None:
        command = ["scp", RESULT, ":".join(what.send_to)]
        yield GraphJob(BRING_BACK, command, what.label)
        yield GraphJob(CLEAN, clean_command(what), what.label)
