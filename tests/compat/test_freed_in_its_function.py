"""A function that frees its own timer and goes on: the engine uses what it kept of the run, never the freed timer."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio

from callout import Callout, Mtx, callout_barrier_all_sync, callout_init, callout_reset, open_callouts
from callout.explore import explore
from callout.testing import Slab, VirtualSMP
from callout_linux import v2_3
from callout_linux.timer import (
    destroy_all_blocking,
    jiffies,
    mod_timer,
    timer_list,
    timer_setup,
)
from tests.race.linux_history import undisturbed

Scenario = Callable[[VirtualSMP], None]


class Session:
    """Something with a callout that frees it."""

    def __init__(self) -> None:
        self.timer = Callout()
        callout_init(self.timer, 1)


def old_timers(vm: VirtualSMP) -> None:
    """wait_on_timers() while a function of the API of 2000 runs that has freed its timer."""
    slab: Slab[v2_3.timer_list] = Slab("timers")

    def function(timer: v2_3.timer_list) -> None:
        slab.free(timer)
        del timer
        vm.platform.point()

    with undisturbed(vm):
        timer = slab.alloc(v2_3.timer_list)
        v2_3.init_timer(timer)
        timer.function = function
        timer.data = timer
        v2_3.mod_timer(timer, jiffies + 1)
        del timer
        vm.spawn(v2_3.wait_on_timers_blocking)
    vm.settle()
    assert slab.freed == 1
    assert not slab.reports


def callouts(vm: VirtualSMP) -> None:
    """callout_barrier_all() while a callback runs that has freed its callout."""
    slab: Slab[Session] = Slab("sessions")

    def callback(session: Session) -> None:
        slab.free(session)
        del session
        vm.platform.point()

    with undisturbed(vm):
        session = slab.alloc(Session)
        callout_reset(session.timer, 1, callback, session)
        del session
        vm.spawn(callout_barrier_all_sync)
    vm.settle()
    assert slab.freed == 1
    assert not slab.reports


def collections(vm: VirtualSMP) -> None:
    """destroy_all() while a function runs that has taken its element out of the collection, and freed it."""
    slab: Slab[timer_list] = Slab("entries")
    lock = Mtx("entries")
    entries: list[timer_list] = []

    def expire(timer: timer_list) -> None:
        with lock:
            if not any(other is timer for other in entries):
                return
            entries.clear()
        slab.free(timer)
        del timer
        vm.platform.point()

    with undisturbed(vm):
        timer = slab.alloc(timer_list)
        timer_setup(timer, expire, 0)
        mod_timer(timer, jiffies + 1)
        entries.append(timer)
        del timer
        vm.spawn(lambda: destroy_all_blocking(entries, lock, slab.free, lambda timer: timer), name="destroy")
    vm.settle()
    assert slab.freed == 1
    assert not slab.reports


@pytest.mark.parametrize("scenario", [old_timers, callouts, collections])
def test_a_wait_for_all_runs_does_not_touch_what_they_have_freed(scenario: Scenario) -> None:
    """In no schedule does an innocent waiter use a timer that its own function has freed: it waits for the run."""
    certificate = explore(scenario, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 10


@pytest.mark.trio
async def test_a_waiter_on_real_threads_waits_for_a_function_that_has_freed_its_timer() -> None:
    """On real loops, too, wait_on_timers() comes back when the function has returned, and reports nothing."""
    slab: Slab[v2_3.timer_list] = Slab("timers")
    began, gate, waits = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def function(timer: v2_3.timer_list) -> None:
        slab.free(timer)
        began.set()
        gate.wait()
        order.append("returned")

    def wait() -> None:
        began.wait()
        waits.set()
        v2_3.wait_on_timers_blocking()
        order.append("waited")

    def open_the_gate() -> None:
        waits.wait()
        gate.set()

    async with open_callouts(cpus=1) as system:

        def bound_wait() -> None:
            with system.bound():
                wait()

        # Both are there before the function can block this loop.
        threads = [threading.Thread(target=target) for target in (bound_wait, open_the_gate)]
        for thread in threads:
            thread.start()
        timer = slab.alloc(v2_3.timer_list)
        v2_3.init_timer(timer)
        timer.function = function
        timer.data = timer
        v2_3.mod_timer(timer, jiffies + 0)
        del timer
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)

    assert order == ["returned", "waited"]
    assert not slab.reports
