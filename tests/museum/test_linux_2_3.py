"""The kernel timer races of Linux 2.3.99, and the rules that avoid them."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _linux_2_3
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _linux_2_3.EXHIBITS


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """With as many preemptions as the variant says, and not with fewer, the handler or the delete goes wrong."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """A driver that keeps the rule, or a kernel that enforces it, is right in every schedule."""
    check_clean(variant)
