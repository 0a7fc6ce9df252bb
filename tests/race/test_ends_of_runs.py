"""The ends of runs that others have to do with: under which locks they are, and what a reset in between changes."""

from __future__ import annotations

from collections.abc import Callable

from callout import (
    Callout,
    Mtx,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
)
from callout.explore import explore
from callout.testing import VirtualSMP


def ignore(_: object) -> None:
    """Do nothing."""


def elsewhere(c: Callout, cpu: int) -> Callable[[object], None]:
    """Return a function that arms the callout on another CPU."""

    def arm(_: object) -> None:
        callout_reset_on(c, 1, ignore, None, cpu)

    return arm


def locked(vm: VirtualSMP) -> None:
    """Have a callout run under its lock, once more on another CPU, and somebody told when the first run is over."""
    c, mtx = Callout(), Mtx("m")
    told: list[int] = []
    callout_init_mtx(c, mtx)
    with mtx:
        callout_reset(c, 1, elsewhere(c, 1), None)

    def ask() -> None:
        with mtx:
            if not callout_drain_async(c, told.append, 1):
                told.append(0)

    vm.spawn(ask)
    vm.settle()

    assert len(told) == 1


def replaced(vm: VirtualSMP) -> None:
    """Have a callback arm its callout on one CPU, and a thread on another one."""
    c, ran = Callout(), list[None]()

    def move(_: None) -> None:
        ran.append(None)
        callout_reset_on(c, 1, ignore, None, 1)

    callout_init(c, 1)
    callout_reset(c, 1, move, None)
    vm.spawn(elsewhere(c, 2), None)
    vm.settle()

    assert not callout_pending(c)
    assert len(ran) <= 1, "the callback of before has run where the new one was to run"


def test_a_run_starts_and_ends_under_the_locks_of_its_cpus() -> None:
    """A run is marked as started, and a deferred migration is carried out, with each lock held that guards it."""
    certificate = explore(locked, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 29


def test_a_reset_onto_a_third_cpu_comes_between_the_end_of_a_run_and_its_locks() -> None:
    """The end of a run looks again where the callout is to go, under the locks of that CPU and its own."""
    certificate = explore(replaced, cpus=3, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 259
