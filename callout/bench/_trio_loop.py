"""A workload in a task of a trio loop."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ._peer import Peer, Steps


class TrioLoop(Peer):
    """What the peers on trio have in common."""

    def __init__(self) -> None:
        self._woken = trio.Event()

    def run(self, body: Callable[[], Steps]) -> None:
        """Run trio."""
        trio.run(self._run, body)

    async def _run(self, body: Callable[[], Steps]) -> None:
        self.token = trio.lowlevel.current_trio_token()
        await self.main(body)

    async def main(self, body: Callable[[], Steps]) -> None:
        """Open what the timers need, and ``drive()`` in it."""
        raise NotImplementedError

    async def drive(self, body: Callable[[], Steps]) -> None:
        """Run the workload."""
        for wait in body():
            if wait is None:
                await self._woken.wait()
                self._woken = trio.Event()
            else:
                await trio.sleep(wait)

    def wake(self) -> None:
        """Set the event, on the loop."""
        self.token.run_sync_soon(lambda: self._woken.set())
