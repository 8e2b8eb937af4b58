"""The documented graph, made of a subject alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pyhrf_parallel.treatment_jobs.graph import JobGraph, build_graph
from pyhrf_parallel.treatment_jobs.subject import Subject


def described(regions: int, **changes: object) -> Subject:
    files = {label: f"roidata_{label:04d}.pck" for label in range(regions, 0, -1)}
    subject = Subject(
        "one", "LABEL", files, "/scratch/me", inputs={"bold.nii": "/data/bold.nii"},
        send_to="me@laptop", result_path="/results/result.pck",
    )  # fmt: skip
    return replace(subject, **changes)  # type: ignore[arg-type]


def names(graph: JobGraph) -> list[str]:
    return [job.name for job in graph.jobs]


def test_names_groups_and_words() -> None:
    graph = build_graph(described(2))
    assert names(graph) == [
        "roi_split", "jde_r0002", "jde_r0001", "merge_results", "scp_result", "clean_files",
    ]  # fmt: skip
    assert {job.name: job.group for job in graph.jobs} == {
        "roi_split": "LABEL",
        "jde_r0001": "LABEL-roi_jobs",
        "jde_r0002": "LABEL-roi_jobs",
        "merge_results": "LABEL",
        "scp_result": "LABEL",
        "clean_files": "LABEL",
    }
    split, second, _, merge, scp, clean = (job.command for job in graph.jobs)
    assert split == ["pyhrf_split_roidata", "-c", "treatment.xml", "-v", "30", "-d", "./"]
    assert second == [
        "pyhrf_jde_estim", "-c", "treatment.xml", "-r", "roidata_0002.pck", "-v", "30",
    ]  # fmt: skip
    assert merge == [
        "pyhrf_pack_results", "-v1", "-o", "result.pck", "result_0002.pck", "result_0001.pck",
    ]  # fmt: skip
    assert scp == ["scp", "result.pck", "me@laptop:/results/result.pck"]
    assert clean[:3] == ["rm", "-rf", "--"]
    assert set(clean[3:]) == {
        "treatment.xml", "bold.nii", "roidata_0001.pck", "roidata_0002.pck", "result_0001.pck",
        "result_0002.pck", "result.pck", ".home",
    }  # fmt: skip


def test_edges() -> None:
    graph = build_graph(described(2))
    found = {(graph.jobs[a].name, graph.jobs[b].name) for a, b in graph.dependencies}
    assert found == {
        ("roi_split", "jde_r0001"),
        ("roi_split", "jde_r0002"),
        ("jde_r0001", "merge_results"),
        ("jde_r0002", "merge_results"),
        ("merge_results", "scp_result"),
        ("scp_result", "clean_files"),
    }
    assert len(graph.dependencies) == len(found)


def test_a_result_that_is_fetched_needs_neither_scp_nor_a_clean_up_by_a_job() -> None:
    assert names(build_graph(described(1, send_to=""))) == [
        "roi_split", "jde_r0001", "merge_results",
    ]  # fmt: skip


@pytest.mark.parametrize("regions", [1, 3, 5])
def test_drawing(regions: int) -> None:
    drawn = str(build_graph(described(regions)))
    shown = ["roi_split", f"jde_r{regions:04d}", "jde_r0001", "merge_results", "clean_files"]
    assert [drawn.index(name) for name in shown] == sorted(drawn.index(name) for name in shown)
    assert ("(5 jobs)" in drawn) == (regions == 5)


def test_ten_thousand_regions_take_time_in_proportion() -> None:
    def seconds(regions: int) -> float:
        subject = described(regions)
        began = time.process_time()
        graph = build_graph(subject)
        assert len(graph.jobs) == regions + 4
        assert len(graph.dependencies) == 2 * regions + 2
        return time.process_time() - began

    assert min(seconds(10_000) for _ in range(3)) < 30 * min(seconds(1_000) for _ in range(3))
