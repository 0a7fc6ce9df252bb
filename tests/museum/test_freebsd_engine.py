"""Races in the design of FreeBSD's callout engines: drains, migration, the lookup of a callout's CPU."""

from __future__ import annotations

from typing import Final

import pytest

from callout.museum import Exhibit, Variant, _freebsd_engine, _freebsd_lookup, _freebsd_migration
from tests.museum.shown import buggy, check_clean, check_found, fixed

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    *_freebsd_engine.EXHIBITS,
    *_freebsd_migration.EXHIBITS,
    *_freebsd_lookup.EXHIBITS,
)


@pytest.mark.parametrize("variant", buggy(EXHIBITS))
def test_each_race_is_found(variant: Variant) -> None:
    """Each mistake of an old engine is found with as many preemptions as its exhibit says, and not with fewer."""
    check_found(variant)


@pytest.mark.parametrize("variant", fixed(EXHIBITS))
def test_each_remedy_is_clean(variant: Variant) -> None:
    """The engine without the mistake is clean in every schedule."""
    check_clean(variant)
