"""Schedules that are picked by chance."""

from __future__ import annotations

from typing import Any

import pytest

from callout import ArgumentTypeError, ArgumentValueError, CalloutError
from callout.explore import Violation, explore, replay
from callout.museum import EXHIBITS, Variant
from callout.testing import VirtualSMP

WHOLE = {("a",) * 4 + ("b",) * 4, ("b",) * 4 + ("a",) * 4}  # each thread runs in one piece
EASY = [
    variant for number in ("R0.1", "R1.1", "R1.5", "R3.1", "R4.1", "R4.3", "R4.6") for variant in EXHIBITS[number].buggy
]


@pytest.mark.parametrize("strategy", ["random", "pct"])
@pytest.mark.parametrize("variant", EASY, ids=lambda variant: variant.name)
def test_most_races_are_found_by_chance(variant: Variant, strategy: str) -> None:
    """In few schedules; the schedule that is named shows it again."""
    with pytest.raises(Violation) as caught:
        explore(variant.scenario, cpus=variant.cpus, strategy=strategy, schedules=200)
    cause = caught.value.__cause__

    assert variant.breaks in str(cause)
    assert cause is not None
    with pytest.raises(type(cause)):
        replay(variant.scenario, caught.value.schedule)


def choices(strategy: str, *, schedules: int, **options: int) -> list[tuple[str, ...]]:
    """Return in which orders two threads have run."""
    orders: list[tuple[str, ...]] = []

    def scenario(vm: VirtualSMP) -> None:
        order: list[str] = []

        def thread(name: str) -> None:
            for _ in range(4):
                order.append(name)
                vm.point()

        for name in "ab":
            vm.spawn(thread, name)
        vm.settle()
        orders.append(tuple(order))

    explore(scenario, cpus=1, strategy=strategy, schedules=schedules, **options)  # type: ignore[arg-type]  # ints all
    return orders


@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_the_same_seed_picks_the_same_schedules(strategy: str) -> None:
    """And another one picks others."""
    first = choices(strategy, schedules=8, seed=1)

    assert choices(strategy, schedules=8, seed=1) == first
    assert choices(strategy, schedules=8, seed=9) != first
    assert len(set(first)) > 1


def test_a_bound_holds_for_what_is_random() -> None:
    """With none, each thread runs in one piece."""
    assert set(choices("random", schedules=20, bound=0)) <= WHOLE


def test_the_depth_is_how_often_priorities_change() -> None:
    """With a depth of 1 none does: each thread runs in one piece."""
    assert set(choices("pct", depth=1, schedules=30)) == WHOLE
    assert not set(choices("pct", depth=3, schedules=100)) <= WHOLE


def test_a_certificate_says_that_it_was_chance() -> None:
    """Strategy and seed are in it, and it claims nothing of the rest."""
    certificate = explore(lambda vm: vm.point(), strategy="pct", schedules=5, seed=3)

    assert not certificate.exhausted
    assert (certificate.strategy, certificate.seed, certificate.reduced, certificate.schedules) == ("pct", 3, False, 5)
    assert "pct, seed 3" in str(certificate)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"strategy": "bfs"}, ArgumentValueError),
        ({"strategy": 3}, ArgumentValueError),
        ({"depth": 0}, ArgumentValueError),
        ({"seed": -1}, ArgumentValueError),
        ({"seed": "1"}, ArgumentTypeError),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(wrong: dict[str, Any], error: type[CalloutError]) -> None:
    """Each with the name of the option."""
    runs: list[int] = []
    with pytest.raises(error, match=next(iter(wrong))):
        explore(lambda vm: runs.append(1), **wrong)
    assert runs == []
