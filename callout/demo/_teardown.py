"""Three ways to free a control block whose callouts may be running right now. One of them is wrong.

A teardown has two halves. ``begin`` runs once, under the control block's mutex: in the connection's handler, or in the
idle timer's callback on some CPU. ``finish`` runs once, later, in the handler, with no lock held.

Source: Hans Petter Selasky's message on the rewrite of kern_timeout.c, December 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

from callout import callout_drain, callout_drain_async, callout_stop

from ._options import DRAIN, DRAIN_ASYNC, STOP_AND_FREE
from ._pcb import Pcb


class Teardown(Protocol):
    """How a control block is freed."""

    def begin(self, pcb: Pcb) -> None:
        """Make sure that no timer begins any more. The mutex is held."""
        ...

    async def finish(self, pcb: Pcb) -> None:
        """Free it when that is safe. No lock is held."""
        ...


class DrainAsync:
    """The pattern: a reference for each callout and one for the handler; the last one to be dropped frees.

    Nobody waits. The last one may be a completion, on the CPU whose softclock was busy with the callout.
    """

    def begin(self, pcb: Pcb) -> None:
        """Ask for every callout to be drained; keep a reference for each that is not yet."""
        figures = pcb.service.here()
        timers = pcb.timers()
        # Before the first drain: its completion may be called at once, on another CPU.
        pcb.refs = len(timers) + 1
        for timer in timers:
            figures.drained += 1
            if callout_drain_async(timer, self._completed, pcb):
                figures.promised += 1
            else:
                pcb.refs -= 1  # nothing outstanding: it will not be called

    async def finish(self, pcb: Pcb) -> None:
        """Drop the handler's reference."""
        self._drop(pcb)

    def _completed(self, pcb: Pcb) -> None:
        pcb.service.here().completed += 1
        self._drop(pcb)

    def _drop(self, pcb: Pcb) -> None:
        with pcb.lock:
            pcb.refs -= 1
            last = pcb.refs == 0
        # The mutex was released: it is part of what is freed.
        if last:
            pcb.service.free(pcb)


class Drain:
    """Wait for each callout, then free. Simple, if there is a task that may wait: it holds no lock, and is no
    callback.
    """

    def begin(self, pcb: Pcb) -> None:
        """Nothing: ``closed_by`` keeps the callbacks from arming anything."""

    async def finish(self, pcb: Pcb) -> None:
        """Drain and free. A cancelled drain must not free, so this cannot be cancelled."""
        with trio.CancelScope(shield=True):
            for timer in pcb.timers():
                pcb.service.here().drained += 1
                await callout_drain(timer)
        pcb.service.free(pcb)


class StopAndFree:
    """The bug: ``callout_stop()`` promises that the callback will not run, not that softclock has released the lock.

    Between removing a callout from its queue and acquiring that callout's lock, softclock holds no lock at all. The
    stop succeeds, the mutex is freed, and softclock takes it.
    """

    def begin(self, pcb: Pcb) -> None:
        """Stop every callout."""
        for timer in pcb.timers():
            if callout_stop(timer) == 1:
                pcb.service.here().stopped += 1

    async def finish(self, pcb: Pcb) -> None:
        """Free it, though softclock may stand at its lock."""
        pcb.service.free(pcb)


TEARDOWNS: Final[dict[str, Callable[[], Teardown]]] = {
    DRAIN_ASYNC: DrainAsync,
    DRAIN: Drain,
    STOP_AND_FREE: StopAndFree,
}
