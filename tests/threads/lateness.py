"""How late callbacks are: in a guest of asyncio, on trio, and asyncio's own ``call_later()``.

``python -m tests.threads.lateness`` prints a line for each: the medians over all timers of all rounds. In a round each
kind has its turn, one timer after the other, so that what the machine does besides falls on all of them.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable

import trio

import callout.guest
from callout import Callout, callout_init, callout_reset, open_callouts

ROUNDS = 10
TIMERS = 50  # in a round, of each kind
TICKS = 3  # of a millisecond


def late(due: int) -> float:
    """Return how many microseconds have passed since *due*."""
    return (time.monotonic_ns() - due) / 1000


def due_now() -> int:
    """Return when a timer that is armed now is due."""
    return time.monotonic_ns() + TICKS * 1_000_000


def timers() -> tuple[Callout, list[float], Callable[[Callable[[], object]], None]]:
    """Return a callout, how late it was, and what arms it and has a function called when it has fired."""
    c, found = Callout(), list[float]()
    callout_init(c, 1)

    def fire(arg: tuple[int, Callable[[], object]]) -> None:
        found.append(late(arg[0]))
        arg[1]()

    def arm(then: Callable[[], object]) -> None:
        callout_reset(c, TICKS, fire, (due_now(), then))

    return c, found, arm


async def in_guest() -> list[float]:
    """Time callouts in a guest."""
    async with callout.guest.open_callouts():
        _, found, arm = timers()
        for _ in range(TIMERS):
            fired = asyncio.Event()
            arm(fired.set)
            await fired.wait()
    return found


async def on_trio() -> list[float]:
    """Time callouts on trio."""
    async with open_callouts():
        _, found, arm = timers()
        for _ in range(TIMERS):
            fired = trio.Event()
            arm(fired.set)
            await fired.wait()
    return found


async def with_call_later() -> list[float]:
    """Time asyncio's own timers."""
    loop, found = asyncio.get_running_loop(), list[float]()
    for _ in range(TIMERS):
        fired = asyncio.Event()

        def fire(due: int, fired: asyncio.Event = fired) -> None:
            found.append(late(due))
            fired.set()

        loop.call_later(TICKS / 1000, fire, due_now())
        await fired.wait()
    return found


def main() -> None:
    """Time all, and print."""
    kinds: dict[str, Callable[[], list[float]]] = {
        "a guest of asyncio": lambda: asyncio.run(in_guest()),
        "trio": lambda: trio.run(on_trio),
        "asyncio's call_later()": lambda: asyncio.run(with_call_later()),
    }
    if "uvloop" in sys.argv:
        import uvloop

        kinds["a guest of uvloop"] = lambda: uvloop.run(in_guest())
        kinds["uvloop's call_later()"] = lambda: uvloop.run(with_call_later())
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, measure in kinds.items():
            found[kind] += measure()
    for kind, values in found.items():
        print(f"{kind:25} {statistics.median(values):6.0f} µs")


if __name__ == "__main__":
    main()
