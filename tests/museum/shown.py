"""What exploring a variant must show."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from callout.explore import explore
from callout.museum import Exhibit, Variant
from tests.museum.compare import Seen, difference, seen

FEWEST = 5  # schedules: what explores fewer does not race
PLAIN = 100  # schedules of a search without the reduction


def buggy(exhibits: Iterable[Exhibit]) -> list[object]:
    """Return the variants that have a race, as parameters of a test."""
    return [
        pytest.param(variant, id=f"{exhibit.number}-{variant.name}")
        for exhibit in exhibits
        for variant in exhibit.buggy
    ]


def fixed(exhibits: Iterable[Exhibit]) -> list[object]:
    """Return the variants that have none, as parameters of a test."""
    return [
        pytest.param(variant, id=f"{exhibit.number}-{variant.name}")
        for exhibit in exhibits
        for variant in exhibit.fixed
    ]


def check_plain(variant: Variant, reduced: Seen) -> None:
    """Have a plain search, as far as it comes, see nothing that the reduced one has not."""
    assert difference(seen(variant, reduce=False, schedules=PLAIN), reduced) == ""


def check_found(variant: Variant) -> None:
    """Find what goes wrong with as many preemptions as the variant says, and nothing with one fewer."""
    reduced = seen(variant, reduce=True)
    assert variant.breaks in reduced.broke
    check_plain(variant, reduced)

    if variant.preemptions:
        fewer = variant.preemptions - 1
        assert explore(variant.scenario, cpus=variant.cpus, bound=fewer, cells_only=variant.cells_only).exhausted


def check_clean(variant: Variant) -> Seen:
    """Find nothing in any schedule; return what was seen."""
    reduced = seen(variant, reduce=True)

    assert reduced.broke == ""
    assert reduced.exhausted
    assert reduced.schedules >= FEWEST
    check_plain(variant, reduced)
    return reduced


def calls(found: Seen) -> set[int]:
    """Return how often the handler was called, each number that there was in some schedule."""
    return {int(count) for state in found.states for count in re.findall(r"how often H was called=(\d+)", state)}
