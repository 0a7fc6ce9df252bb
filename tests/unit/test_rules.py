"""The table of the three rules: complete, and what it says as text."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from callout import LockClassError
from callout._core.arm import lock_class_of
from callout._core.rules import RULES, LockClass, Place, place, table
from callout._core.units import CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK


def test_the_table_is_complete() -> None:
    """Every class of lock has a row, and every row says both where softclock and where the interrupt runs it."""
    assert set(RULES) == set(LockClass)
    assert all(isinstance(where, Place) for row in RULES.values() for where in row)
    assert all(len(row) == 2 for row in RULES.values())


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("kind", LockClass)
def test_place_says_what_the_table_says(kind: LockClass, direct: bool) -> None:
    """place() returns a row's entry, or raises an error that names the call and the lock's class."""
    where = RULES[kind][direct]
    if where in (Place.ASSIGNED, Place.CPU0):
        assert place("some_call", kind, direct) is where
    else:
        with pytest.raises(LockClassError, match=r"some_call: .*" + kind.value.replace("(", r"\(").replace(")", r"\)")):
            place("some_call", kind, direct)


def test_rule_1() -> None:
    """Only a callout without a lock, which goes to CPU 0, or with a spin mutex may run directly."""
    assert {kind: row[1] for kind, row in RULES.items() if row[1] in (Place.ASSIGNED, Place.CPU0)} == {
        LockClass.NONE: Place.CPU0,
        LockClass.SPIN: Place.ASSIGNED,
    }


def test_rules_2_and_3() -> None:
    """Softclock runs Giant's callouts and those of shared locks on CPU 0, and all others where they are assigned."""
    assert {kind for kind, row in RULES.items() if row[0] is Place.CPU0} == {LockClass.GIANT, LockClass.SHARED}
    assert {kind for kind, row in RULES.items() if row[0] is Place.ERROR_AT_INIT} == {LockClass.SLEEPABLE}


def test_the_table_as_text() -> None:
    """The manual's table has a head, a rule and one row a class, three columns each."""
    lines = table().splitlines()

    assert len(lines) == 2 + len(LockClass)
    assert all(line.count("|") == 4 for line in lines)
    for kind, line in zip(RULES, lines[2:], strict=True):
        assert [cell.strip() for cell in line.strip("|").split("|")] == [
            kind.value,
            *(each.value for each in RULES[kind]),
        ]


FLAGS = [
    sum(flags)
    for count in range(4)
    for flags in itertools.combinations((CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK), count)
]


@pytest.mark.parametrize("flags", FLAGS)
def test_the_class_of_a_callouts_lock(flags: int) -> None:
    """Giant is Giant whatever the flags, SHAREDLOCK changes read/write locks only, and no lock is no lock."""
    machine = SimpleNamespace()

    def lock(kind: LockClass) -> Any:  # noqa: ANN401 - stands for a lock
        return SimpleNamespace(machine=machine, lock_class=kind)

    machine.giant = lock(LockClass.MUTEX)

    assert lock_class_of(None, flags) is LockClass.NONE
    assert lock_class_of(machine.giant, flags) is LockClass.GIANT
    for kind in (LockClass.MUTEX, LockClass.SPIN, LockClass.SLEEPABLE):
        assert lock_class_of(lock(kind), flags) is kind
    expected = LockClass.SHARED if flags & CALLOUT_SHAREDLOCK else LockClass.EXCLUSIVE
    assert lock_class_of(lock(LockClass.EXCLUSIVE), flags) is expected
