"""asyncio's own loop, and two that stand in for it: uvloop and rloop."""

from __future__ import annotations

import asyncio

from ._asyncio_loop import AsyncioLoop
from ._peer import Func


class Asyncio(AsyncioLoop):
    """Any loop with asyncio's interface."""

    def arm(self, delays: list[float], func: Func, timers: list[asyncio.TimerHandle]) -> None:
        """Call later."""
        loop = self._loop
        for delay in delays:
            timers.append(loop.call_later(delay, func, None))  # noqa: PERF401 - as the other peers

    def rearm(self, delays: list[float], func: Func, timers: list[asyncio.TimerHandle]) -> None:
        """Cancel, and call later: there is nothing else."""
        loop = self._loop
        for i, delay in enumerate(delays):
            timers[i].cancel()
            timers[i] = loop.call_later(delay, func, None)

    def churn(self, delays: list[float], func: Func) -> None:
        """Call later, and cancel."""
        loop = self._loop
        for delay in delays:
            loop.call_later(delay, func, None).cancel()

    def cancel(self, timers: list[asyncio.TimerHandle]) -> None:
        """Cancel."""
        for timer in timers:
            timer.cancel()

    def arm_elsewhere(self, delays: list[float], func: Func) -> None:
        """Have the loop call later: its timers are no business of other threads."""
        loop = self._loop
        for delay in delays:
            loop.call_soon_threadsafe(loop.call_later, delay, func, None)


def asyncio_loop() -> Asyncio:
    """Return asyncio itself."""
    return Asyncio()


def uvloop_loop() -> Asyncio:
    """Return uvloop."""
    import uvloop

    return Asyncio(uvloop.new_event_loop)


def rloop_loop() -> Asyncio:
    """Return rloop."""
    import rloop

    return Asyncio(rloop.new_event_loop)
