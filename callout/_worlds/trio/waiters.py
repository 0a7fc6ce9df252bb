"""One-shot events: for a task, and for a thread."""

from __future__ import annotations

import threading
from contextlib import suppress

import trio

__all__ = ["ThreadWaiter", "TrioWaiter"]


class TrioWaiter:
    """A one-shot event for a task."""

    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    async def wait(self) -> None:
        """Wait until it is set. A checkpoint."""
        await self._event.wait()

    def set(self) -> None:
        """Set it, from anywhere. Never blocks."""
        with suppress(trio.RunFinishedError):  # the loop is gone, and the task with it
            self._token.run_sync_soon(self._event.set)

    def set_here(self) -> None:
        """Set it, from a task of the same loop."""
        self._event.set()


class ThreadWaiter:
    """A one-shot event for a thread.

    A bare lock: unlike ``threading.Event`` it can be set by what interrupted a ``set()``.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    async def wait(self) -> None:
        """Block the thread until it is set. Never yields."""
        self._lock.acquire()

    def set(self) -> None:
        """Set it. Never blocks."""
        self._lock.release()

    set_here = set
