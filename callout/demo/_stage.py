"""The race of ``stop-and-free``, staged: softclock is held up, once, between dequeue and lock.

The window is a few instructions wide, so by itself the race shows rarely. Here softclock waits at a stall point in
that window until the connection whose timer it has in hand was closed by the server and its control block freed; then
it goes on and does what it always does. Nothing else is changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from callout import Callout, CalloutSystem, curcpu
from callout.testing import Slab

from ._pcb import Pcb

STALL_POINT: Final = "softclock, between dequeue and lock"


class Stage:
    """Holds one softclock up, once."""

    def __init__(self, slab: Slab[Pcb]) -> None:
        self.story: str | None = None  # what was staged, once it was
        self._slab = slab
        self._lock = threading.Lock()  # guards the rest; a control block that is looked at under it is not freed
        self._waiting = False  # for a timer that can be taken
        self._victim: Pcb | None = None
        self._go_on: Callable[[], None] | None = None
        self._freed = False

    def set_up(self, system: CalloutSystem) -> None:
        """Take the next timer that runs."""
        self._waiting = True
        system._machine.stall = self._hold  # the engine's named place for this; nothing of it is public

    def close(self) -> None:
        """Delay nothing any more, and release what is delayed. From any thread."""
        with self._lock:
            self._waiting = False
            self._let_go()

    def free(self, pcb: Pcb) -> None:
        """Free a control block; if softclock is held up for it, let softclock go on. From any thread."""
        with self._lock:
            self._slab.free(pcb)
            if pcb is self._victim:
                self._freed = True
                self._let_go()

    def _let_go(self) -> None:
        if self._go_on is not None:
            self._go_on()
            self._go_on = None

    async def _hold(self, c: Callout) -> None:
        """Be the stall point: softclock awaits this between dequeue and lock, on the loop of its CPU."""
        pcb = c.arg
        with self._lock:
            if not self._waiting or not isinstance(pcb, Pcb) or self._slab.is_freed(pcb):
                return
            self._waiting = False
            self._victim = pcb
            go_on = trio.Event()
            self._go_on = partial(trio.lowlevel.current_trio_token().run_sync_soon, go_on.set)
            leave, what = pcb.leave, f"{getattr(c.func, '__name__', c.func)} of connection {pcb.number}"
        begun = time.monotonic_ns()
        leave()
        await go_on.wait()
        self._victim = None
        if self._freed:
            self.story = (
                f'softclock of cpu {curcpu()} was held at the stall point "{STALL_POINT}" with {what} in hand, until '
                "the server had closed that connection, stopped its callouts and freed its control block "
                f"({(time.monotonic_ns() - begun) / 1e6:.1f} ms)"
            )
