"""A connection with several timers, which is closed by code that must not wait, or by one of its own timers.

All callouts are under the connection's lock, with ``CALLOUT_TRYLOCK``: softclock never waits for that lock, so one busy
connection delays no other's timers. If the lock is held, softclock tries again a little later.

To discard the connection, each callout is drained asynchronously. Where ``callout_drain_async()`` returns 1 something
is still outstanding, and the completion *will* be called: it has a reference. Where it returns 0 nothing is. The user
that has opened the connection has a reference, too, and whatever drops the last one frees the connection. The count is
guarded by the lock, which is held all through the discarding: so no completion can look at it too early.

Source: sys/netinet/tcp_timer.c, tcp_timer_stop() and tcp_timer_discard(), of FreeBSD 11 to 14, and tcp_timer_enter() of
15, which has ``CALLOUT_TRYLOCK``. Their ``callout_async_drain()`` has the opposite sense.
"""

from __future__ import annotations

from typing import Final

from .. import CALLOUT_TRYLOCK, Callout, Mtx, callout_drain_async, callout_init_mtx, callout_reset, callout_stop
from ..testing import Slab

__all__ = ["KEEPALIVE", "MOST", "RETRANSMIT", "Connection"]

RETRANSMIT: Final = 200  # ticks
KEEPALIVE: Final = 2 * 60 * 60 * 1000
MOST: Final = 2  # retransmissions without an acknowledgement, until the connection is dropped


class Connection:
    """One end of a connection."""

    def __init__(self, slab: Slab[Connection]) -> None:
        self.slab = slab
        self.lock = Mtx("inp")
        self.retransmit, self.keepalive = Callout(), Callout()
        for c in (self.retransmit, self.keepalive):
            callout_init_mtx(c, self.lock, CALLOUT_TRYLOCK)
        self.references = 1  # the user's
        self.is_closed = False
        self.tries = 0
        self.probes = 0

    def open(self) -> None:
        """Begin to look now and then whether the other end is still there."""
        with self.lock:
            callout_reset(self.keepalive, KEEPALIVE, Connection.probe, self)

    def send(self) -> None:
        """Send something, which is sent again until it is acknowledged."""
        with self.lock:
            if not self.is_closed:
                self.tries = 0
                callout_reset(self.retransmit, RETRANSMIT, Connection.sends_again, self)

    def acknowledged(self) -> None:
        """All that was sent has arrived."""
        with self.lock:
            callout_stop(self.retransmit)

    def sends_again(self) -> None:
        """Be the retransmission timer. The lock is held."""
        self.tries += 1
        if self.tries < MOST:
            callout_reset(self.retransmit, RETRANSMIT << self.tries, Connection.sends_again, self)
        else:
            self.discard()

    def probe(self) -> None:
        """Be the keep-alive timer. The lock is held."""
        self.probes += 1
        callout_reset(self.keepalive, KEEPALIVE, Connection.probe, self)

    def close(self) -> None:
        """Close the connection and drop the user's reference. Never blocks."""
        with self.lock:
            self.discard()
            last = self.drop()
        if last:
            self.slab.free(self)

    def discard(self) -> None:
        """End the timers, if that was not done before. The lock is held."""
        if self.is_closed:
            return
        self.is_closed = True
        for c in (self.retransmit, self.keepalive):
            if callout_drain_async(c, Connection.drained, self) == 1:
                self.references += 1

    def drained(self) -> None:
        """Be the completion: nothing of that callout is outstanding any more. No lock is held."""
        with self.lock:
            last = self.drop()
        if last:
            self.slab.free(self)

    def drop(self) -> bool:
        """Drop a reference, and return whether it was the last one. The lock is held."""
        self.references -= 1
        return self.references == 0
