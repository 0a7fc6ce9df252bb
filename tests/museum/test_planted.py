"""The models of the remedies notice when a remedy does not do its work: the mistakes of planted.py are found."""

from __future__ import annotations

import pytest

from callout.explore import Violation, explore
from callout.museum import EXHIBITS, Variant
from tests.museum import planted
from tests.museum.planted import PLANTED, Planted

REMEDIES = {f"{number} {variant.name}": variant for number, exhibit in EXHIBITS.items() for variant in exhibit.fixed}
OURS = (NameError, TypeError, AttributeError)  # mistakes in planted.py, no verdicts


def found(variant: Variant) -> Violation | None:
    """Return what goes wrong in a variant, with as many preemptions as a remedy must stand."""
    try:
        explore(variant.scenario, cpus=variant.cpus, bound=3, cells_only=variant.cells_only, shrink=False)
    except Violation as violation:
        return violation
    return None


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: f"{mistake.remedies[0]}: {mistake.says}")
def test_a_wrong_version_of_a_remedy_is_found(mistake: Planted) -> None:
    """Each model that a mistake is in finds it, and says something of timers, not of Python."""
    museum = planted.exhibits(mistake)
    for remedy in mistake.remedies:
        number, _, name = remedy.partition(" ")
        (variant,) = (each for each in museum[number].fixed if each.name == name)
        violation = found(variant)

        assert violation is not None, f"{remedy} is clean although {mistake.says}"
        assert not isinstance(violation.__cause__, OURS), violation.__cause__


def test_every_remedy_has_a_wrong_version() -> None:
    """A remedy without one could be clean because its model does not look."""
    assert {remedy for mistake in PLANTED for remedy in mistake.remedies} == REMEDIES.keys()


def test_the_museum_that_is_open_stays_as_it_is() -> None:
    """A mistake is in a museum of its own."""
    museum = planted.exhibits(PLANTED[0])
    number, _, name = PLANTED[0].remedies[0].partition(" ")

    assert museum is not EXHIBITS
    assert found(REMEDIES[f"{number} {name}"]) is None
