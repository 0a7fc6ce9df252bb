"""Races in the use of callout(9): how to free what has callouts, and the three rules."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _freebsd_direct, _freebsd_giant, _freebsd_shared, _freebsd_use
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    *_freebsd_use.EXHIBITS,
    *_freebsd_giant.EXHIBITS,
    *_freebsd_shared.EXHIBITS,
    *_freebsd_direct.EXHIBITS,
)


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """Each misuse is found with as many preemptions as its exhibit says, and not with fewer."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """Each right use is clean in every schedule."""
    check_clean(variant)
