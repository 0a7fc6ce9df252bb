"""The watchdog of a device: a callout that ticks while the device runs, under the device's mutex.

``callout_init_mtx()`` makes the rest simple. The callback is called with the mutex held. So code that holds it knows
that the callback does not run, and ``callout_stop()`` under it is certain: after it the callback will not be called,
and a callback that stood at the mutex is cancelled.

What is left is the end. A cancelled callback's softclock may still be standing at the mutex, which is about to be
destroyed: so the device is detached by a stop under the mutex, then a drain without it, then the free. After the stop
nothing may arm the callout again, and that is what ``is_running`` is for: everything that arms looks at it, under the
mutex.

Source: sys/dev/re/if_re.c and many others: re_tick(), re_watchdog(), re_stop(), re_detach(); callout(9).
"""

from __future__ import annotations

from typing import Final

from .. import Callout, Mtx, callout_drain_sync, callout_init_mtx, callout_reset, callout_stop
from ..testing import Slab

__all__ = ["HZ", "PATIENCE", "Device"]

HZ: Final = 1000  # ticks from one call of the callback to the next
PATIENCE: Final = 2  # calls, until a frame that was not sent means that the device hangs


class Device:
    """A network card."""

    def __init__(self, slab: Slab[Device]) -> None:
        self.slab = slab
        self.mtx = Mtx("device")
        self.tick_callout = Callout()
        callout_init_mtx(self.tick_callout, self.mtx)
        self.is_running = False
        self.patience = 0  # 0: nothing is being sent
        self.resets = 0

    def start(self) -> None:
        """Bring the device up."""
        with self.mtx:
            self.init_locked()

    def init_locked(self) -> None:
        """Bring the device up; the mutex is held."""
        self.is_running = True
        self.patience = 0
        callout_reset(self.tick_callout, HZ, Device.tick, self)

    def transmit(self) -> bool:
        """Send a frame: the watchdog begins anew. Return whether the device runs."""
        with self.mtx:
            if not self.is_running:
                return False
            self.patience = PATIENCE
            callout_reset(self.tick_callout, HZ, Device.tick, self)
            return True

    def transmitted(self) -> None:
        """Be the interrupt that says that all is sent."""
        with self.mtx:
            self.patience = 0

    def tick(self) -> None:
        """Be the callback. The mutex is held."""
        if self.patience:
            self.patience -= 1
            if not self.patience:  # it hangs
                self.resets += 1
                self.stop_locked()
                self.init_locked()
                return
        callout_reset(self.tick_callout, HZ, Device.tick, self)

    def stop(self) -> None:
        """Bring the device down. It can be brought up again."""
        with self.mtx:
            self.stop_locked()

    def stop_locked(self) -> None:
        """Bring the device down; the mutex is held. The callback will not run after this."""
        self.is_running = False
        callout_stop(self.tick_callout)

    def detach(self) -> None:
        """Bring the device down for good, and free it. Blocks."""
        self.stop()
        callout_drain_sync(self.tick_callout)
        self.slab.free(self)
