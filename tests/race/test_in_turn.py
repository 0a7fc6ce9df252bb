"""Two callouts that softclock runs in turn: the end of the one is the beginning of the other, and they share a record.

Every schedule: each run has the function and the argument of its own callout. With the lying-result oracle, in the pure
core, each call of a thread returns what one of the legal orders allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Final

import pytest

from callout import (
    CALLOUT_TRYLOCK,
    Callout,
    Mtx,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_stop,
    core,
)
from callout.explore import explore
from callout.testing import VirtualSMP
from tests.race.history import undisturbed

Op = Callable[[Callout], object]
Make = Callable[[Callout], None]

OPS: Final[dict[str, Op]] = {
    "stop": callout_stop,
    "drain": callout_drain_sync,
    "drain_async": lambda c: callout_drain_async(c, ignore, None),
    "reset": lambda c: callout_reset(c, 1, ignore, "again"),
    "reset elsewhere": lambda c: callout_reset_on(c, 1, ignore, "elsewhere", 1),
}


def ignore(arg: object) -> None:
    """Do nothing."""


def plain(c: Callout) -> None:
    """Without a lock."""
    callout_init(c, 1)


def locked(c: Callout) -> None:
    """With a lock of its own."""
    callout_init_mtx(c, Mtx())


def tried(c: Callout) -> None:
    """With a lock of its own, which is tried."""
    callout_init_mtx(c, Mtx(), CALLOUT_TRYLOCK)


def run(ran: list[str], c: Callout, name: str) -> None:
    """Be the callback of *c*, which has its lock."""
    assert c.lock is None or c.lock.owned()
    ran.append(name)


KINDS: Final[dict[str, tuple[Make, Make, Make]]] = {
    "three without a lock": (plain, plain, plain),
    "a lock before": (locked, plain, plain),
    "a lock between": (plain, locked, plain),
    "a trylock before": (tried, plain, plain),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("target", "op"), [(1, ""), *product((0, 1), OPS)])
def test_callouts_that_run_in_turn(kind: str, target: int, op: str) -> None:
    """Three are due at once; a thread does something to the first or the second meanwhile, or nothing."""
    most: set[int] = set()

    def scenario(vm: VirtualSMP) -> str:
        ran: list[str] = []
        callouts = [Callout() for _ in range(3)]
        with undisturbed(vm):
            for c, make, name in zip(callouts, KINDS[kind], "abc", strict=True):
                make(c)
                callout_reset(c, 1, partial(run, ran, c), name)
            if op:
                lock = callouts[target].lock
                done = []

                def act() -> None:
                    if lock is not None and op in ("stop", "drain_async"):
                        with lock:  # type: ignore[attr-defined]  # a mutex
                            done.append(OPS[op](callouts[target]))
                    else:
                        done.append(OPS[op](callouts[target]))

                vm.spawn(act)
        vm.settle()
        assert ran == sorted(ran)
        assert len(ran) == len(set(ran))
        assert {"a", "b", "c"} - set(ran) <= {"abc"[target]}
        for c in callouts:
            assert c.run is None
        most.add(len(ran))
        return "".join(ran)

    explore(scenario, cpus=2, bound=2, results=core == "pure")  # the oracle looks at frames

    assert 3 in most
