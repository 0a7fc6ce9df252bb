"""Initialising for the first time takes a short way on real loops, and leaves what the long way leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    BusyError,
    Callout,
    ClosedError,
    Mtx,
    NotInitializedError,
    RmLock,
    RwLock,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_stop,
    open_callouts,
)
from callout._core.state import FIELDS

WAYS: Final[dict[str, Callable[[Callout], None]]] = {
    "no lock": lambda c: callout_init(c, 1),
    "Giant": lambda c: callout_init(c, 0),
    "a mutex": lambda c: callout_init_mtx(c, Mtx("m"), CALLOUT_TRYLOCK),
    "a read/write lock": lambda c: callout_init_rw(c, RwLock("rw"), CALLOUT_SHAREDLOCK),
    "a read-mostly lock": lambda c: callout_init_rm(c, RmLock("rm")),
}


class Sub(Callout):
    """A callout of the user's."""

    __slots__ = ("more",)


def ignore(_: object) -> None:
    """Do nothing."""


def record(c: Callout) -> dict[str, object]:
    """Return what the record says."""
    return {name: getattr(c, name) for name in FIELDS if name != "lock"} | {"lock": repr(c.lock)}


@pytest.mark.trio
@pytest.mark.parametrize("kind", [Callout, Sub])
@pytest.mark.parametrize("checking", [False, True])
@pytest.mark.parametrize("deviation", [0, 5])
@pytest.mark.parametrize("way", WAYS)
async def test_the_short_way_leaves_what_the_long_way_leaves(
    way: str, kind: type[Callout], deviation: int, *, checking: bool
) -> None:
    """In every kind of system, for every kind of lock."""
    async with open_callouts(checking=checking, alloweddeviation=deviation) as system:
        short, long = kind(), kind()
        machine = system._machine
        assert machine.fresh is not None
        WAYS[way](short)
        machine.fresh = None
        WAYS[way](long)

        assert record(short) == record(long)
        assert callout_pending(short) == 0


@pytest.mark.trio
@pytest.mark.parametrize("way", WAYS)
async def test_a_callout_that_is_pending_takes_no_short_way(way: str) -> None:
    """It is refused, and stays as it is."""
    async with open_callouts(checking=False):
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 60_000, ignore, None)
        before = record(c)
        with pytest.raises(BusyError):
            WAYS[way](c)

        assert record(c) == before
        assert callout_stop(c) == 1


@pytest.mark.trio
async def test_what_was_never_made_takes_no_short_way() -> None:
    """A subclass whose __init__() did not call that of Callout is told so."""
    async with open_callouts():
        with pytest.raises(NotInitializedError, match="was never made"):
            callout_init(Callout.__new__(Callout), 1)


@pytest.mark.trio
async def test_there_is_no_short_way_into_a_closed_system() -> None:
    """It is refused in its name."""
    async with open_callouts() as system:
        pass
    with pytest.raises(ClosedError), system.bound():
        callout_init(Callout(), 1)
