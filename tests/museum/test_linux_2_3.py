"""The kernel timer races of Linux 2.3.99, and the rules that avoid them."""

from __future__ import annotations

from typing import Final

import pytest

from callout.explore._schedule import name_of
from callout.museum import Exhibit, Variant, _linux_2_3
from tests.museum.shown import buggy, calls, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _linux_2_3.EXHIBITS

# How often the handler is called, if not either once or, when the delete came first, never.
CALLS: Final = {"R1.4.starts-again-two-runs": {0, 1, 2}, "R1.6.flag-with-lock": {0, 1, 2}}


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """With as many preemptions as the variant says, and not with fewer, the handler or the delete goes wrong."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """A driver that keeps the rule, or a kernel that enforces it, is right in every schedule."""
    found = check_clean(variant)

    assert calls(found) == CALLS.get(name_of(variant.scenario), {0, 1})
