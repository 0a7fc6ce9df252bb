"""What an application's task on CPU 0 feels of its callouts: ``python tests/bench/latency.py``.

A task wakes every millisecond and measures how long it was away. Meanwhile nothing happens; or another thread holds a
callout's lock; or many callouts expire at once. The figure to reach is no gap above 20 ms (acceptance 7).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from callout import (
    C_ABSOLUTE,
    SBT_1MS,
    Callout,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_sbt,
    open_callouts,
    sbinuptime,
)

TARGET = 20.0  # ms


@dataclass(frozen=True)
class Row:
    """One line of the table, in milliseconds."""

    situation: str
    gaps: list[float]

    def __str__(self) -> str:
        gaps = sorted(self.gaps)
        p99 = gaps[len(gaps) * 99 // 100]
        verdict = "ok" if gaps[-1] <= TARGET else "MISSED"
        return (
            f"{self.situation:44} {len(gaps):6} {statistics.median(gaps):8.2f} {p99:8.2f} {gaps[-1]:8.2f}   {verdict}"
        )


async def tick(gaps: list[float], until: trio.Event) -> None:
    """Wake every millisecond and note, in ms, how long that took."""
    last = time.perf_counter()
    while not until.is_set():
        await trio.sleep(0.001)
        now = time.perf_counter()
        gaps.append((now - last) * 1e3)
        last = now


Situation = Callable[[Callable[[], None]], Awaitable[object]]


async def measure(name: str, situation: Situation, cpus: int) -> Row:
    """Have a task tick from when *situation* says that it has begun until its end."""
    gaps: list[float] = []
    gc.collect()
    async with open_callouts(cpus, checking=False), trio.open_nursery() as nursery:
        over = trio.Event()
        await situation(lambda: nursery.start_soon(tick, gaps, over))
        over.set()
    return Row(name, gaps)


def idle(seconds: float) -> Situation:
    """Let nothing happen."""

    async def situation(begin: Callable[[], None]) -> None:
        begin()
        await trio.sleep(seconds)

    return situation


def held(seconds: float) -> Situation:
    """Have another thread hold a callout's lock while the callout is due."""

    async def situation(begin: Callable[[], None]) -> None:
        begin()
        c, m, ran = Callout(), Mtx("m"), trio.Event()
        callout_init_mtx(c, m)

        def holder() -> None:
            with m:
                callout_reset(c, 1, lambda _: ran.set(), None)
                time.sleep(seconds)

        await trio.to_thread.run_sync(threading.Thread(target=holder).start)
        await ran.wait()

    return situation


def burst(count: int, *, locked: bool) -> Situation:
    """Have *count* callouts expire at the same time."""

    async def situation(begin: Callable[[], None]) -> None:
        done = trio.Event()
        left = count
        m = Mtx("m")

        def callback(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        callouts = [Callout() for _ in range(count)]
        when = sbinuptime() + 3000 * SBT_1MS
        for c in callouts:
            if locked:
                callout_init_mtx(c, m)
            else:
                callout_init(c, 1)
            callout_reset_sbt(c, when, 0, callback, None, C_ABSOLUTE)
        gc.collect()  # making them was the application's work, and so is this
        begin()
        await done.wait()

    return situation


async def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--hold", type=float, default=0.5, help="seconds for which the lock is held")
    parser.add_argument("--callouts", type=int, default=100_000, help="how many expire at once")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    print(
        f"{'gaps of a task that ticks every ms':44} {'ticks':>6} {'median':>8} {'p99':>8} {'max':>8}   <= {TARGET} ms"
    )
    for _ in range(options.repeat):
        for name, situation in (
            ("nothing happens", idle(options.hold)),
            (f"a lock is held for {options.hold * 1e3:.0f} ms", held(options.hold)),
            (f"{options.callouts} expire at once", burst(options.callouts, locked=False)),
            (f"{options.callouts} with a mutex expire at once", burst(options.callouts, locked=True)),
        ):
            print(await measure(name, situation, options.cpus))


if __name__ == "__main__":
    trio.run(main)
