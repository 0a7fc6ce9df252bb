"""What exploring a variant must show."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from callout.explore import Certificate, Violation, explore
from callout.museum import Exhibit, Variant

BOUND = 3  # with as many preemptions what is fixed is explored to the end
FEWEST = 5  # schedules: what explores fewer does not race


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


def search(variant: Variant, bound: int) -> Certificate:
    """Explore a variant with so many preemptions."""
    return explore(variant.scenario, cpus=variant.cpus, bound=bound, cells_only=variant.cells_only)


def check_found(variant: Variant) -> None:
    """Find what goes wrong with as many preemptions as the variant says, and nothing with one fewer."""
    with pytest.raises(Violation) as caught:
        search(variant, variant.preemptions)
    assert variant.breaks in str(caught.value.__cause__)

    if variant.preemptions:
        assert search(variant, variant.preemptions - 1).exhausted


def check_clean(variant: Variant) -> None:
    """Find nothing in any schedule."""
    certificate = search(variant, BOUND)

    assert certificate.exhausted
    assert certificate.schedules >= FEWEST
