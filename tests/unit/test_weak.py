"""The tables that keep nothing alive."""

from __future__ import annotations

import weakref
from typing import Any, Final

from callout._core.weak import ByIdentity, WeakValues

FEW: Final = 16  # so many entries are kept before anybody looks which have died


class Thing:
    """Equals every other thing."""

    __slots__ = ("__weakref__",)

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def test_a_value_is_there_while_it_lives() -> None:
    """An object is found by its key until it dies or is removed, and nothing is found where nothing was put."""
    table: WeakValues[Thing] = WeakValues()
    one, two = Thing(), Thing()
    table.set(1, one)
    table.set(2, two)

    assert table.get(1) is one
    assert table.get(2) is two
    assert table.get(3) is None

    table.pop(2)
    table.pop(3)
    del one

    assert table.get(1) is None
    assert table.get(2) is None


def test_what_is_known_of_an_object_is_known_of_no_other() -> None:
    """Objects that are equal are told apart; what is known last counts."""
    table: ByIdentity[Thing, str] = ByIdentity()
    one, two = Thing(), Thing()
    table.set(one, "one")

    assert table.get(one) == "one"
    assert table.get(two) is None

    table.set(one, "once more")

    assert table.get(one) == "once more"
    assert len(table) == 1


def test_what_was_known_of_the_dead_is_not_known_of_who_comes_after() -> None:
    """An object that has the id of one that has died is another one."""
    table: ByIdentity[Thing, str] = ByIdentity()
    one, dead = Thing(), Thing()
    table.set(one, "of the dead")
    table._rows[id(one)] = weakref.ref(dead), "of the dead"
    del dead

    assert table.get(one) is None

    table.set(one, "its own")

    assert table.get(one) == "its own"


def test_what_has_died_is_removed_when_the_table_has_doubled() -> None:
    """So the cost of adding is constant on average, and what lives is never removed."""
    table: WeakValues[Thing] = WeakValues()
    for key in range(FEW):
        table.set(key, Thing())

    assert len(table) == FEW

    alive = [Thing()]
    table.set(FEW, alive[0])

    assert len(table) == 1

    for key in range(FEW + 1, 2 * FEW + 1):
        alive.append(Thing())
        table.set(key, alive[-1])

    assert len(table) == len(alive) == FEW + 1

    for key in range(100, 100 + FEW + 1):
        table.set(key, Thing())

    assert len(table) == 2 * len(alive)

    table.set(200, alive[0])

    assert len(table) == len(alive) + 1
    assert [table.get(FEW + at) for at in range(len(alive))] == alive


def test_what_another_thread_adds_meanwhile_is_not_removed() -> None:
    """An entry that has taken the place of a dead one while that was looked at stays."""
    table: WeakValues[Thing] = WeakValues()
    late = Thing()

    def dead() -> None:
        table._rows[0] = weakref.ref(late), None

    reference: Any = dead  # Any: stands for a reference to what has died, at the moment that somebody looks
    table._rows[0] = reference, None
    for key in range(1, FEW + 1):
        table.set(key, late)

    assert table.get(0) is late
