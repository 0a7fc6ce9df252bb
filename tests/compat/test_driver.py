"""A self-re-arming polling driver with teardown, ported from C as docs/linux.md says, on both platforms."""

from __future__ import annotations

import pytest

from callout import open_callouts
from callout_linux.timer import (
    jiffies,
    mod_timer,
    msecs_to_jiffies,
    timer_list,
    timer_pending,
    timer_setup,
    timer_shutdown_sync,
    timer_shutdown_sync_blocking,
)
from tests.conformance.world import Stage


class Device:
    """A device that is polled every 20 ms."""

    def __init__(self, s: Stage | None = None, gate_at: int = 0) -> None:
        """*gate_at*: the poll, counted from 1, that stands at gate ``g`` when it has armed the timer."""
        self.s = s
        self.gate_at = gate_at
        self.polls: list[int] = []
        self.removed = False
        self.timer = timer_list()
        timer_setup(self.timer, self.poll, 0)

    def start(self) -> None:
        """Start polling."""
        mod_timer(self.timer, jiffies + msecs_to_jiffies(20))

    def poll(self, timer: timer_list) -> None:
        """Be the timer's function."""
        assert not self.removed
        self.polls.append(jiffies())
        mod_timer(timer, timer.expires + msecs_to_jiffies(20))
        if self.s is not None and len(self.polls) == self.gate_at:
            self.s.world.wait_at_gate("g", lambda: None)
        assert not self.removed

    def remove(self) -> None:
        """Stop polling, for good, from a thread."""
        timer_shutdown_sync_blocking(self.timer)
        self.removed = True


def test_it_polls_with_a_period_and_without_drift(s: Stage) -> None:
    """The device is polled every 20 jiffies from the first time on."""
    device = s.do(Device)
    s.do(device.start)
    s.tick(100)

    assert device.polls == [21, 41, 61, 81]

    s.do(device.remove)


def test_teardown_waits_for_a_poll_in_progress_and_lasts(s: Stage) -> None:
    """Removing the device waits for a poll in progress; what that has armed is gone, and starting does nothing."""
    device = s.do(Device, s, gate_at=2)
    s.do(device.start)
    s.tick(41)
    call = s.t1.begin(device.remove)

    assert call.blocked
    assert not device.removed

    s.open("g")
    call.result()
    s.do(device.start)
    s.tick(50)

    assert len(device.polls) == 2
    assert s.do(timer_pending, device.timer) == 0


@pytest.mark.trio
async def test_teardown_on_the_real_clock() -> None:
    """On real CPUs under the real clock, a device that is removed while it is polled every jiffy is polled no more."""

    class Busy(Device):
        def poll(self, timer: timer_list) -> None:
            assert not self.removed
            self.polls.append(jiffies())
            mod_timer(timer, jiffies)

    async with open_callouts(cpus=2, hz=10_000):
        for _ in range(50):
            device = Busy()
            mod_timer(device.timer, jiffies)
            await timer_shutdown_sync(device.timer)
            device.removed = True
            mod_timer(device.timer, jiffies)

            assert timer_pending(device.timer) == 0
