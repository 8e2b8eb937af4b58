"""Tasks that the workers of one machine take from a file, and give back."""

from __future__ import annotations

from pathlib import Path

from pyhrf_parallel.worker.claims import Claims


def take_all(claims: Claims) -> list[int]:
    found: list[int] = []
    while (taken := claims.take(100)) is not None:
        found += range(*taken)
    return found


def test_what_is_given_back_is_taken_by_others(tmp_path: Path) -> None:
    claims = Claims.create(str(tmp_path / "claims"), [(0, 3), (5, 9)], 2)
    assert claims.take(1) == (0, 1)
    claims.give_back([(0, 1)])
    assert take_all(claims) == [1, 2, 5, 6, 7, 8, 0]
    claims.give_back([(6, 7), (2, 3)])  # after the last one was taken, too
    assert take_all(claims) == [6, 2]
    assert claims.take(1) is None
