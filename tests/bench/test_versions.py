"""``python -m tests.bench.versions`` compares installations. No figure is judged here."""

from __future__ import annotations

import sys

import pytest

from tests.bench import versions


def test_each_installation_is_measured_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that say which core they have."""
    monkeypatch.setenv("CALLOUT_PURE", "1")

    cores, found = versions.measure([sys.executable] * 3, starts=2, rounds=2, calls=10)

    assert cores == ["pure"] * 3
    assert len(found) == 4
    assert all(len(taken) == 3 and min(taken) > 0 for taken in found)


def test_a_line_has_the_medians() -> None:
    """Of what a call takes, and of the ratios within a round: a slow round is slow for all."""
    found = [[100.0, 110.0], [1000.0, 900.0], [200.0, 204.0]]

    assert versions.lines(["a", "b"], ["pure", "compiled"], found) == [
        "  200.0 ns  1.000 (1.000 to 1.000)  pure      a",
        "  204.0 ns  1.020 (0.900 to 1.100)  compiled  b",
    ]


def test_an_interpreter_without_the_package_is_named() -> None:
    """Before anything is measured."""
    with pytest.raises(RuntimeError, match="false cannot run this package"):
        versions.measure(["false"], starts=1, rounds=1, calls=1)
