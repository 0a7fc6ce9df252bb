"""The block of smp_call_function_many() that is reused under a walker."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _smp_call
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _smp_call.EXHIBITS


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """A handler that trusts a stale block makes a call too early, and two preemptions show it."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """Each order of reads and writes that Linux was left with makes every call once, in every schedule."""
    check_clean(variant)
