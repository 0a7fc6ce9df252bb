"""trio itself. It has no timers: what an application does is to start a task that sleeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ._peer import Func, Steps, nothing


async def _sleep(scope: trio.CancelScope, func: Func) -> None:
    with scope:
        await trio.sleep_forever()
    if not scope.cancel_called or trio.current_time() >= scope.deadline:
        func(None)


class Trio:
    """Tasks with a cancel scope each: the deadline of the scope is the timer."""

    def run(self, body: Callable[[], Steps]) -> None:
        """Run trio, and the workload."""
        trio.run(self._main, body)

    async def _main(self, body: Callable[[], Steps]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()
        async with trio.open_nursery() as self._nursery:
            for wait in body():
                if wait is None:
                    await self._woken.wait()
                    self._woken = trio.Event()
                else:
                    await trio.sleep(wait)
            self._nursery.cancel_scope.cancel()

    def wake(self) -> None:
        """Set the event, on the loop."""
        self._token.run_sync_soon(lambda: self._woken.set())

    def delays(self, seconds: Sequence[float]) -> list[float]:
        """Return seconds."""
        return list(seconds)

    def arm(self, delays: list[float], func: Func, timers: list[trio.CancelScope]) -> None:
        """Start a task for each."""
        now = trio.current_time()
        for delay in delays:
            scope = trio.CancelScope(deadline=now + delay)
            self._nursery.start_soon(_sleep, scope, func)
            timers.append(scope)

    idle = arm

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

    def hold(self) -> Callable[[], None]:
        """There is one loop."""
        return nothing

    def arm_elsewhere(self, delays: list[float], func: Func) -> None:
        """Have the loop start the tasks."""
        for delay in delays:
            self._token.run_sync_soon(self.arm, [delay], func, [])
