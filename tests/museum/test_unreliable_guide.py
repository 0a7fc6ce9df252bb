"""The races of the chapter "Racing Timers" of the Unreliable Guide to Locking."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _unreliable_guide
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = _unreliable_guide.EXHIBITS


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """Each naive way to destroy a list of timers frees twice, uses freed memory or never ends."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """Each remedy frees every element once and ends, in every schedule."""
    check_clean(variant)
