"""The Linux shim, on the same engine."""

from __future__ import annotations

from callout_linux.timer import add_timer, jiffies, mod_timer, timer_delete, timer_list, timer_setup

from ._callouts import OnTrio
from ._peer import Func


class Linux(OnTrio):
    """Timers of Linux: ``expires`` is a tick, so each call reads ``jiffies()``, as a driver does."""

    def arm(self, delays: list[int], func: Func, timers: list[timer_list]) -> None:
        """Set up and add."""
        for ticks in delays:
            t = timer_list()
            timer_setup(t, func, 0)
            t.expires = jiffies() + ticks
            add_timer(t)
            timers.append(t)

    def rearm(self, delays: list[int], func: Func, timers: list[timer_list]) -> None:
        """Modify."""
        for t, ticks in zip(timers, delays, strict=True):
            mod_timer(t, jiffies() + ticks)

    def churn(self, delays: list[int], func: Func) -> None:
        """Set up, add and delete."""
        for ticks in delays:
            t = timer_list()
            timer_setup(t, func, 0)
            t.expires = jiffies() + ticks
            add_timer(t)
            timer_delete(t)

    def cancel(self, timers: list[timer_list]) -> None:
        """Delete."""
        for t in timers:
            timer_delete(t)
