"""The timer races of Linux 2.3.99 (May 2000) and 2.6.0-test7 (October 2003): none is possible on this engine.

Sources, on linux-kernel: Ingo Molnar, 11 October 2003, and Andrea Arcangeli's reply of 16 October; Gustafson, 10 May
2004; Oleg Nesterov, 1 June 2005, whose change of 2.6.13 has lasted; Andrew Morton and Andrey Savochkin, May 2000. In
those kernels each was a schedule that broke; here each is a scenario of which every schedule, with three preemptions
where the race needs three, is fine. The planted bugs that bring them back are in ``test_linux_timers.py`` and at the
end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from callout import LockHeldError, Mtx, UseAfterFree
from callout._core import arm as engine
from callout._core import runs
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP
from callout_linux import v2_3
from callout_linux._base import TimerBase
from callout_linux.timer import (
    add_timer,
    add_timer_global,
    add_timer_local,
    add_timer_on,
    destroy_all_blocking,
    jiffies,
    mod_timer,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_reduce,
    timer_setup,
    try_to_del_timer_sync,
)
from tests.race.linux_history import undisturbed
from tests.race.mutants import planted

Scenario = Callable[[VirtualSMP], None]


class Driver:
    """A driver whose timer may re-arm itself; what it has may be thrown away when it is off."""

    def __init__(self, vm: VirtualSMP, again: int = 0, cpu: int | None = None) -> None:
        """*again*: how often the function re-arms itself. *cpu*: with add_timer_on() there."""
        self.vm = vm
        self.again = again
        self.cpu = cpu
        self.running = 0
        self.gone = False
        self.timer = timer_list()
        with undisturbed(vm):
            timer_setup(self.timer, self.poll, 0)
            mod_timer(self.timer, jiffies + 1)

    def poll(self, timer: timer_list) -> None:
        """Be the timer's function."""
        assert not self.gone, "it runs after the driver has gone"
        self.running += 1
        assert self.running == 1, "it runs twice at once"
        if self.again:
            self.again -= 1
            if self.cpu is None:
                mod_timer(timer, jiffies + 1)
            else:
                timer.expires = jiffies + 1
                add_timer_on(timer, self.cpu)
        self.vm.platform.point()
        assert not self.gone, "it still runs, and the driver has gone"
        self.running -= 1

    def unload(self) -> None:
        """Delete the timer and throw everything away."""
        timer_delete_sync_blocking(self.timer)
        assert not self.running
        assert not timer_pending(self.timer)
        self.gone = True


def r01(vm: VirtualSMP) -> None:
    """One delete against one run."""
    driver = Driver(vm)
    vm.spawn(driver.unload, bound=1)
    vm.settle()


def r02(vm: VirtualSMP) -> None:
    """One delete against a function that re-arms itself and moves."""
    driver = Driver(vm, again=1, cpu=1)
    vm.spawn(driver.unload, bound=1)
    vm.settle()


def r04(vm: VirtualSMP) -> None:
    """Other code re-arms a timer that runs, from another CPU, and then deletes it."""
    driver = Driver(vm)

    def rearm_and_unload() -> None:
        mod_timer(driver.timer, jiffies + 1)
        driver.unload()

    vm.spawn(rearm_and_unload, bound=1)
    vm.settle()


@pytest.mark.parametrize(
    ("scenario", "bound", "least"),
    [(r01, 2, 23), (r02, 2, 454), (r04, 1, 38)],
    ids=["running, and nobody knows", "re-armed and moved", "re-armed by others"],
)
def test_a_delete_that_waits_returns_only_when_nothing_runs_or_is_pending(
    scenario: Scenario, bound: int, least: int
) -> None:
    """After timer_delete_sync() the function neither runs nor will, wherever the timer was
    re-armed.
    """
    certificate = explore(scenario, bound=bound)

    assert certificate.exhausted
    assert certificate.schedules >= least


def test_a_function_may_free_its_own_timer() -> None:
    """The engine uses nothing of a timer that its own function has freed, in no schedule and on no CPU."""

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[timer_list] = Slab("timers")
        with undisturbed(vm):
            for cpu in (0, 1):
                timer = slab.alloc(timer_list)
                timer_setup(timer, slab.free, 0)
                timer.expires = jiffies + 1
                add_timer_on(timer, cpu)
        vm.settle()
        assert slab.freed == 2

    certificate = explore(scenario, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 9


STARTS: Final[dict[str, tuple[type[TimerBase], Callable[[Any], object]]]] = {  # Any: a timer of either age
    "add_timer": (timer_list, add_timer),
    "add_timer_local": (timer_list, add_timer_local),
    "add_timer_global": (timer_list, add_timer_global),
    "add_timer_on": (timer_list, lambda timer: add_timer_on(timer, 1)),
    "mod_timer": (timer_list, lambda timer: mod_timer(timer, 7)),
    "timer_reduce": (timer_list, lambda timer: timer_reduce(timer, 7)),
    "v2_3.add_timer": (v2_3.timer_list, v2_3.add_timer),
    "v2_3.mod_timer": (v2_3.timer_list, lambda timer: v2_3.mod_timer(timer, 7)),
}


@pytest.mark.parametrize("start", STARTS)
def test_who_starts_a_timer_does_not_touch_it_after_that(start: str) -> None:
    """The function may have run and freed the timer, on another CPU, before the call that has started it returns."""
    kind, call = STARTS[start]

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[TimerBase] = Slab("timers")
        with undisturbed(vm):
            timer = slab.alloc(kind)
            if isinstance(timer, v2_3.timer_list):
                v2_3.init_timer(timer)
                timer.function, timer.data = slab.free, timer
            else:
                assert isinstance(timer, timer_list)
                timer_setup(timer, slab.free, 0)
            timer.expires = 5
            vm.spawn(call, timer)
        vm.settle()
        assert slab.freed == 1

    certificate = explore(scenario, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 3


def test_only_the_owner_may_wait_for_a_timer() -> None:
    """If the function frees its timer, a delete of that timer from outside uses freed memory, and the search
    says so.
    """

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[timer_list] = Slab("timers")
        with undisturbed(vm):
            timer = slab.alloc(timer_list)
            timer_setup(timer, slab.free, 0)
            mod_timer(timer, jiffies + 1)
            vm.spawn(timer_delete_sync_blocking, timer)
        vm.settle()

    with pytest.raises(Violation) as caught:
        explore(scenario, bound=1)
    assert isinstance(caught.value.__cause__, UseAfterFree)


def test_running_and_pending_are_read_under_one_lock() -> None:
    """Try_to_del_timer_sync() never says that a timer does not run of which it then runs, nor leaves it half
    deleted.
    """

    def scenario(vm: VirtualSMP) -> None:
        driver = Driver(vm, again=1)

        def unload() -> None:
            if try_to_del_timer_sync(driver.timer) >= 0:
                driver.gone = True

        vm.spawn(unload, bound=1)
        vm.settle()

    certificate = explore(scenario, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 173


# -- 2.3.99 ----------------------------------------------------------------------------------------------------------


class Module:
    """A module of the year 2000, whose code may be thrown away when its timer is off."""

    def __init__(self, vm: VirtualSMP, *, exits: bool, lock: Mtx | None = None) -> None:
        self.vm = vm
        self.exits = exits
        self.in_use = False
        self.unloaded = False
        self.stopping = False
        self.again = 2
        self.lock = lock
        self.timer = v2_3.timer_list()
        with undisturbed(vm):
            v2_3.init_timer(self.timer)
            self.timer.function = self.function
            self.timer.data = 5
            self.timer.expires = jiffies + 1
            v2_3.add_timer(self.timer)

    def function(self, data: int) -> None:
        """Be the timer's function."""
        assert data == 5
        assert not self.unloaded
        self.in_use = True
        if self.lock is not None:
            with self.lock:
                if not self.stopping and self.again:
                    self.again -= 1
                    v2_3.mod_timer(self.timer, jiffies + 1)
        if self.exits:
            v2_3.timer_exit(self.timer)
        self.vm.platform.point()
        assert not self.unloaded, "its code was thrown away under it"
        self.in_use = False

    def unload(self) -> None:
        """Throw the code away."""
        assert not self.in_use
        self.unloaded = True


@pytest.mark.parametrize("exits", [False, True])
def test_the_engine_knows_when_a_function_has_returned(exits: bool) -> None:
    """Del_timer_sync() comes back without timer_exit(), and never before the function has returned."""

    def scenario(vm: VirtualSMP) -> None:
        module = Module(vm, exits=exits)

        def unload() -> None:
            v2_3.del_timer_sync_blocking(module.timer)
            module.unload()

        vm.spawn(unload, bound=1)
        vm.settle()
        assert module.unloaded

    assert explore(scenario, bound=2).exhausted


def test_a_third_party_may_delete_what_the_function_has_added_again() -> None:
    """Of one re-arming that two delete at once, one deletes it, and the lists stay whole."""

    def scenario(vm: VirtualSMP) -> None:
        timer = v2_3.timer_list()
        added = 1
        deleted: list[int] = []
        ran: list[int] = []

        def function(data: int) -> None:
            nonlocal added
            ran.append(data)
            if len(ran) == 1:
                added += 1
                timer.expires = jiffies + 1
                v2_3.add_timer(timer)

        with undisturbed(vm):
            v2_3.init_timer(timer)
            timer.function = function
            timer.expires = jiffies + 1
            v2_3.add_timer(timer)
            vm.spawn(lambda: deleted.append(v2_3.del_timer_sync_blocking(timer)), name="first")
            vm.spawn(lambda: deleted.append(v2_3.del_timer(timer)), name="second", bound=1)
        vm.settle()

        assert len(ran) + sum(deleted) == added

    certificate = explore(scenario, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 389


def test_waiting_with_a_lock_held_that_the_function_takes_is_refused() -> None:
    """Where the kernel of 2000 deadlocked, del_timer_sync() with a lock held is an error, and nothing has
    changed.
    """

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("dev")
        module = Module(vm, exits=False, lock=lock)

        def stop() -> None:
            with lock:
                module.stopping = True
                pending = v2_3.timer_pending(module.timer)
                with pytest.raises(LockHeldError, match="dev"):
                    v2_3.del_timer_sync_blocking(module.timer)
                assert v2_3.timer_pending(module.timer) <= pending

        vm.spawn(stop, bound=1)
        vm.settle()

    assert explore(scenario, bound=1).exhausted


def test_del_timer_and_wait_on_timers_are_del_timer_sync_if_the_flag_is_read_under_the_lock() -> None:
    """Set the don't-re-add flag under the lock, del_timer(), wait_on_timers(): then nothing runs or will."""

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("dev")
        module = Module(vm, exits=False, lock=lock)

        def stop() -> None:
            with lock:
                module.stopping = True
            v2_3.del_timer(module.timer)
            v2_3.wait_on_timers_blocking()
            assert not v2_3.timer_pending(module.timer)
            module.unload()

        vm.spawn(stop, bound=1)
        vm.settle()

    certificate = explore(scenario, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 69


# -- destroying a collection ------------------------------------------------------------------------------------------


class Element:
    """An element of a list that takes itself out of it, and frees itself, when its timer falls due."""

    def __init__(self, guide: Guide, *, armed: bool) -> None:
        self.guide = guide
        self.freed = 0
        self.timer = timer_list()
        timer_setup(self.timer, self.expire, 0)
        if armed:
            mod_timer(self.timer, jiffies + 1)

    def expire(self, timer: timer_list) -> None:
        """Be the timer's function, as the Guide has it."""
        with self.guide.lock:
            assert not self.freed, "its function runs on freed memory"
            self.guide.elements.remove(self)
        self.free()

    def free(self) -> None:
        """Free it."""
        self.freed += 1
        assert self.freed == 1, "freed twice"


class Guide:
    """The Guide's list and its lock."""

    def __init__(self, vm: VirtualSMP, armed: int, unarmed: int = 0) -> None:
        self.vm = vm
        self.lock = Mtx("list")
        with undisturbed(vm):
            self.elements = [Element(self, armed=True) for _ in range(armed)]
            self.elements += [Element(self, armed=False) for _ in range(unarmed)]
        self.all = list(self.elements)

    def verify(self) -> None:
        """Every element is freed, once, and nothing runs any more."""
        self.vm.settle()
        assert self.elements == []
        assert [element.freed for element in self.all] == [1] * len(self.all)


def wrong(guide: Guide) -> None:
    """Destroy all, the Guide's first program: delete the timer and free."""
    with guide.lock:
        for element in guide.elements:
            try_to_del_timer_sync(element.timer)
            element.free()
        guide.elements.clear()


def right(guide: Guide) -> None:
    """Destroy all, the Guide's second program: an element that runs destroys itself; release the lock and start
    over.
    """
    for _ in range(10):
        with guide.lock:
            for element in list(guide.elements):
                if not v2_del(element):
                    break  # it is being handled
                guide.elements.remove(element)
                element.free()
            else:
                return
        v2_3.wait_on_timers_blocking()  # in place of spinning
    raise AssertionError("it retries for ever")


def v2_del(element: Element) -> int:
    """Delete the timer of an element, with the one-bit result of those days."""
    return int(try_to_del_timer_sync(element.timer) == 1)


def test_the_guides_wrong_program_frees_twice() -> None:
    """The first program frees an element whose function waits for the lock, and the search finds it."""

    def scenario(vm: VirtualSMP) -> None:
        guide = Guide(vm, armed=1)
        vm.spawn(wrong, guide)
        guide.verify()

    with pytest.raises(Violation) as caught:
        explore(scenario, bound=1)
    assert isinstance(caught.value.__cause__, AssertionError | ValueError)


def test_the_guides_right_program_is_right() -> None:
    """The second program frees every element once, if each was armed."""

    def scenario(vm: VirtualSMP) -> None:
        guide = Guide(vm, armed=2)
        vm.spawn(right, guide, bound=1)
        guide.verify()

    assert explore(scenario, bound=1).exhausted


def test_the_guides_right_program_never_ends_with_a_timer_that_was_never_armed() -> None:
    """To the second program an element whose timer was never armed looks like one that is being handled."""

    def scenario(vm: VirtualSMP) -> None:
        guide = Guide(vm, armed=0, unarmed=1)
        vm.spawn(right, guide)
        guide.verify()

    with pytest.raises(Violation) as caught:
        explore(scenario, bound=0)
    assert "retries for ever" in str(caught.value.__cause__)


@pytest.mark.parametrize(("armed", "unarmed", "bound"), [(1, 1, 2), (2, 1, 1)])
def test_destroy_all_frees_each_element_once(armed: int, unarmed: int, bound: int) -> None:
    """destroy_all() frees every element once, armed or not, running or not, and has no retry."""

    def scenario(vm: VirtualSMP) -> None:
        guide = Guide(vm, armed=armed, unarmed=unarmed)

        def destroy() -> None:
            destroy_all_blocking(guide.elements, guide.lock, Element.free)
            assert guide.elements == []
            assert [element.freed for element in guide.all] == [1] * len(guide.all)

        vm.spawn(destroy, bound=1)
        guide.verify()

    certificate = explore(scenario, bound=bound)

    assert certificate.exhausted
    assert certificate.schedules >= 31


# -- planted bugs
# -------------------------------------------------------------------------------------------------------

SET: Final = "c.run = lane.run = run"
REOPEN: Final = "cpu.busy = False; cpu.lock.release(); acquire(cpu); "
DEFER: Final = "if (state & MOVING or to is not cpu) and not how & STAY:"
STAYS: Final = "        to = cpu\n"


@pytest.mark.parametrize(
    ("scenario", "function", "changes"),
    [
        (
            r01,
            runs._begin,
            ((SET, REOPEN + SET),),
        ),
        (r02, engine._arm_locked, ((STAYS, "        pass\n"), (DEFER, "if False:"))),
    ],
    ids=["pending off before running on", "moved while it runs"],
)
def test_the_old_kernels_are_broken(
    scenario: Scenario, function: Callable[..., object], changes: tuple[tuple[str, str], ...]
) -> None:
    """With the old kernel's order of steps, or its moving of a timer that runs, the search finds the race of its
    time.
    """
    with planted(function, *changes), pytest.raises(Violation):
        explore(scenario, bound=2, schedules=50_000)
