"""Races of callouts that move from one CPU to another, in the engine of FreeBSD 8 to 10.

A reset may name another CPU. A callout that does not run is moved at once. One that runs is moved when its callback has
returned. Until then the arming is *deferred*: the CPU keeps its arguments, and the flag ``dfrmigration`` of the callout
says so.

Invariants: "stopped" means that the callback does not run; after a reset the callout is pending or active until its new
arming begins or is stopped.
"""

from __future__ import annotations

from typing import Final

from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import OLD, Scenario


def stopped_while_deferred(*, lies: bool) -> Scenario:
    """Return the scenario of a callback that re-arms on another CPU, while a thread stops the callout and frees.

    *lies*: a stop that removes the deferred arming says "stopped", although the callback runs. The thread frees what
    the callback uses when the stop says "stopped"; else it waits for the callback and stops again what that has armed.
    The two softclocks are one thread: that of CPU 1 begins when the first run has ended.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            cc_lock = vm.lock("cc of CPU 0")
            cc = vm.struct("cc of CPU 0", queued=True, current=False)
            c = vm.struct("c", dfrmigration=False)
            arg = vm.struct("the argument", uses=0)
            armed_again = vm.cell(False, "the callback has armed its callout again")
            cancelled = vm.cell(False, "a stop came after that")

        def softclock() -> None:
            for run in (1, 2):
                with cc_lock:
                    if not cc.queued:
                        return
                    cc.queued = False
                    cc.current = True
                if run == 1:
                    with cc_lock:  # the callback: callout_reset_on() for CPU 1
                        c.dfrmigration = True
                        with vm.setup():
                            armed_again.value = True
                else:
                    with vm.setup():
                        assert not cancelled.value, "the callback runs again, and a stop came after its arming"
                arg.uses = run  # the callback goes on
                with cc_lock:
                    cc.current = False
                    if c.dfrmigration:
                        c.dfrmigration = False
                        cc.queued = True  # on CPU 1

        def stop() -> bool:
            with cc_lock:
                if cc.queued:
                    cc.queued = False
                    return True
                if c.dfrmigration:
                    c.dfrmigration = False
                    if lies:
                        return True
                return not cc.current  # else it is running

        def destroyer() -> None:
            while not stop():
                with vm.setup():
                    cancelled.value = armed_again.value
                vm.wait_until(lambda: not cc.current, "the callback to return")
            vm.free(arg)

        vm.spawn(softclock)
        vm.spawn(destroyer)

    return scenario


class Deferred:
    """A callout without a lock, whose callback is on CPU 0 and checks by the state bits whether it was overtaken."""

    def __init__(self, vm: VirtualSMP, *, sets_bits: bool) -> None:
        """*sets_bits*: a deferred reset sets PENDING and ACTIVE, as any other does."""
        self.vm = vm
        self.sets_bits = sets_bits
        self.lock = vm.lock("the program's lock")
        self.latest = vm.cell(1, "the latest arming")  # under that lock
        self.cc_lock = vm.lock("cc of CPU 0")
        self.cc = vm.struct("cc of CPU 0", queued=True, current=False, deferred=0)
        self.c = vm.struct("c", pending=True, active=True)
        self.worked = vm.cell(0, "the arming whose callback has worked last")

    def reset_on_1(self, number: int) -> None:
        """Arm it on CPU 1 with the argument *number*."""
        with self.cc_lock:
            if self.cc.current:
                self.cc.deferred = number
                if not self.sets_bits:
                    return
            else:
                self.cc.queued = False  # CPU 1 has it now
            self.c.pending = True
            self.c.active = True

    def softclock(self) -> None:
        """Be softclock of CPU 0: run the first arming."""
        with self.cc_lock:
            if not self.cc.queued:
                return
            self.cc.queued = False
            self.c.pending = False
            self.cc.current = True
        self.callback(1)
        with self.cc_lock:
            self.cc.current = False
            if self.cc.deferred:
                self.c.pending = True
                self.c.active = True

    def callback(self, number: int) -> None:
        """Be the callback, by the third technique of the man page."""
        with self.lock:
            if self.c.pending:
                return  # it was armed anew
            if not self.c.active:
                return  # it was stopped
            self.c.active = False
            latest = self.latest.value
            assert number == latest, f"the callback of arming {number} works, and arming {latest} has overtaken it"
            self.worked.value = number

    def softclock_of_1(self) -> None:
        """Be softclock of CPU 1, when all else is done: run what was armed there."""
        with self.cc_lock:
            self.c.pending = False
        self.callback(2)
        assert self.worked.value == 2, "the last arming was accepted, and its callback has not worked"


def overtaken(*, sets_bits: bool, looks: bool = False) -> Scenario:
    """Return the scenario of a callback that is overtaken by a reset, and has to see that; or of the program that has
    called the reset and *looks* at the state bits.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Deferred(vm, sets_bits=sets_bits)

        def rearm() -> None:
            with it.lock:
                it.reset_on_1(2)
                it.latest.value = 2
                if looks:
                    assert it.c.pending or it.c.active, "the callout was armed, and is neither pending nor active"

        vm.spawn(it.softclock)
        vm.spawn(rearm)
        vm.settle()
        it.softclock_of_1()

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.6",
        title="a stop that finds a deferred migration says too much",
        story=(
            "A callback re-arms its callout on another CPU. It still runs, so the migration is deferred. Another "
            "thread stops the callout. The engine of FreeBSD 10 found the deferred migration, removed it and returned "
            "1: stopped. That is true of the new arming. But the callback still runs, and the caller, who trusts the "
            "1, frees what it uses. The stop must return 0, since a callback is running."
        ),
        sources=(OLD,),
        variants=(
            Variant(
                "says-1",
                "the stop removes the deferred migration and returns 1",
                stopped_while_deferred(lies=True),
                breaks="which destroyer has freed",
                preemptions=1,
            ),
            Variant("says-0", "it removes the deferred migration and returns 0", stopped_while_deferred(lies=False)),
        ),
    ),
    Exhibit(
        number="R4.7",
        title="a deferred migration that does not show in the state bits",
        story=(
            "The man page tells callbacks without a lock how to find out that they were overtaken: the callback "
            "acquires the program's lock, returns if its callout is pending, returns if it is not active, and else "
            "deactivates it and works. This relies on it that a reset sets both bits. In the old engine a reset that "
            "was deferred, because the callback was about to run and another CPU was wanted, did not set them. So the "
            "callback that had been overtaken went to work with its old argument. And after the callback had "
            "deactivated it, a callout that was armed was neither pending nor active. The rewrite closed this: the "
            "bits are set when the reset is accepted."
        ),
        sources=(
            "r277213 of 15 January 2015, commit message: callout_reset() failed to set CALLOUT_ACTIVE",
            "callout(9), Avoiding Race Conditions, the third technique",
            OLD,
        ),
        variants=(
            Variant(
                "overtaken",
                "a deferred reset sets no bits: the callback does not see it",
                overtaken(sets_bits=False),
                breaks="has overtaken it",
                preemptions=1,
            ),
            Variant(
                "not-armed",
                "a deferred reset sets no bits: the program does not see its own arming",
                overtaken(sets_bits=False, looks=True),
                breaks="neither pending nor active",
                preemptions=1,
            ),
            Variant("bits-overtaken", "the bits are set at once: the callback sees it", overtaken(sets_bits=True)),
            Variant(
                "bits-armed", "the bits are set at once: the program sees it", overtaken(sets_bits=True, looks=True)
            ),
        ),
    ),
)
