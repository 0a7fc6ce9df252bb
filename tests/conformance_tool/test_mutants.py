"""Broken trace files: each is refused, or replayed; none is blamed on the implementation."""

from __future__ import annotations

from pathlib import Path

import pytest

from .mutate import judge, mutants


@pytest.mark.parametrize(("platform", "seed", "count"), [("virtual", 11, 400), ("trio", 12, 100)])
def test_a_broken_file_is_refused_and_never_blamed(platform: str, seed: int, count: int, tmp_path: Path) -> None:
    """Each ends with status 0, 1 or 2; a 2 is one line with the file's name, a 1 is a mismatch and no breakdown."""
    statuses = set()
    for mutant in mutants(count, seed):
        outcome = judge(tmp_path / "trace.jsonl", mutant.data, platform)
        statuses.add(outcome.status)

        assert outcome.status in {0, 1, 2}, mutant
        assert outcome.blame() == [], mutant
        assert outcome.seconds < 10, mutant
        if outcome.status == 2:
            assert outcome.out == "", mutant
            assert outcome.err.count("\n") == 1, mutant
            assert "trace.jsonl" in outcome.err or "hold no scenario" in outcome.err, mutant
            assert len(outcome.err) < 1000, mutant

    assert statuses == {0, 1, 2}  # or the mutants are all of one kind
