"""The control block of one connection, and what its timers do: tcp_timer.c in small.

One mutex guards it all. Callbacks run with it held, on whichever CPU their callout was armed for; the connection's
handler takes it for every message. Nothing here waits.

``closed_by`` says that the teardown has begun. The code that sets it, under the mutex, has begun it, and no other will;
from then on no timer is armed and the socket is the handler's alone.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Final

from callout import (
    Callout,
    Mtx,
    callout_init_mtx,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_stop,
)

if TYPE_CHECKING:
    from ._service import Service

HZ: Final = 1000
_TICK: Final = 1_000_000_000 // HZ
RETRIES: Final = 3  # how often an echo is sent again; then the idle timer will have its say

FRAME: Final = struct.Struct("!4sI")
DATA: Final = b"DATA"
PROBE: Final = b"PING"  # server: are you there? client: yes


class Timer(Callout):
    """A callout that remembers when it is due, to tell how late it is."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        super().__init__()
        self.due = 0  # ns of time.monotonic_ns(); not later than the engine's own

    def due_in(self, seconds: float) -> int:
        """Note that it will be due in *seconds* from now; return that in ticks. The mutex is held."""
        ticks = max(round(seconds * HZ), 1)
        self.due = time.monotonic_ns() + ticks * _TICK
        return ticks


class Pcb:
    """One connection's control block. It is allocated from a slab and torn down as ``_teardown`` says."""

    __slots__ = (
        "__weakref__",
        "closed_by",
        "idle",
        "keepalive",
        "leave",
        "lock",
        "number",
        "refs",
        "retransmit",
        "retries",
        "service",
        "sock",
        "unacknowledged",
    )

    def __init__(self, service: Service, number: int, sock: socket, leave: Callable[[], None]) -> None:
        """Take the control block of connection *number*; *leave()*, from any thread, has its handler close it."""
        self.service = service
        self.number = number
        self.sock = sock
        self.leave = leave
        self.closed_by: str | None = None
        self.refs = 0  # while it is torn down
        self.retries = 0
        self.unacknowledged = b""  # the last echo, until the client says something more
        self.lock = Mtx(f"pcb of connection {number}")
        self.retransmit = Timer()
        self.keepalive = Timer()
        self.idle = Timer()
        for timer in self.timers():
            callout_init_mtx(timer, self.lock)
        with self.lock:
            # Spread over the CPUs: the next connection begins one further.
            options = service.options
            first, second = number % options.cpus, (number + 1) % options.cpus
            ticks = self.keepalive.due_in(options.keepalive)
            self.armed(callout_reset_on(self.keepalive, ticks, keepalive_timeout, self, first))
            ticks = self.idle.due_in(options.idle)
            self.armed(callout_reset_on(self.idle, ticks, idle_timeout, self, second))

    def timers(self) -> tuple[Timer, Timer, Timer]:
        """Return its callouts."""
        return self.retransmit, self.keepalive, self.idle

    # -- traffic, from the connection's handler ------------------------------------------------------------------

    def heard(self, cpu: int) -> None:
        """Something came from the client: nothing has to be sent again, and it is not idle.

        Keep-alive is moved to *cpu* if there is one of this number, idle to the handler's own.
        """
        service = self.service
        with self.lock:
            if self.closed_by is not None:
                return
            self.retries = 0
            self.unacknowledged = b""
            if callout_stop(self.retransmit) == 1:
                service.here().stopped += 1
            ticks = self.keepalive.due_in(service.options.keepalive)
            if cpu < service.options.cpus:
                self.armed(callout_reset_on(self.keepalive, ticks, keepalive_timeout, self, cpu))
            else:
                self.armed(callout_reset(self.keepalive, ticks, keepalive_timeout, self))
            ticks = self.idle.due_in(service.options.idle)
            self.armed(callout_reset_curcpu(self.idle, ticks, idle_timeout, self))

    def echoed(self, frame: bytes) -> None:
        """*frame* was sent to the client: send it again if nothing comes back."""
        service = self.service
        with self.lock:
            if self.closed_by is None:
                self.unacknowledged = frame
                ticks = self.retransmit.due_in(service.options.retransmit)
                self.armed(callout_reset(self.retransmit, ticks, retransmit_timeout, self))

    def armed(self, replaced: int) -> None:
        """Count what ``callout_reset()`` has returned."""
        figures = self.service.here()
        if replaced:
            figures.rearmed += 1
        else:
            figures.armed += 1

    # -- teardown --------------------------------------------------------------------------------------------------

    def close(self, by: str) -> None:
        """Begin the teardown, unless somebody has. The mutex is held."""
        if self.closed_by is not None:
            return
        self.closed_by = by
        self.service.here().closed_by[by] += 1
        self.service.teardown.begin(self)
        if by == "timer":
            with suppress(OSError):  # the client was faster
                self.sock.shutdown(SHUT_RDWR)  # the handler reads an end of file, and does the rest


def _fired(pcb: Pcb, timer: Timer) -> None:
    """Count a callback, and how late it is."""
    figures = pcb.service.here()
    figures.fired += 1
    late = time.monotonic_ns() - timer.due
    if late < 0:
        figures.early += 1
    if not pcb.service.over.is_set():  # then every handler ends at once, and softclock waits its turn like the others
        figures.late.add(max(late, 0))


def _send(pcb: Pcb, frame: bytes) -> None:
    """Send eight bytes from a callback: whatever happens, it does not wait."""
    with suppress(OSError):  # full, or the client is gone: the timer will come again
        pcb.sock.send(frame)


# -- the callbacks: the mutex is held --------------------------------------------------------------------------------


def retransmit_timeout(pcb: Pcb) -> None:
    """The client has not replied: send the last echo again, and wait twice as long; at last close the connection."""
    _fired(pcb, pcb.retransmit)
    if pcb.closed_by is not None:
        return
    pcb.service.here().resent += 1
    _send(pcb, pcb.unacknowledged)
    pcb.retries += 1
    if pcb.retries < RETRIES:
        wait = pcb.service.options.retransmit * (1 << pcb.retries)
        pcb.armed(callout_reset(pcb.retransmit, pcb.retransmit.due_in(wait), retransmit_timeout, pcb))


def keepalive_timeout(pcb: Pcb) -> None:
    """It was silent for some time: ask."""
    _fired(pcb, pcb.keepalive)
    if pcb.closed_by is not None:
        return
    pcb.service.here().probes += 1
    _send(pcb, FRAME.pack(PROBE, 0))
    ticks = pcb.keepalive.due_in(pcb.service.options.keepalive)
    pcb.armed(callout_reset(pcb.keepalive, ticks, keepalive_timeout, pcb))


def idle_timeout(pcb: Pcb) -> None:
    """It was silent for too long: close it."""
    _fired(pcb, pcb.idle)
    pcb.close("timer")
