"""The ways in which del_timer_sync() of Linux 2.6 returned too early, and what ended them."""

from __future__ import annotations

from typing import Final

import pytest

from callout.explore._schedule import name_of
from callout.museum import Exhibit, Variant, _linux_2_6
from tests.museum.shown import buggy, calls, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _linux_2_6.EXHIBITS

# How often the handler is called, if not either once or, when the delete came first, never.
CALLS: Final = {
    "R0.2.all-bases": {0, 1, 2},
    "R0.2.all-bases-old-order": {0, 1, 2},
    "R0.3.running-in-base": {1},
    "R0.4.full-scan": {0, 1, 2},
    "R0.5.2.6.13": {0, 1, 2},
    "R0.5.2.6.13-overlap": {0, 1, 2},
    "R0.5.2.6.13-moved": {0},
    "R0.5.2.4-aa": {0, 1, 2},
    "R0.5.2.4-aa-overlap": {0, 1, 2},
}


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """With as many preemptions as the variant says, and not with fewer, a delete returns too early, or what is freed
    is used.
    """
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """When del_timer_sync() returns, the timer is neither pending nor running, and does not start, in any schedule."""
    found = check_clean(variant)

    assert calls(found) == CALLS.get(name_of(variant.scenario), {0, 1})
