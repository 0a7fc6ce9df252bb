"""What is compared: the peers, each a kind of timer in a loop of its own, and what a workload may ask of one.

Each peer writes its loops out, so that a figure has what the peer's own users pay, and no call between.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Sequence
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from .. import core

Func = Callable[[Any], object]
# A workload, as it runs on a peer's loop. It yields what it waits for: a number of seconds, or, None, ``wake()``.
Steps = Generator[float | None, None, None]


class Peer:
    """A kind of timer. Delays are what ``delays()`` has made of seconds; timers are whatever the peer's are."""

    def run(self, body: Callable[[], Steps]) -> None:
        """Run the loop, and *body* on it, until that has ended; throw away what is pending then."""
        raise NotImplementedError

    def wake(self) -> None:
        """Have the workload go on that waits for this. From any thread."""
        raise NotImplementedError

    def delays(self, seconds: Sequence[float]) -> list[Any]:
        """Return delays as the peer's users write them: seconds, if nothing else."""
        return list(seconds)

    def arm(self, delays: list[Any], func: Func, timers: list[Any]) -> None:
        """Make and arm a timer for each delay, and append it to *timers*."""
        raise NotImplementedError

    def idle(self, delays: list[Any], func: Func, timers: list[Any]) -> None:
        """Make and arm timers as ``arm()`` does, such as ``rearm()`` may be asked to begin again."""
        self.arm(delays, func, timers)

    def rearm(self, delays: list[Any], func: Func, timers: list[Any]) -> None:
        """Have each timer that ``idle()`` has made, and that is pending, begin again: an idle timeout."""
        raise NotImplementedError

    def churn(self, delays: list[Any], func: Func) -> None:
        """For each delay make, arm and cancel a timer: a timeout around something that is done in time."""
        raise NotImplementedError

    def cancel(self, timers: list[Any]) -> None:
        """Cancel the timers, in this order."""
        raise NotImplementedError

    def hold(self) -> Callable[[], None]:
        """Keep the peer's other loops, if it has any, from running until what is returned is called."""
        return lambda: None

    def arm_elsewhere(self, delays: list[Any], func: Func) -> None:
        """Make and arm a timer for each delay, from a thread that has no loop."""
        raise NotImplementedError


class Entry(NamedTuple):
    """Where a peer is found."""

    name: str
    module: str  # of this package
    make: str  # what makes it, there
    needs: str  # what must be installed for it, by the name under which it is imported
    about: str
    most: int = 10_000_000  # of how many timers at once it is asked
    pure: bool = False  # it has the pure core, though there is a compiled one


PEERS: Final = (
    Entry("callout", "_callouts", "Plain", "trio", "callout_reset() and callout_stop(), no lock"),
    Entry("callout-methods", "_callouts", "Methods", "trio", "call_later(), c.reset() and c.stop(), no lock"),
    Entry("callout-pure", "_callouts", "Plain", "trio", "the first with the pure core", pure=True),
    Entry("callout-mutex", "_callouts", "WithMutex", "trio", "the first, with a mutex each, held for stopping"),
    Entry("callout-2cpus", "_callouts", "TwoCpus", "trio", "the first, spread over two CPUs"),
    Entry("callout-linux", "_linux", "Linux", "trio", "mod_timer() and timer_delete() of the Linux shim"),
    Entry("callout-guest", "_callouts", "InGuest", "trio", "the first, in asyncio: callout.guest"),
    Entry("asyncio", "_asyncio", "asyncio_loop", "asyncio", "call_later() and cancel()"),
    Entry("uvloop", "_asyncio", "uvloop_loop", "uvloop", "the same on libuv"),
    Entry("rloop", "_asyncio", "rloop_loop", "rloop", "the same in Rust"),
    Entry("gevent", "_gevent", "Gevent", "gevent", "timers of its loop: start(), again() and stop()"),
    Entry("twisted", "_twisted", "Twisted", "twisted", "callLater(), reset() and cancel()"),
    Entry("trio", "_trio", "Trio", "trio", "a task that sleeps, and the deadline of its cancel scope", 10_000),
)
BASE: Final = "asyncio"  # what the ratios are to


def wants(entry: Entry) -> str:
    """Return what to do for the peer to be there; "" if it is."""
    if entry.pure and core == "pure":
        return "the core is pure: install callout where there is a C compiler, to compare"
    return "" if find_spec(entry.needs) is not None else f"pip install {entry.needs}"


def make(name: str) -> Peer:
    """Return the peer of that name."""
    entry = next(entry for entry in PEERS if entry.name == name)
    peer: Peer = getattr(importlib.import_module(f"{__package__}.{entry.module}"), entry.make)()
    return peer
