"""Our own peers: callouts without a lock, in either spelling, with a mutex each, on two CPUs, and in asyncio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, ClassVar

from .. import (
    Callout,
    CalloutSystem,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_stop,
    guest,
    open_callouts,
)
from ._asyncio_loop import AsyncioLoop
from ._peer import Func, Steps
from ._trio_loop import TrioLoop


class OnTrio(TrioLoop):
    """A callout system, and a workload in a task of its loop."""

    cpus: ClassVar = 1
    system: CalloutSystem

    async def main(self, body: Callable[[], Steps]) -> None:
        """Open a system."""
        async with open_callouts(cpus=self.cpus, checking=False) as self.system:
            await self.drive(body)

    def delays(self, seconds: Sequence[float]) -> list[Any]:
        """Return clock ticks, of a millisecond each, as the C names take them."""
        return [round(each * 1000) for each in seconds]

    def arm_elsewhere(self, delays: list[Any], func: Func) -> None:
        """Arm, in a thread to which the system was bound."""
        self._kept: list[Any] = []
        with self.system.bound():
            self.arm(delays, func, self._kept)


class Plain(OnTrio):
    """Callouts without a lock."""

    def arm(self, delays: list[int], func: Func, timers: list[Callout]) -> None:
        """Initialise and reset."""
        for ticks in delays:
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, ticks, func, None)
            timers.append(c)

    def rearm(self, delays: list[int], func: Func, timers: list[Callout]) -> None:
        """Reset."""
        for c, ticks in zip(timers, delays, strict=True):
            callout_reset(c, ticks, func, None)

    def churn(self, delays: list[int], func: Func) -> None:
        """Initialise, reset and stop."""
        for ticks in delays:
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, ticks, func, None)
            callout_stop(c)

    def cancel(self, timers: list[Callout]) -> None:
        """Stop."""
        for c in timers:
            callout_stop(c)


class Methods(OnTrio):
    """The same, as Python spells it: methods, and seconds."""

    def delays(self, seconds: Sequence[float]) -> list[float]:
        """Return seconds."""
        return list(seconds)

    def arm(self, delays: list[float], func: Func, timers: list[Callout]) -> None:
        """Call later."""
        system = self.system
        for delay in delays:
            timers.append(system.call_later(delay, func, None))  # noqa: PERF401 - as the other peers

    def rearm(self, delays: list[float], func: Func, timers: list[Callout]) -> None:
        """Reset."""
        for c, delay in zip(timers, delays, strict=True):
            c.reset(delay)

    def churn(self, delays: list[float], func: Func) -> None:
        """Call later, and stop."""
        system = self.system
        for delay in delays:
            system.call_later(delay, func, None).stop()

    def cancel(self, timers: list[Callout]) -> None:
        """Stop."""
        for c in timers:
            c.stop()


class InGuest(AsyncioLoop, Plain):
    """Callouts without a lock in asyncio's loop, where the workload is a task."""

    async def main(self, body: Callable[[], Steps]) -> None:
        """Open a system."""
        async with guest.open_callouts(checking=False) as self.system:
            await self.drive(body)


class Guarded(Callout):
    """A callout, and the mutex of what it belongs to."""

    __slots__ = ("mtx",)

    mtx: Mtx


class WithMutex(OnTrio):
    """Callouts with a mutex each, which must be held for stopping.

    The mutexes are those of what the timers belong to, and so are there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mutexes: list[Mtx] = []

    def delays(self, seconds: Sequence[float]) -> list[Any]:
        """Return clock ticks, and have a mutex ready for each."""
        while len(self._mutexes) < len(seconds):
            self._mutexes.append(Mtx())
        return super().delays(seconds)

    def arm(self, delays: list[int], func: Func, timers: list[Guarded]) -> None:
        """Initialise and reset."""
        for ticks, mtx in zip(delays, self._mutexes):  # noqa: B905 - there may be more
            c = Guarded()
            c.mtx = mtx
            callout_init_mtx(c, mtx)
            callout_reset(c, ticks, func, None)
            timers.append(c)

    def rearm(self, delays: list[int], func: Func, timers: list[Guarded]) -> None:
        """Reset."""
        for c, ticks in zip(timers, delays, strict=True):
            callout_reset(c, ticks, func, None)

    def churn(self, delays: list[int], func: Func) -> None:
        """Initialise, reset and stop."""
        for ticks, mtx in zip(delays, self._mutexes):  # noqa: B905 - as above
            c = Guarded()
            c.mtx = mtx
            callout_init_mtx(c, mtx)
            callout_reset(c, ticks, func, None)
            with mtx:
                callout_stop(c)

    def cancel(self, timers: list[Guarded]) -> None:
        """Stop."""
        for c in timers:
            with c.mtx:
                callout_stop(c)


class TwoCpus(Plain):
    """Callouts without a lock, on two CPUs in turn."""

    cpus = 2

    def __init__(self) -> None:
        super().__init__()
        self._turns = cycle((0, 1))

    def hold(self) -> Callable[[], None]:
        """Have the loop of the other CPU wait."""
        go_on = threading.Event()
        self.system.cpu(1).call(go_on.wait)
        return go_on.set

    def arm(self, delays: list[int], func: Func, timers: list[Callout]) -> None:
        """Initialise, and reset onto one CPU or the other."""
        for ticks, cpu in zip(delays, self._turns):  # noqa: B905 - the turns never end
            c = Callout()
            callout_init(c, 1)
            callout_reset_on(c, ticks, func, None, cpu)
            timers.append(c)
