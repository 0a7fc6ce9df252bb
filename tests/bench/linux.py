"""The cost of Linux timer calls against those of callout(9), in one run, interleaved.

    python tests/bench/linux.py --pending 100000 --cpus 1

``mod_timer()`` to a later time on pending timers against ``callout_reset()``, ``del_timer()`` against
``callout_stop()``. Prints nanoseconds per call, the least of the rounds, and the ratios.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from callout import Callout, callout_init, callout_reset, callout_stop, open_callouts
from callout_linux.timer import del_timer, jiffies, mod_timer, timer_list, timer_setup

T = TypeVar("T")
ROUNDS = 9


def ignore(arg: object) -> None:
    """Do nothing."""


def cost(call: Callable[[T], object], things: Sequence[T]) -> float:
    """Return nanoseconds per call."""
    begin = time.perf_counter_ns()
    for thing in things:
        call(thing)
    return (time.perf_counter_ns() - begin) / len(things)


def reset(callouts: Sequence[Callout], n: int) -> float:
    """Push callouts out; return nanoseconds per call."""
    begin = time.perf_counter_ns()
    for c in callouts:
        callout_reset(c, n, ignore, c)
    return (time.perf_counter_ns() - begin) / len(callouts)


def mod(timers: Sequence[timer_list], when: int) -> float:
    """Push timers out; return nanoseconds per call."""
    begin = time.perf_counter_ns()
    for t in timers:
        mod_timer(t, when)
    return (time.perf_counter_ns() - begin) / len(timers)


async def main(pending: int, cpus: int) -> None:
    """Measure."""
    async with open_callouts(cpus=cpus, checking=False):
        await trio.lowlevel.checkpoint()
        callouts = [Callout() for _ in range(pending)]
        timers = [timer_list() for _ in range(pending)]
        for c in callouts:
            callout_init(c, 1)
        for t in timers:
            timer_setup(t, ignore, 0)
        gc.collect()
        gc.freeze()
        least: dict[str, float] = {}

        def note(name: str, measured: float) -> None:
            least[name] = min(least.get(name, measured), measured)

        def arm(n: int) -> None:
            """Have everything pending, so that each measurement finds the wheel as the others did."""
            for c in callouts:
                callout_reset(c, n, ignore, c)
            for t in timers:
                mod_timer(t, jiffies + n)

        for number in range(1, ROUNDS + 1):
            n = number * 1_000_000
            arm(n)
            note("callout_reset", reset(callouts, n + 500_000))
            note("mod_timer", mod(timers, jiffies + n + 500_000))
            arm(n)
            note("callout_stop", cost(callout_stop, callouts))
            arm(n)
            note("del_timer", cost(del_timer, timers))
        for name, value in least.items():
            print(f"{name:15} {value:6.0f} ns")
        print(f"mod_timer / callout_reset {least['mod_timer'] / least['callout_reset']:.2f}")
        print(f"del_timer / callout_stop  {least['del_timer'] / least['callout_stop']:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--cpus", type=int, default=1)
    arguments = parser.parse_args()
    trio.run(main, arguments.pending, arguments.cpus)
