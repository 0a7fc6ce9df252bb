"""What all parts of a run share."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from callout import Callout, CalloutSystem, ClosedError, UseAfterFree, curcpu
from callout.testing import Slab

from ._figures import Figures, total
from ._options import Options
from ._pcb import Pcb, idle_timeout, keepalive_timeout, retransmit_timeout
from ._stage import Stage
from ._teardown import TEARDOWNS, Teardown

CALLBACKS: Final = frozenset(
    {retransmit_timeout.__name__, keepalive_timeout.__name__, idle_timeout.__name__, "fired"}  # the last: Slab's own
)


class Service:
    """One run of the demo: options, control blocks, counters, and what went wrong."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slab: Slab[Pcb] = Slab("pcb")
        self.teardown: Teardown = TEARDOWNS[options.teardown]()
        self.stage = Stage(self.slab) if options.staged else None
        self.figures = [Figures() for _ in range(options.cpus)]
        self.numbers = itertools.count(1)  # of connections
        self.most = 0  # connections open at once
        self.errors: list[str] = []  # that left callbacks, without uses after free
        self.uses_after_free = 0  # that were raised where softclock or a handler could see them
        self.callbacks_after_free = 0
        self.interrupted = False
        self.untraced: OSError | None = None  # why the trace of it could not be written in the end
        self.began = 0.0  # when all connections were up
        self.ramp = 0.0  # how long that took, in seconds
        self.full = trio.Event()
        self.over = trio.Event()
        self._filling = options.cpus  # CPUs on which not all clients are connected yet
        self._system: CalloutSystem | None = None

    def bind(self, system: CalloutSystem) -> None:
        """Learn the system, before anything runs."""
        self._system = system

    def here(self) -> Figures:
        """Return the counters of the CPU on which this code runs: nobody else writes them."""
        return self.figures[curcpu()]

    def total(self) -> Figures:
        """Return the sums of all counters, as they are now."""
        return total(self.figures)

    @property
    def open(self) -> int:
        """How many control blocks are in use."""
        return self.slab.allocated - self.slab.freed

    def free(self, pcb: Pcb) -> None:
        """Give a control block back. It must not be used afterwards, and this is where that is found out."""
        if self.stage is None:
            self.slab.free(pcb)
        else:
            self.stage.free(pcb)

    # -- what happens, from any thread ---------------------------------------------------------------------------

    def up(self, since: float) -> None:
        """Count a CPU whose clients have all connected."""
        self._soon(self._up, since)

    def _up(self, since: float) -> None:
        self._filling -= 1
        if not self._filling:
            self.began = time.monotonic()
            self.ramp = self.began - since
            self.full.set()

    def on_error(self, error: BaseException, c: Callout | None = None) -> None:
        """Note what left a callback or a handler. The first error ends the run: what comes after proves nothing."""
        if isinstance(error, UseAfterFree):
            self.uses_after_free += 1
            if any(frame.f_code.co_name in CALLBACKS for frame, _ in traceback.walk_tb(error.__traceback__)):
                self.callbacks_after_free += 1
        else:
            self.errors.append(repr(error))
        self._soon(self.over.set)

    def interrupt(self) -> None:
        """End the run: Ctrl-C. On CPU 0."""
        self.interrupted = True
        self.over.set()

    def _soon(self, func: Callable[..., object], *args: object) -> None:
        """Have CPU 0's loop call *func*."""
        assert self._system is not None
        with suppress(ClosedError):  # then nobody waits any more
            self._system.cpu(0).call(func, *args)
