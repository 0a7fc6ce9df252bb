"""Locks explored: they exclude, nobody's wake-up is lost, and softclock parks at them instead of stopping its CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Final

import pytest

from callout import (
    CALLOUT_SHAREDLOCK,
    Callout,
    LockDestroyedError,
    LockError,
    Mtx,
    RwLock,
    UseAfterFree,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_reset,
    mtx_destroy,
    mtx_lock,
    mtx_trylock,
    mtx_unlock,
)
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP
from tests.race import mutants
from tests.race.history import undisturbed
from tests.race.mutants import Mutant

Scenario = Callable[[VirtualSMP], None]


class Inside:
    """Who is inside what a lock guards; two writers, or a writer and a reader, must never be."""

    def __init__(self, vm: VirtualSMP) -> None:
        self._vm = vm
        self._readers = 0
        self._writers = 0
        self.visits = 0

    def write(self, _: object = None) -> None:
        """Be inside, alone."""
        assert (self._readers, self._writers) == (0, 0), "a writer is not alone"
        self._writers += 1
        self._vm.platform.point()
        self._writers -= 1
        self.visits += 1

    def read(self, _: object = None) -> None:
        """Be inside, with other readers."""
        assert self._writers == 0, "a reader beside a writer"
        self._readers += 1
        self._vm.platform.point()
        self._readers -= 1
        self.visits += 1


def mutex(vm: VirtualSMP) -> None:
    """Two threads and a callout want a mutex; another callout of the CPU runs meanwhile."""
    inside = Inside(vm)
    c = Callout()

    def thread() -> None:
        with mtx:
            inside.write()

    with undisturbed(vm):
        mtx = Mtx("m")
        callout_init_mtx(c, mtx)
        callout_reset(c, 1, inside.write, None)
        vm.spawn(thread)
    thread()
    vm.settle()

    assert inside.visits == 3


def read_write(vm: VirtualSMP) -> None:
    """A reader, a writer and a callout that writes want a read/write lock."""
    inside = Inside(vm)
    c = Callout()

    def reader() -> None:
        with rw.read():
            inside.read()

    with undisturbed(vm):
        rw = RwLock("rw")
        callout_init_rw(c, rw)
        callout_reset(c, 1, inside.write, None)
        vm.spawn(reader)
    with rw:
        inside.write()
    vm.settle()

    assert inside.visits == 3


def shared(vm: VirtualSMP) -> None:
    """Two writers and a callout that reads want a read/write lock."""
    inside = Inside(vm)
    c = Callout()

    def writer() -> None:
        with rw:
            inside.write()

    with undisturbed(vm):
        rw = RwLock("rw")
        callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
        callout_reset(c, 1, inside.read, None)
        vm.spawn(writer)
    writer()
    vm.settle()

    assert inside.visits == 3


def upgrade(vm: VirtualSMP) -> None:
    """A reader tries to become the writer, and a writer to become a reader, while another thread reads."""
    inside = Inside(vm)

    def reader() -> None:
        with rw.read():
            inside.read()

    def up_and_down() -> None:
        rw.rlock()
        if rw.try_upgrade():
            inside.write()
            rw.downgrade()
        inside.read()
        rw.unlock()

    with undisturbed(vm):
        rw = RwLock("rw")
        vm.spawn(reader)
    up_and_down()
    with rw:
        inside.write()
    vm.settle()

    assert inside.visits in (3, 4)


def parked_beside_another(vm: VirtualSMP) -> None:
    """While softclock stands at a lock that is held, its CPU's loop serves others: here a call from another CPU."""
    c, other = Callout(), Callout()
    order: list[str] = []
    with undisturbed(vm):
        mtx = Mtx("m")
        callout_init_mtx(c, mtx)
        callout_init(other, 1)
    with mtx:
        callout_reset(c, 1, order.append, "callout")
        vm.settle()  # softclock stands at the mutex now, and the loop has nothing else to do
        vm.call(0, order.append, "call")
        vm.settle()
        order.append("released")
    vm.settle()

    assert order == ["call", "released", "callout"]


def downgrade_and_keep(vm: VirtualSMP) -> None:
    """A reader waits while a writer becomes a reader and stays one until the other has come in."""
    entered: list[bool] = []

    def reader() -> None:
        with rw.read():
            entered.append(True)

    with undisturbed(vm):
        rw = RwLock("rw")
        vm.spawn(reader)
    rw.wlock()
    rw.downgrade()
    vm.settle()

    assert entered == [True]
    rw.runlock()


def readers_together(vm: VirtualSMP) -> None:
    """Two readers wait for a writer; then the first of them keeps the lock until nobody else can move."""
    entered: list[bool] = []

    def reader() -> None:
        with rw.read():
            entered.append(True)
            if len(entered) == 1:
                vm.settle()
                assert len(entered) == 2, "a reader keeps another one out"

    with undisturbed(vm):
        rw = RwLock("rw")
        rw.wlock()
        vm.spawn(reader, name="r1")
        vm.spawn(reader, name="r2")
    vm.platform.point()
    rw.wunlock()


SCENARIOS: Final[list[tuple[Scenario, int, int]]] = [
    (mutex, 2, 150),
    (read_write, 2, 392),
    (shared, 2, 392),
    (upgrade, 2, 94),
    (parked_beside_another, 2, 5),
    (downgrade_and_keep, 3, 31),
    (readers_together, 2, 212),
]


def plain(vm: VirtualSMP) -> None:
    """Change nothing."""


def makes_lots(vm: VirtualSMP) -> None:
    """Have the parking lot of a lock made when somebody parks there, as on real loops."""
    vm.platform.lots_at_once = False


def unchecked(vm: VirtualSMP) -> None:
    """Have no checking mode, in which a mutex is released in a longer way."""
    vm.machine.held = vm.machine.witness = vm.machine.origins = None


def on(how: Callable[[VirtualSMP], None], scenario: Scenario) -> Scenario:
    """Return the scenario, begun in this way."""

    @wraps(scenario)
    def run(vm: VirtualSMP) -> None:
        how(vm)
        scenario(vm)

    return run


@pytest.mark.parametrize("how", [plain, makes_lots, unchecked])
@pytest.mark.parametrize(("scenario", "bound", "at_least"), SCENARIOS)
def test_locks_exclude_and_lose_no_wake_up(
    scenario: Scenario, bound: int, at_least: int, how: Callable[[VirtualSMP], None]
) -> None:
    """In no schedule are two inside who must not be, and everybody gets in."""
    certificate = explore(on(how, scenario), bound=bound)

    assert certificate.exhausted
    assert certificate.schedules >= at_least


DOWNGRADE_WAKES_NOBODY: Final = Mutant(
    "turning the write lock into a read lock wakes nobody",
    RwLock.downgrade,
    "wake_all(self.parked)",
    "pass",
)


@pytest.mark.parametrize(
    ("mutant", "scenario"),
    [
        (mutants.WOKEN_BEFORE_FREE, mutex),
        (mutants.NO_SECOND_TRY, mutex),
        (mutants.NO_SECOND_TRY, read_write),
        (mutants.WAKES_ONE, readers_together),
        (mutants.TWO_LOTS, on(makes_lots, readers_together)),
        (mutants.WOKEN_BEFORE_FREE_UNCHECKED, on(unchecked, mutex)),
        (DOWNGRADE_WAKES_NOBODY, downgrade_and_keep),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_lost_wake_up_is_found(mutant: Mutant, scenario: Scenario) -> None:
    """Waking too early, too few or nobody, and parking without a second try, leave somebody waiting for ever."""
    with mutant.planted(), pytest.raises(Violation, match="went wrong"):
        explore(scenario, bound=2)
    assert explore(scenario, bound=1).exhausted


class Thing:
    """What has a mutex, and is freed with it."""

    def __init__(self, mtx: Mtx) -> None:
        self.mtx = mtx


def free(mtx: Mtx) -> None:
    """Free the memory of a mutex."""
    slab: Slab[Thing] = Slab("things")
    slab.free(slab.alloc(Thing, mtx))


def given_up(vm: VirtualSMP, end: Callable[[Mtx], object], *, tries: bool) -> None:
    """The owner of a mutex ends it while two other threads acquire it, or try to."""
    inside, ended, left = Inside(vm), list[bool](), list[bool]()

    def thread() -> None:
        before = bool(ended)
        try:
            acquired = mtx_trylock(mtx) if tries else mtx.__enter__()
        except (LockDestroyedError, UseAfterFree):
            acquired = False
        if acquired:
            assert not before, "acquired after its end"
            assert not ended, "acquired while it came to its end"
            inside.write()
            mtx_unlock(mtx)
        left.append(True)

    with undisturbed(vm):
        mtx = Mtx("m")
        vm.spawn(thread, name="t1")
        vm.spawn(thread, name="t2")
    mtx_lock(mtx)
    vm.platform.point()
    with suppress(LockError):  # to destroy it is to release it first, and then another thread may have it
        end(mtx)
        ended.append(True)
    vm.settle()

    assert left == [True, True], "somebody waits for what has come to its end"

    with suppress(UseAfterFree, LockError):
        mtx_unlock(mtx)
    assert vm.machine.faults is not None
    vm.machine.faults.clear()  # that a freed lock was used is wanted here


@pytest.mark.parametrize("tries", [False, True])
@pytest.mark.parametrize("end", [mtx_destroy, free])
def test_nobody_acquires_a_mutex_that_was_ended(end: Callable[[Mtx], object], tries: bool) -> None:
    """A thread that stands at a mutex when its owner destroys or frees it is refused, and does not wait for ever."""
    certificate = explore(partial(given_up, end=end, tries=tries), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 60
