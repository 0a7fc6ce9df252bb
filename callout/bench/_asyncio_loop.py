"""A workload in a task of asyncio's loop, or of one that stands in for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ._peer import Peer, Steps


class AsyncioLoop(Peer):
    """What the peers on asyncio have in common."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop) -> None:
        super().__init__()
        self._new_loop = new_loop

    def run(self, body: Callable[[], Steps]) -> None:
        """Run a new loop, and the workload in a task of it."""
        self._loop = self._new_loop()
        try:
            self._loop.run_until_complete(self._run(body))
        finally:
            self._loop.close()

    async def _run(self, body: Callable[[], Steps]) -> None:
        self._bell = asyncio.Event()
        await self.main(body)

    async def main(self, body: Callable[[], Steps]) -> None:
        """Open what the timers need, if anything, and ``drive()`` in it."""
        await self.drive(body)

    async def drive(self, body: Callable[[], Steps]) -> None:
        """Run the workload."""
        for wait in body():
            if wait is None:
                await self._bell.wait()
                self._bell.clear()
            else:
                await asyncio.sleep(wait)

    def wake(self) -> None:
        """Set the event, on the loop."""
        self._loop.call_soon_threadsafe(self._bell.set)
