"""The ways in which del_timer_sync() of Linux 2.6 returned too early, and what ended them."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _linux_2_6
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _linux_2_6.EXHIBITS


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """With as many preemptions as the variant says, and not with fewer, a delete returns too early, or what is freed
    is used.
    """
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """When del_timer_sync() returns, the timer is neither pending nor running, and does not start, in any schedule."""
    check_clean(variant)
