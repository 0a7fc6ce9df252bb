"""What exploring an example must show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout.explore import Certificate, Violation, explore
from callout.testing import VirtualSMP

Scenario = Callable[[VirtualSMP], None]


def clean(scenario: Scenario, bound: int = 3) -> Certificate:
    """Find nothing in any schedule. All that the examples share is guarded by their locks."""
    certificate = explore(scenario, bound=bound, cells_only=True)

    assert certificate.exhausted
    assert certificate.schedules > 100

    return certificate


def wrong(scenario: Scenario, bound: int, says: str, steps: int = 20_000) -> None:
    """Find what a variant does wrong, with as many preemptions."""
    with pytest.raises(Violation) as caught:
        explore(scenario, bound=bound, cells_only=True, shrink=False, steps=steps)

    assert says in str(caught.value.__cause__)
