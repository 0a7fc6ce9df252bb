"""A random program for callouts, the same for the same seed: it prints a digest of what every call has returned.

``python tests/compiled/program.py CALLS SEED`` runs it with whatever core there is. It runs on virtual CPUs under a
clock that it drives itself, so that nothing but the core can make a difference.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from typing import Final

import callout
from callout import (
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_TRYLOCK,
    Callout,
    CalloutError,
    Mtx,
    callout_active,
    callout_arm_curcpu,
    callout_arm_on,
    callout_deactivate,
    callout_dequeue,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt_on,
    callout_schedule,
    callout_stop,
    mstosbt,
    ticks,
)
from callout.testing import VirtualSMP

CALLOUTS: Final = 40
CPUS: Final = 2
A_SYSTEM: Final = 500  # calls, then there is a new one
HOW: Final = (0, 0x1, 0x2, 0x4, 0x8, 0x10)
FAR: Final = (1, 2, 5, 40, 300, 3_000, 70_000, 2_000_000_000)


class Program:
    """The callouts, and what was seen of them."""

    def __init__(self, vm: VirtualSMP, calls: int, seed: int, digest: hashlib._Hash) -> None:
        self.vm = vm
        self.left = calls
        self.random = random.Random(seed)
        self.digest = digest
        self.lock = Mtx("program")
        self.callouts = [Callout() for _ in range(CALLOUTS)]
        self.number = {id(c): number for number, c in enumerate(self.callouts)}
        for number, c in enumerate(self.callouts):
            if number % 4 == 0:
                callout_init_mtx(c, self.lock, (0, CALLOUT_TRYLOCK, CALLOUT_RETURNUNLOCKED)[number // 4 % 3])
            else:
                callout_init(c, 1)
        self.operations: list[Callable[[Callout], object]] = [
            lambda c: callout_reset(c, self.ahead(), self.ran, c),
            lambda c: callout_reset(c, self.ahead(), self.ran, c),
            lambda c: callout_reset_on(c, self.ahead(), self.ran, c, self.random.randrange(CPUS)),
            lambda c: callout_reset_sbt_on(
                c, mstosbt(self.random.randrange(50)), mstosbt(self.random.randrange(5)), self.ran, c, 0
            ),
            lambda c: callout_schedule(c, self.ahead()),
            lambda c: callout_arm_curcpu(c, ticks() + self.ahead(), self.ran, c, self.random.choice(HOW)),
            lambda c: callout_arm_on(c, ticks() + self.ahead(), self.ran, c, self.random.randrange(CPUS)),
            callout_stop,
            callout_stop,
            lambda c: callout_dequeue(c, if_not_running=self.random.random() < 0.5),
            callout_deactivate,
            callout_pending,
            callout_active,
            lambda c: callout_drain_async(c, self.drained, c),
        ]

    def ahead(self) -> int:
        """Return a number of ticks, mostly small."""
        return self.random.randrange(self.random.choice(FAR))

    def note(self, *what: object) -> None:
        """Add something to the digest."""
        self.digest.update(repr(what).encode())

    def ran(self, c: Callout) -> None:
        """Be a callback, which makes a call now and then."""
        self.note("ran", self.number[id(c)], ticks())
        if self.random.random() < 0.4:
            self.call()
        if c.flags & CALLOUT_RETURNUNLOCKED:
            self.lock.unlock()

    def drained(self, c: Callout) -> None:
        """Be a completion."""
        self.note("drained", self.number[id(c)])

    def call(self) -> None:
        """Make one call, and note what comes of it."""
        self.left -= 1
        c = self.random.choice(self.callouts)
        which = self.random.randrange(len(self.operations))
        locked = c.lock is not None and not self.lock.owned() and self.random.random() < 0.9
        result: object
        try:
            if locked:
                self.lock.lock()
            result = self.operations[which](c)
        except CalloutError as error:
            result = f"{type(error).__name__}: {error}".replace(hex(id(c)), "it")
        finally:
            if locked:
                self.lock.unlock()
        self.note(which, self.number[id(c)], result, c.state, c.c_cpu.id)

    def run(self) -> None:
        """Make all calls, and let time pass between."""
        while self.left > 0:
            for _ in range(self.random.randrange(1, 20)):
                self.call()
            self.vm.tick(self.random.choice((1, 1, 1, 2, 10, 500)))
            self.note(
                *(c.time for c in self.callouts[:4]), [str(error).splitlines()[0][:20] for error in self.vm.errors]
            )


def main(calls: int, seed: int) -> str:
    """Return which core ran, and the digest."""
    digest = hashlib.sha256()
    for part in range(-(-calls // A_SYSTEM)):
        with VirtualSMP(cpus=CPUS) as vm:
            Program(vm, A_SYSTEM, seed * 1_000_003 + part, digest).run()
    return f"{callout.core} {digest.hexdigest()}"


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2])))  # noqa: T201 - a command prints
