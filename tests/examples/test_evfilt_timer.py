"""A periodic timer is modified, and detached, while it fires."""

from __future__ import annotations

import pytest

from callout import callout_stop
from callout.examples.evfilt_timer import Kqueue, TimerFilter
from callout.testing import Slab, VirtualSMP
from tests.examples.explored import clean, wrong


def attached(vm: VirtualSMP, slab: Slab[TimerFilter]) -> TimerFilter:
    """Return a periodic timer that is running."""
    with vm.setup():
        knote = slab.alloc(TimerFilter, Kqueue(), slab)
        knote.attach(1)
    return knote


def detached(vm: VirtualSMP) -> None:
    """Detach a periodic timer."""
    slab: Slab[TimerFilter] = Slab("knote")
    attached(vm, slab).detach()
    vm.settle()

    assert not slab.leaks()


def modified(vm: VirtualSMP) -> None:
    """Make a one-shot timer of a periodic one: it expires exactly once after that."""
    knote = attached(vm, Slab("knote"))
    knote.touch(1, oneshot=True)
    vm.settle()

    expiries = knote.read()
    assert expiries == 1, f"a one-shot timer has expired {expiries} times"
    knote.detach()


def test_it_can_be_detached_at_any_moment() -> None:
    """In every schedule the callback neither runs nor is armed after the drain."""
    clean(detached)


def test_it_can_be_modified_at_any_moment() -> None:
    """In every schedule no expiry of the old timer is counted for the new one."""
    clean(modified)


def test_a_stop_does_not_end_a_callback_that_arms_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a drain the callback, or softclock, uses what was freed."""

    def detach(knote: TimerFilter) -> None:
        callout_stop(knote.timer)
        knote.forget()
        knote.slab.free(knote)

    monkeypatch.setattr(TimerFilter, "detach", detach)

    wrong(detached, 2, "was used after it was freed")


def test_an_expiry_of_the_old_timer_is_counted_without_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that was under way counts after the modification."""

    def touch(knote: TimerFilter, period: int, *, oneshot: bool = False) -> None:
        knote.forget()
        knote.attach(period, oneshot=oneshot)

    monkeypatch.setattr(TimerFilter, "touch", touch)

    wrong(modified, 1, "a one-shot timer has expired 2 times")
