"""A timer that is an event source: it counts its expiries until they are read, and arms itself again.

The callback re-arms its own callout, so ``callout_stop()`` alone never ends it: the stop may come while the callback
runs, which then arms the timer again. ``callout_drain()`` removes what is armed, waits for the callback, and refuses
every arming meanwhile, that by the callback included.

To modify a timer is to end the old one and start a new one. The old one is drained first: a callback that is under way
would else count an expiry of the old timer for the new one.

The callout has no lock. The callback acquires that of the queue, and a drain must not be made with that held.

Source: sys/kern/kern_event.c, filt_timerattach(), filt_timerexpire(), filt_timertouch(), filt_timerdetach().
"""

from __future__ import annotations

from .. import Callout, Mtx, callout_drain_sync, callout_init, callout_reset, callout_schedule
from ..testing import Slab

__all__ = ["Kqueue", "TimerFilter"]


class Kqueue:
    """What collects the events of many sources."""

    def __init__(self) -> None:
        self.lock = Mtx("kqueue")
        self.active: list[TimerFilter] = []


class TimerFilter:
    """One timer of a queue. Periodic, unless it is *oneshot*."""

    def __init__(self, queue: Kqueue, slab: Slab[TimerFilter]) -> None:
        self.queue = queue
        self.slab = slab
        self.timer = Callout()
        callout_init(self.timer, 1)
        self.period = 0
        self.oneshot = False
        self.expiries = 0  # since they were read last

    def attach(self, period: int, *, oneshot: bool = False) -> None:
        """Start the timer. It is not started."""
        with self.queue.lock:
            self.period, self.oneshot = period, oneshot
            callout_reset(self.timer, period, TimerFilter.expire, self)

    def expire(self) -> None:
        """Be the callback: count, tell the queue, and arm again."""
        with self.queue.lock:
            self.expiries += 1
            if self not in self.queue.active:
                self.queue.active.append(self)
            if not self.oneshot:
                callout_schedule(self.timer, self.period)

    def touch(self, period: int, *, oneshot: bool = False) -> None:
        """Modify the timer, which may be running. Expiries that were not read are forgotten. Blocks."""
        callout_drain_sync(self.timer)
        self.forget()
        self.attach(period, oneshot=oneshot)

    def read(self) -> int:
        """Return how many times it has expired since the last call."""
        with self.queue.lock:
            return self.forget_locked()

    def detach(self) -> None:
        """End the timer and free it. Blocks."""
        callout_drain_sync(self.timer)
        self.forget()
        self.slab.free(self)

    def forget(self) -> None:
        """Forget what was not read."""
        with self.queue.lock:
            self.forget_locked()

    def forget_locked(self) -> int:
        """Forget what was not read, and return how much that was. The queue's lock is held."""
        expiries, self.expiries = self.expiries, 0
        if expiries:
            self.queue.active.remove(self)
        return expiries
