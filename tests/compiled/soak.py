"""Threads that arm and dequeue the callouts of one system for a while: nothing may be lost, and memory stays flat.

``python tests/compiled/soak.py SECONDS THREADS`` runs it with whatever core there is, prints a line every few seconds,
and exits with 1 if something was lost. Every arming is counted: what was armed was dequeued, replaced, or has run.
"""

from __future__ import annotations

import random
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Final

import trio

import callout
from callout import (
    CALLOUT_REMOVED,
    Callout,
    CalloutSystem,
    callout_dequeue,
    callout_drain,
    callout_init,
    callout_reset,
    callout_reset_on,
    curcpu,
    open_callouts,
)

CALLOUTS: Final = 400
CPUS: Final = 2
AHEAD: Final = (1, 2, 3, 10, 100, 5_000)


def resident() -> int:
    """Return how many kilobytes of memory this process has; where that cannot be known, the most that it had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text("ascii").split()[1]) * resource.getpagesize() // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Soak:
    """The callouts, and what became of the armings."""

    def __init__(self, system: CalloutSystem, threads: int) -> None:
        self.system = system
        self.over = False
        self.fired = [0] * CPUS
        self.callouts = [Callout() for _ in range(CALLOUTS)]
        for c in self.callouts:
            callout_init(c, 1)
        self.scheduled = [0] * threads  # armings that replaced none
        self.removed = [0] * threads
        self.calls = [0] * threads

    def fire(self, _: object) -> None:
        """Be a callback."""
        self.fired[curcpu()] += 1

    def hammer(self, number: int) -> None:
        """Be a thread: arm, on this CPU or that, and dequeue."""
        chance = random.Random(number)
        with self.system.bound():
            while not self.over:
                for _ in range(200):
                    c = chance.choice(self.callouts)
                    what = chance.random()
                    if what < 0.4:
                        self.scheduled[number] += not callout_reset(c, chance.choice(AHEAD), self.fire, None)
                    elif what < 0.7:
                        where = chance.randrange(CPUS)
                        self.scheduled[number] += not callout_reset_on(c, chance.choice(AHEAD), self.fire, None, where)
                    else:
                        self.removed[number] += bool(callout_dequeue(c) & CALLOUT_REMOVED)
                self.calls[number] += 200

    async def run(self, seconds: float) -> int:
        """Hammer; return how many armings were lost."""
        threads = [threading.Thread(target=self.hammer, args=(n,)) for n in range(len(self.calls))]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            await trio.sleep(min(5.0, seconds / 4))
            print(f"{time.monotonic() - begun:6.0f} s  {sum(self.calls):12,} calls  {sum(self.fired):10,} runs  "
                  f"{resident():9,} kB")  # fmt: skip
        self.over = True
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        removed = sum(self.removed)
        for c in self.callouts:
            removed += bool(callout_dequeue(c) & CALLOUT_REMOVED)
            await callout_drain(c)
        lost = sum(self.scheduled) - removed - sum(self.fired)
        print(f"{callout.core} core: {sum(self.calls):,} calls, {sum(self.scheduled):,} scheduled, "
              f"{removed:,} removed, {sum(self.fired):,} run, {lost:,} lost")  # fmt: skip
        return lost


async def main(seconds: float, threads: int) -> int:
    """Return how many armings were lost."""
    async with open_callouts(cpus=CPUS, checking=False) as system:
        return await Soak(system, threads).run(seconds)


if __name__ == "__main__":
    raise SystemExit(1 if trio.run(main, float(sys.argv[1]), int(sys.argv[2])) else 0)
