"""Callouts under a shared lock: what keeps the callback out, and what may overlap.

The third of Hans Petter Selasky's three rules: a callback under a shared lock runs on CPU 0 only. Only the exclusive
lock keeps it out.

Invariants: a stop that returns 1 is true; what holds the exclusive lock is alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .. import CALLOUT_SHAREDLOCK, Callout, RwLock, callout_init_rw, callout_reset, callout_reset_on, curcpu
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario, on_engine


class SharedLock:
    """A lock for any number of readers or one writer, in a cell."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.readers = vm.cell(0, "rwlock")  # how many readers; -1: a writer

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold it for reading."""
        while self.readers.update(lambda n: n if n < 0 else n + 1) < 0:
            self.vm.wait_until(lambda: self.readers.value >= 0, "the writer")
        yield
        self.readers.update(lambda n: n - 1)

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold it for writing."""
        while self.readers.update(lambda n: n or -1) != 0:
            self.vm.wait_until(lambda: self.readers.value == 0, "the readers")
        yield
        self.readers.update(lambda _: 0)


def stopped_under(*, shared: bool) -> Scenario:
    """Return the model of an engine that relies on the callout's lock for its cancel flag.

    Softclock looks at the flag and sets it ("cannot be stopped now") with the callout's lock held, for reading. So does
    a stop, with the lock held for reading (*shared*) or for writing.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            rw = SharedLock(vm)
            cc_lock = vm.lock("cc")
            cc = vm.struct("cc", queued=True, current=False, cancel=False)
            stopped = vm.cell(False, "stopped")
            ran = vm.cell(False, "ran")

        def softclock() -> None:
            with cc_lock:
                if not cc.queued:
                    return
                cc.queued = False
                cc.current = True
            with rw.read():
                if not cc.cancel:
                    cc.cancel = True
                    ran.value = True
            with cc_lock:
                cc.current = False

        def stop() -> bool:
            with cc_lock:
                if cc.queued:
                    cc.queued = False
                    return True
                if cc.current and not cc.cancel:
                    cc.cancel = True
                    return True
            return False

        def stopper() -> None:
            with rw.read() if shared else rw.write():
                stopped.value = stop()
                if not shared:
                    assert stopped.value or ran.value, "stop does not say 1, and the callback has not run"

        vm.spawn(softclock)
        vm.spawn(stopper)
        vm.settle()
        assert not (stopped.value and ran.value), "stop says 1, and the callback runs"

    return scenario


def shared_on(cpus: tuple[int, int]) -> Scenario:
    """Return the model of two callouts under one shared lock, which the softclocks of these CPUs run, and a writer."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            rw = SharedLock(vm)
            inside = vm.cell(0, "callbacks that run")
            ran = vm.cell(0, "callbacks that have run")

        def softclock(cpu: int) -> None:
            for _ in range(cpus.count(cpu)):
                with rw.read():
                    inside.value += 1
                    assert inside.value == 1, "two callbacks at once"
                    ran.value += 1
                    inside.value -= 1

        def writer() -> None:
            with rw.write():
                assert inside.value == 0, "a callback runs while its lock is held for writing"

        vm.spawn(softclock, 0, name="softclock of CPU 0")
        vm.spawn(softclock, 1, name="softclock of CPU 1")
        vm.spawn(writer)
        vm.settle()
        assert ran.value == 2, "a callback has not run"

    return scenario


def held(*, writes: bool) -> Scenario:
    """Return the scenario of a thread that holds the lock of a shared-lock callout, and relies on its silence."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("table")
        c = Callout()
        inside = False
        runs = 0

        def callback(_: None) -> None:
            nonlocal inside, runs
            runs += 1
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
        vm.settle()
        assert runs == 1, "the callback has not run"

    return scenario


def shared_on_the_engine(vm: VirtualSMP) -> None:
    """Arm two callouts under one shared lock for two CPUs, while a reader holds the lock."""
    rw = RwLock("table")
    inside = 0
    ran: list[int] = []

    def callback(_: None) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1, "two callbacks at once"
        vm.point()
        ran.append(curcpu())
        inside -= 1

    with vm.setup():
        for cpu in (0, 1):
            c = Callout()
            callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
            callout_reset_on(c, 1, callback, None, cpu)

    def reader() -> None:
        with rw.read():
            vm.point()

    vm.spawn(reader)
    vm.settle()
    assert ran == [0, 0], "the two callbacks have not run on CPU 0"


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
            Variant(
                "shared-on-two-cpus",
                "callouts under one shared lock run on the CPUs that they were armed for",
                shared_on((0, 1)),
                breaks="two callbacks at once",
                preemptions=1,
            ),
            Variant("shared-on-cpu-0", "they run on CPU 0", shared_on((0, 0))),
            on_engine("shared-on-this-engine", "the same on the engine", shared_on_the_engine, cpus=2),
        ),
    ),
)
