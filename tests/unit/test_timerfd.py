"""The lead of a timerfd: it is set a little before the time, and nothing that it wakes is early."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import trio

from callout._core.units import NEVER
from callout._worlds.trio import event_timer
from callout._worlds.trio.event_timer import HAS_TIMERFD, TimerFd

pytestmark = pytest.mark.skipif(not HAS_TIMERFD, reason="there is no timerfd here")

MOST = event_timer._LONGEST_LEAD
STEP = event_timer._LEAD_STEP


@pytest.fixture
def timer() -> Iterator[TimerFd]:
    """Make one."""
    timer = TimerFd()
    yield timer
    timer.close()


def clock(monkeypatch: pytest.MonkeyPatch, *times: int) -> list[int]:
    """Have the time be these, one after the other; return what is left of them."""
    left = list(times)
    monkeypatch.setattr(event_timer, "monotonic_ns", lambda: left.pop(0))
    return left


def test_a_turn_that_comes_late_asks_for_more_lead(timer: TimerFd, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two steps, up to the longest; and waits for nothing."""
    clock(monkeypatch, 1000, 1000, 1001)

    assert timer._await_time(1000, 0) == 2 * STEP
    assert timer._await_time(1000, MOST - 1) == MOST
    assert timer._await_time(1000, MOST) == MOST


def test_a_turn_that_comes_early_waits_and_asks_for_less(timer: TimerFd, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rest of the time, to the nanosecond; by one step, so that it is early in two of three cases."""
    left = clock(monkeypatch, 900, 950, 999, 1000, 1001)

    assert timer._await_time(1000, 10 * STEP) == 9 * STEP
    assert left == [1001]

    clock(monkeypatch, 999, 1000)

    assert timer._await_time(1000, STEP) == 0


def test_a_turn_for_an_earlier_time_waits_for_no_later_one(timer: TimerFd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer was set anew since it expired: then this turn is for nothing, and a lead tells nothing of it."""
    clock(monkeypatch, 1000)

    assert timer._await_time(1001 + 5 * STEP, 5 * STEP) == 5 * STEP

    clock(monkeypatch, 1000)

    assert timer._await_time(NEVER, MOST) == MOST


def test_it_is_set_earlier_by_the_lead(timer: TimerFd, monkeypatch: pytest.MonkeyPatch) -> None:
    """But to nothing it is set as it is, and never to a time that would disarm it."""
    asked: list[int] = []
    monkeypatch.setattr(event_timer, "_timerfd_set", lambda fd, when: asked.append(when))
    timer._lead = 300
    timer._is_awaited = True
    for when in (1000, NEVER, 300, 5):
        timer.set(when)

    assert asked == [700, 0, 1, 1]


@pytest.mark.parametrize("lead", [0, MOST])
def test_it_never_fires_early(lead: int) -> None:
    """Whatever lead it has learned."""
    early: list[int] = []

    async def main() -> None:
        timer = TimerFd()
        timer._lead = lead
        for _ in range(20):
            when = time.monotonic_ns() + 300_000
            timer.set(when)
            await timer.expired()
            early.append(when - time.monotonic_ns())
        timer.close()

    trio.run(main)

    assert len(early) == 20
    assert max(early) <= 0
