"""trio itself. It has no timers: what an application does is to start a task that sleeps."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ._peer import Func, Steps
from ._trio_loop import TrioLoop


async def _sleep(scope: trio.CancelScope, func: Func) -> None:
    with scope:
        await trio.sleep_forever()
    if not scope.cancel_called or trio.current_time() >= scope.deadline:
        func(None)


class Trio(TrioLoop):
    """Tasks with a cancel scope each: the deadline of the scope is the timer."""

    async def main(self, body: Callable[[], Steps]) -> None:
        """Open a nursery for the tasks."""
        async with trio.open_nursery() as self._nursery:
            await self.drive(body)
            self._nursery.cancel_scope.cancel()

    def arm(self, delays: list[float], func: Func, timers: list[trio.CancelScope]) -> None:
        """Start a task for each."""
        now = trio.current_time()
        for delay in delays:
            scope = trio.CancelScope(deadline=now + delay)
            self._nursery.start_soon(_sleep, scope, func)
            timers.append(scope)

    def rearm(self, delays: list[float], func: Func, timers: list[trio.CancelScope]) -> None:
        """Move the deadlines."""
        for scope, delay in zip(timers, delays, strict=True):
            scope.deadline = trio.current_time() + delay

    def churn(self, delays: list[float], func: Func) -> None:
        """Start tasks, and cancel them."""
        now = trio.current_time()
        for delay in delays:
            scope = trio.CancelScope(deadline=now + delay)
            self._nursery.start_soon(_sleep, scope, func)
            scope.cancel()

    def cancel(self, timers: list[trio.CancelScope]) -> None:
        """Cancel."""
        for scope in timers:
            scope.cancel()

    def arm_elsewhere(self, delays: list[float], func: Func) -> None:
        """Have the loop start the tasks."""
        for delay in delays:
            self.token.run_sync_soon(self.arm, [delay], func, [])
