"""Callouts under a shared lock: what keeps the callback out, and what may overlap.

The third of Hans Petter Selasky's three rules: a callback under a shared lock runs on CPU 0 only. Only the exclusive
lock keeps it out.

Invariants: a stop that returns 1 is true; what holds the exclusive lock is alone.
"""

from __future__ import annotations

from typing import Final

from .. import CALLOUT_SHAREDLOCK, Callout, RwLock, callout_init, callout_init_rw, callout_reset, callout_reset_on
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario, on_engine


def stopped_under(*, shared: bool) -> Scenario:
    """Return the model of an engine that relies on the callout's lock for its cancel flag.

    Softclock looks at the flag and sets it ("cannot be stopped now") with the callout's lock held, for reading. So does
    a stop, with the lock held for reading (*shared*) or for writing.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            readers = vm.cell(0, "rwlock")  # how many readers; -1: a writer
            cc_lock = vm.lock("cc")
            cc = vm.struct("cc", queued=True, current=False, cancel=False)
            stopped = vm.cell(False, "stopped")
            ran = vm.cell(False, "ran")

        def read_lock() -> None:
            while readers.update(lambda n: n if n < 0 else n + 1) < 0:
                vm.wait_until(lambda: readers.value >= 0, "the writer")

        def write_lock() -> None:
            while readers.update(lambda n: n or -1) != 0:
                vm.wait_until(lambda: readers.value == 0, "the readers")

        def softclock() -> None:
            with cc_lock:
                if not cc.queued:
                    return
                cc.queued = False
                cc.current = True
            read_lock()
            if not cc.cancel:
                cc.cancel = True
                ran.value = True
            readers.update(lambda n: n - 1)
            with cc_lock:
                cc.current = False

        def stopper() -> None:
            if shared:
                read_lock()
            else:
                write_lock()
            with cc_lock:
                if cc.queued:
                    cc.queued = False
                    stopped.value = True
                elif cc.current and not cc.cancel:
                    cc.cancel = True
                    stopped.value = True
            readers.update(lambda n: n - 1 if shared else 0)

        vm.spawn(softclock)
        vm.spawn(stopper)
        vm.settle()
        assert not (stopped.value and ran.value), "stop says 1, and the callback runs"

    return scenario


def held(*, writes: bool) -> Scenario:
    """Return the scenario of a thread that holds the lock of a shared-lock callout, and relies on its silence."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("table")
        c = Callout()
        inside = False

        def callback(_: None) -> None:
            nonlocal inside
            inside = True
            vm.point()
            inside = False

        def holder() -> None:
            with rw if writes else rw.read():
                assert not inside, "the callback runs while its lock is held"
                vm.point()
                assert not inside, "the callback runs while its lock is held"

        with vm.setup():
            callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
            callout_reset(c, 1, callback, None)
        vm.spawn(holder)

    return scenario


def two_readers(*, lock: bool) -> Scenario:
    """Return the scenario of two callouts that are armed for two CPUs: under one shared lock, or under none."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("table")
        inside = 0

        def callback(_: None) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1, "two callbacks at once"
            vm.point()
            inside -= 1

        with vm.setup():
            for cpu in (0, 1):
                c = Callout()
                if lock:
                    callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
                else:
                    callout_init(c, 1)
                callout_reset_on(c, 1, callback, None, cpu)

        def reader() -> None:
            with rw.read():
                vm.point()

        vm.spawn(reader)

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.12",
        title="shared locks: a reader cannot keep a callback out",
        story=(
            "With CALLOUT_SHAREDLOCK softclock acquires the callout's lock for reading. Then a thread that holds the "
            "lock for reading, too, does not keep the callback out. The old engine decided with a cancel flag that "
            "only the callout's lock guarded: softclock looks at it and then sets it. Two readers can be between these "
            "two steps at once, and a stop returns 1 for a callback that runs. Only the exclusive lock makes a stop "
            "certain. And two callouts under one shared lock overlap as soon as they run on two CPUs. So the third "
            "rule has them all on CPU 0, and r277213 removed the flag at last."
        ),
        sources=(MAIL,),
        variants=(
            Variant(
                "stop-as-reader",
                "the old cancel flag, and a stop with the read lock held",
                stopped_under(shared=True),
                breaks="stop says 1, and the callback runs",
                preemptions=1,
            ),
            Variant(
                "stop-as-writer",
                "the old cancel flag, and a stop with the write lock held",
                stopped_under(shared=False),
            ),
            on_engine(
                "reader-relies",
                "a reader relies on it that the callback does not run",
                held(writes=False),
                breaks="the callback runs while its lock is held",
                preemptions=1,
            ),
            on_engine("writer-relies", "a writer does", held(writes=True)),
            on_engine(
                "no-lock-on-two-cpus",
                "two callouts without a lock on two CPUs: so would shared ones be",
                two_readers(lock=False),
                breaks="two callbacks at once",
                preemptions=1,
                cpus=2,
            ),
            on_engine(
                "shared-on-cpu-0",
                "two callouts under a shared lock, armed for two CPUs",
                two_readers(lock=True),
                cpus=2,
            ),
        ),
    ),
)
