"""Races that programs have, not the engine: each wrong program is found out by a search, the right one is exhausted.

They come from two kernels: the chapter "Racing Timers" of the Unreliable Guide to Locking (Rusty Russell); FreeBSD's
TCP timer, whose callback once released its lock and acquired it again, until CALLOUT_TRYLOCK made that unnecessary
(commit bffebc336f4e of 2024, review D45747), and the rules for callouts under a shared lock and in the clock interrupt
(r277213 of January 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_SHAREDLOCK,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    DeadlockError,
    LivelockError,
    LockNotHeldError,
    LoopThreadError,
    Mtx,
    RwLock,
    callout_drain,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
    curcpu,
)
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from callout_linux.timer import (
    destroy_all_blocking,
    jiffies,
    mod_timer,
    timer_delete,
    timer_delete_sync_blocking,
    timer_list,
    timer_setup,
    try_to_del_timer_sync,
)
from tests.race.linux_history import undisturbed

Scenario = Callable[[VirtualSMP], None]


# -- a retry that spins ----------------------------------------------------------------------------------------------


class Element:
    """An element of a list that takes itself out of it, and frees itself, when its timer falls due."""

    def __init__(self, elements: list[Element], lock: Mtx) -> None:
        self.elements = elements
        self.lock = lock
        self.freed = 0
        self.timer = timer_list()
        timer_setup(self.timer, self.expire, 0)
        mod_timer(self.timer, jiffies + 1)

    def expire(self, _: timer_list) -> None:
        """Be the timer's function."""
        with self.lock:
            self.elements.remove(self)
        self.free()

    def free(self) -> None:
        """Give it back."""
        self.freed += 1
        assert self.freed == 1, "freed twice"


def spin(elements: list[Element], lock: Mtx) -> None:
    """Destroy all, as the Guide has it: an element whose function runs is left to it, and all is tried again."""
    while True:
        with lock:
            for element in list(elements):
                if try_to_del_timer_sync(element.timer) != 1:
                    break
                elements.remove(element)
                element.free()
            else:
                return


def wait(elements: list[Element], lock: Mtx) -> None:
    """Destroy all, and wait for what runs."""
    destroy_all_blocking(elements, lock, Element.free)


def emptied(destroy: Callable[[list[Element], Mtx], None]) -> Scenario:
    """Return the scenario in which one armed element is destroyed."""

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("list")
        elements: list[Element] = []
        with undisturbed(vm):
            elements.append(Element(elements, lock))
            (element,) = elements
            vm.spawn(destroy, elements, lock)
        vm.settle()
        assert element.freed == 1
        assert elements == []

    return scenario


def test_a_retry_that_spins_depends_on_a_fair_scheduler() -> None:
    """The Guide's retry is right, and yet never ends if nobody else gets a turn: it has to wait, not to spin."""
    with pytest.raises(Violation) as caught:
        explore(emptied(spin), bound=1, shrink=False)

    assert isinstance(caught.value.__cause__, LivelockError)


def test_a_retry_that_waits_does_not() -> None:
    """destroy_all() ends in every schedule, fair or not."""
    certificate = explore(emptied(wait), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 69


# -- a function that re-arms -----------------------------------------------------------------------------------------


def deleted_by(delete: Callable[[timer_list], object]) -> Scenario:
    """Return the scenario in which a timer that re-arms itself is deleted, and then freed."""

    def scenario(vm: VirtualSMP) -> None:
        timer = timer_list()
        freed: list[bool] = []
        runs: list[int] = []

        def function(t: timer_list) -> None:
            assert not freed, "its function runs on freed memory"
            runs.append(t.expires)
            vm.platform.point()
            if len(runs) < 3:
                mod_timer(t, jiffies + 1)
            assert not freed, "it was freed while its function ran"

        def destroy() -> None:
            delete(timer)
            freed.append(True)

        with undisturbed(vm):
            timer_setup(timer, function, 0)
            mod_timer(timer, jiffies + 1)
            vm.spawn(destroy, bound=1)
        vm.settle()

    return scenario


def test_a_delete_that_does_not_wait_is_undone_by_the_function() -> None:
    """del_timer() of a timer whose function has begun deletes nothing, and the function adds it again."""
    with pytest.raises(Violation) as caught:
        explore(deleted_by(timer_delete), bound=1)

    assert "freed" in str(caught.value.__cause__)


def test_a_delete_that_waits_deletes_what_the_function_has_added() -> None:
    """After del_timer_sync() the timer is idle, however often its function re-arms it, if nobody else does."""
    certificate = explore(deleted_by(timer_delete_sync_blocking), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 145


# -- two that close, and a callback that drops the lock --------------------------------------------------------------


class Connection:
    """A connection with one timer under its lock, which two want to close at the same time: a packet and the user."""

    def __init__(self, vm: VirtualSMP, *, keeps: bool) -> None:
        """*keeps*: the callback keeps the lock. Else it drops it, and takes it again."""
        self.vm = vm
        self.keeps = keeps
        self.lock = Mtx("pcb")
        self.closed = False
        self.freed = 0
        self.timer = Callout()
        with undisturbed(vm):
            callout_init_mtx(self.timer, self.lock, 0)
            callout_reset(self.timer, 1, Connection.expire, self)

    def expire(self) -> None:
        """Be the callback."""
        assert not self.freed, "the timer of a freed connection"
        if not self.keeps:
            self.lock.unlock()  # to enter something that must be entered without the lock
            self.vm.platform.point()
            self.lock.lock()
        # What follows looks at the connection again, and finds it closed or not.

    def close(self) -> None:
        """Be one of the two."""
        with self.lock:
            if self.closed:
                return
            # With a callback that keeps the lock, 0 says that it has returned a moment ago: what would run has the
            # lock.
            if callout_stop(self.timer) == 0 and not self.keeps:
                # It is between its two acquisitions: let it through. But the other one that closes comes first.
                self.lock.unlock()
                self.vm.platform.point()
                self.lock.lock()
            self.closed = True
            self.freed += 1
            assert self.freed == 1, "both have closed it"


def closed_by_two(*, keeps: bool) -> Scenario:
    """Return the scenario of three threads: the timer, and two that close."""

    def scenario(vm: VirtualSMP) -> None:
        connection = Connection(vm, keeps=keeps)
        with undisturbed(vm):
            vm.spawn(connection.close, name="packet")
            vm.spawn(connection.close, name="user", bound=1)
        vm.settle()
        assert connection.freed == 1

    return scenario


def test_a_lock_that_is_yielded_to_the_callback_goes_to_the_other_one_that_closes() -> None:
    """With a callback that drops its lock, two that close at the same time both do."""
    with pytest.raises(Violation) as caught:
        explore(closed_by_two(keeps=False), bound=2)

    assert "both have closed it" in str(caught.value.__cause__)


def test_with_a_callback_that_keeps_its_lock_one_closes() -> None:
    """A stop under the lock is certain then, nobody yields the lock, and exactly one closes."""
    certificate = explore(closed_by_two(keeps=True), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 360


# -- callbacks under a shared lock -----------------------------------------------------------------------------------


def under_a_shared_lock(*, writes: bool) -> Scenario:
    """Return the scenario in which somebody holds the lock of a shared-lock callout, and relies on its not running."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("table")
        c = Callout()
        inside: list[bool] = []

        def callback(_: None) -> None:
            inside.append(True)
            vm.platform.point()
            inside.pop()

        def hold() -> None:
            with rw if writes else rw.read():
                assert not inside, "the callback runs, and the lock is held"
                if writes:
                    callout_stop(c)
                else:
                    with pytest.raises(LockNotHeldError):
                        callout_stop(c)
                vm.platform.point()
                assert not inside, "the callback runs, and the lock is held"

        with undisturbed(vm):
            callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
            callout_reset(c, 1, callback, None)
            vm.spawn(hold)
        vm.settle()

    return scenario


def test_a_read_lock_does_not_keep_a_shared_callback_out() -> None:
    """A callback under a shared lock runs while another reader holds it, so no reader may stop it."""
    with pytest.raises(Violation) as caught:
        explore(under_a_shared_lock(writes=False), bound=2)

    assert "the lock is held" in str(caught.value.__cause__)


def test_the_write_lock_does() -> None:
    """With the write lock held the callback does not run, and a stop is certain."""
    certificate = explore(under_a_shared_lock(writes=True), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 38


def reader(rw: RwLock) -> None:
    """Hold the read lock, twice."""
    for _ in range(2):
        with rw.read():
            pass


def two_callbacks(*, shared: bool) -> Scenario:
    """Return the scenario in which two callouts are armed for two CPUs: under one shared lock, or under none."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("table")
        inside: list[int] = []

        def callback(_: None) -> None:
            inside.append(curcpu())
            assert len(inside) == 1, "two callbacks at once"
            vm.platform.point()
            inside.pop()

        with undisturbed(vm):
            for cpu in (0, 1):
                c = Callout()
                if shared:
                    callout_init_rw(c, rw, CALLOUT_SHAREDLOCK)
                else:
                    callout_init(c, 1)
                callout_reset_on(c, 1, callback, None, cpu)
            vm.spawn(reader, rw)
        vm.settle()

    return scenario


def test_callbacks_without_a_lock_run_on_two_cpus_at_once() -> None:
    """What no lock keeps apart overlaps, on two CPUs."""
    with pytest.raises(Violation) as caught:
        explore(two_callbacks(shared=False), bound=1)

    assert "two callbacks at once" in str(caught.value.__cause__)


def test_callbacks_under_one_shared_lock_do_not() -> None:
    """Those under a shared lock, which would not keep them apart, all run on CPU 0, one after the other."""
    certificate = explore(two_callbacks(shared=True), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 33


# -- waiting, on its own CPU, for what runs in the clock interrupt ---------------------------------------------------


class Ran:
    """Something that a thread can block for: that the callback has run."""

    label = "the direct callback"

    def __init__(self) -> None:
        self.done = False

    def ready(self) -> bool:
        """Whether it has."""
        return self.done


def on_its_own_cpu(*, blocks: bool, lock: bool) -> Scenario:
    """Return the scenario in which a task waits for a direct callout of its own CPU: blocking the loop, or draining."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        ran = Ran()
        running: list[bool] = []

        def callback(_: None) -> None:
            running.append(True)
            vm.platform.point()
            running.pop()
            ran.done = True

        async def task() -> None:
            callout_reset_sbt(c, SBT_1MS, 0, callback, None, C_DIRECT_EXEC)
            with pytest.raises(LoopThreadError):
                callout_drain_sync(c)
            if blocks:
                vm.platform.block(ran)
            await callout_drain(c)
            assert not running

        with undisturbed(vm):
            if lock:
                callout_init_mtx(c, Mtx("spin", MTX_SPIN))
            else:
                callout_init(c, 1)
            vm.spawn(lambda: vm.run(task), name="task", cpu=0)
            vm.spawn(callout_drain_sync, c, name="thread", bound=1)
        vm.settle()
        assert not running

    return scenario


LOCKS: Final = [False, True]


@pytest.mark.parametrize("lock", LOCKS, ids=["no lock", "spin mutex"])
def test_a_task_that_blocks_a_loop_for_its_own_interrupt_waits_for_ever(lock: bool) -> None:
    """Code that keeps its CPU while it waits for a direct callback of that CPU is a deadlock, and found as one."""
    with pytest.raises(Violation) as caught:
        explore(on_its_own_cpu(blocks=True, lock=lock), bound=1)

    assert isinstance(caught.value.__cause__, DeadlockError)


@pytest.mark.parametrize("lock", LOCKS, ids=["no lock", "spin mutex"])
def test_a_task_that_drains_yields_the_loop(lock: bool) -> None:
    """A drain of a direct callout on its own CPU ends in every schedule; the twin that would block is refused."""
    certificate = explore(on_its_own_cpu(blocks=False, lock=lock), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 34
