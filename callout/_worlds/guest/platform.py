"""The platform of a guest: CPU 0 is a loop of asyncio, and who waits there is a task of asyncio.

Callbacks of CPU 0 run in steps of the guest, which are callbacks of the loop. A task of asyncio may even be begun
inside one, by an eager task factory: so whether this is a task of asyncio is asked before trio is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from ..._core.errors import GuestError, LoopError
from ..._core.platform import Entry, Waiter
from ..trio.platform import Loop, TrioPlatform, in_task
from ..trio.waiters import TrioWaiter
from .waits import HostWaiter, Shield

try:
    from sniffio import thread_local as sniffed
except ImportError:  # no trio that we run on is without it, and nothing here needs it
    sniffed = None  # type: ignore[assignment]  # as it says

_NO_TASK: Final = (
    "this is no task, neither of asyncio nor of trio; in a thread without a loop use the twin that blocks, with _sync "
    "at the end of its name, or have a function called instead: callout_drain_async()"
)
_OTHER_LOOP: Final = (
    "this is another loop of asyncio than the one that the system is open in; wait in a task of that one, started with "
    "system.cpu(0).start_soon(), or have a function called instead: callout_drain_async()"
)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop of asyncio that this thread runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def sniff_asyncio() -> None:
    """Until the guest's step is over, have sniffio, and so anyio, say that what runs is asyncio."""
    if sniffed is not None:
        sniffed.name = "asyncio"


class HostLoop(Loop):
    """The loop of CPU 0."""

    def clock_interrupt(self, now: int) -> bool:
        """Take the clock interrupt; return whether there is more to do."""
        sniff_asyncio()
        return super().clock_interrupt(now)

    def run_calls(self, func: Callable[[], None]) -> None:
        """Run *func*, which runs cross-CPU calls, with the system current."""
        sniff_asyncio()
        super().run_calls(func)


class HostedWaiter(TrioWaiter):
    """What softclock waits for: after the wait it runs callbacks."""

    __slots__ = ()

    async def wait(self) -> None:
        """Wait until it is set. A checkpoint."""
        await super().wait()
        sniff_asyncio()


class GuestPlatform(TrioPlatform):
    """Real loops and real threads, the first of them a loop of asyncio."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        """Make the platform for the guest run that this is called in."""
        super().__init__()
        self.host = host
        self.hosted = True
        self.cancelled = (*self.cancelled, asyncio.CancelledError)

    def epoch(self) -> int:
        """Return 0: the time of the loop is that of ``time.monotonic()``, as ``now()`` is."""
        return 0

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*."""
        if cpu:
            super().attach(cpu, entry)
        else:
            self.loops.append(HostLoop(entry, lambda error: self.fail(error)))

    def _in_host_task(self) -> bool:
        """Whether this is a task of the host."""
        return running_loop() is self.host and asyncio.current_task(self.host) is not None

    def refuse_await(self, call: str) -> None:
        """Raise GuestError in another loop of asyncio."""
        host = running_loop()
        if host is not None and host is not self.host and not in_task():
            raise GuestError(f"{call}: {_OTHER_LOOP}", call=call)

    def waiter(self) -> Waiter:
        """Return a waiter for the current task. Raises GuestError, LoopError elsewhere: nothing was changed yet."""
        host = running_loop()
        if host is self.host and asyncio.current_task(host) is not None:
            return HostWaiter(host)
        if in_task():
            return HostedWaiter() if host is self.host else TrioWaiter()
        if host is None:
            raise LoopError(_NO_TASK)
        raise GuestError(_OTHER_LOOP if host is not self.host else _NO_TASK)

    async def checkpoint(self) -> None:
        """Let the other tasks have a turn."""
        if self._in_host_task():
            await asyncio.sleep(0)
        else:
            await super().checkpoint()
            if running_loop() is self.host:
                sniff_asyncio()

    def shield(self) -> AbstractContextManager[object]:
        """Return a block whose waits cannot be cancelled."""
        return Shield() if self._in_host_task() else super().shield()
