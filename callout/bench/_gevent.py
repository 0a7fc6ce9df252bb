"""gevent: the timers of its loop, which are libev's or libuv's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from ._peer import Func, Peer, Steps


class Gevent(Peer):
    """The hub's loop, and a workload in the main greenlet.

    A timer that repeats can be told to begin again: that is what libev has for idle timeouts.
    """

    def run(self, body: Callable[[], Steps]) -> None:
        """Run the workload here; what it waits for has the hub run."""
        self._loop = gevent.get_hub().loop
        self._woken = Event()
        self._bell = self._loop.async_()
        self._bell.start(self._woken.set)
        for wait in body():
            if wait is None:
                self._woken.wait()
                self._woken.clear()
            else:
                gevent.sleep(wait)
        self._bell.stop()

    def wake(self) -> None:
        """Ring the hub."""
        self._bell.send()

    def arm(self, delays: list[float], func: Func, timers: list[Any]) -> None:
        """Make and start."""
        loop = self._loop
        for delay in delays:
            timer = loop.timer(delay)
            timer.start(func, None)
            timers.append(timer)

    def idle(self, delays: list[float], func: Func, timers: list[Any]) -> None:
        """Make and start timers that can begin again."""
        loop = self._loop
        for delay in delays:
            timer = loop.timer(delay, delay)
            timer.start(func, None)
            timers.append(timer)

    def rearm(self, delays: list[float], func: Func, timers: list[Any]) -> None:
        """Have them begin again: with the delay that each has, for it is an idle timeout."""
        for timer in timers:
            timer.again(func, None)

    def churn(self, delays: list[float], func: Func) -> None:
        """Make, start and stop."""
        loop = self._loop
        for delay in delays:
            timer = loop.timer(delay)
            timer.start(func, None)
            timer.stop()

    def cancel(self, timers: list[Any]) -> None:
        """Stop."""
        for timer in timers:
            timer.stop()

    def arm_elsewhere(self, delays: list[float], func: Func) -> None:
        """Have the hub make and start."""
        loop = self._loop
        self.kept: list[Any] = []

        def arm(delay: float) -> None:
            timer = loop.timer(delay)
            timer.start(func, None)
            self.kept.append(timer)

        for delay in delays:
            loop.run_callback_threadsafe(arm, delay)
