"""The API of the year 2000, on virtual CPUs and on real ones."""

from __future__ import annotations

import pytest

from callout import curcpu
from callout_linux import v2_3
from callout_linux.timer import jiffies
from tests.conformance.world import Call, Stage


class Driver:
    """A driver of 2000: its function notes its data, may stand at a gate, and may add its timer again."""

    def __init__(self, s: Stage, *, gate: str = "", again: int = 0, exits: bool = False) -> None:
        self.s = s
        self.gate = gate
        self.again = again
        self.exits = exits
        self.ran: list[tuple[object, int]] = []
        self.timer = v2_3.timer_list()
        s.do(v2_3.init_timer, self.timer)
        self.timer.function = self.function
        self.timer.data = 42
        self.timer.expires = s.do(jiffies) + 1
        s.do(v2_3.add_timer, self.timer)

    def function(self, data: object) -> None:
        """Be the timer's function."""
        self.ran.append((data, curcpu()))
        if self.again:
            self.again -= 1
            self.timer.expires = jiffies + 1
            v2_3.add_timer(self.timer)
        if self.exits:
            v2_3.timer_exit(self.timer)
        if self.gate:
            self.s.world.wait_at_gate(self.gate, lambda: None)


def test_a_function_gets_its_timers_data_and_runs_on_cpu_0(s: Stage) -> None:
    """On whatever CPU the timer is added, its function is called on CPU 0, with the data of the moment."""
    driver = Driver(s)
    s.t1.do(v2_3.mod_timer, driver.timer, s.do(jiffies) + 2)
    driver.timer.data = "later"
    s.tick(3)

    assert driver.ran == [("later", 0)]


def test_mod_timer_says_whether_the_timer_was_pending(s: Stage) -> None:
    """mod_timer() returns 1 for a pending timer, 0 for an idle one, which it starts."""
    driver = Driver(s)
    now = s.do(jiffies)

    assert s.do(v2_3.mod_timer, driver.timer, now + 3) == 1
    assert driver.timer.expires == now + 3

    s.tick(4)

    assert s.do(v2_3.mod_timer, driver.timer, now + 9) == 0
    assert s.do(v2_3.timer_pending, driver.timer) == 1


def test_adding_a_pending_timer_is_refused(s: Stage) -> None:
    """The kernel said "timer added twice" and did nothing; here that is an error, and the timer is as it was."""
    driver = Driver(s)
    with pytest.raises(RuntimeError, match="pending already"):
        s.do(v2_3.add_timer, driver.timer)
    s.tick(2)

    assert len(driver.ran) == 1


def test_del_timer_async_is_del_timer_and_does_not_wait(s: Stage) -> None:
    """del_timer() of a running timer returns at once, with 0 or, if it was added again, with 1."""
    driver = Driver(s, gate="g", again=1)
    s.tick(2)

    assert s.do(v2_3.del_timer_async, driver.timer) == 1
    assert s.do(v2_3.del_timer_async, driver.timer) == 0
    assert v2_3.del_timer_async is v2_3.del_timer

    s.open("g")
    s.tick(4)

    assert len(driver.ran) == 1


@pytest.mark.parametrize("exits", [False, True])
def test_del_timer_sync_waits_for_the_return_of_the_function(s: Stage, exits: bool) -> None:
    """del_timer_sync() waits until the function has returned: without timer_exit() or after an early one."""
    driver = Driver(s, gate="g", exits=exits)
    s.tick(2)
    call = s.t1.begin(v2_3.del_timer_sync_blocking, driver.timer)

    assert call.blocked
    assert s.do(v2_3.timer_is_running, driver.timer) == 1

    s.open("g")

    assert call.result() == 0
    assert s.do(v2_3.timer_is_running, driver.timer) == 0


def test_del_timer_sync_counts_its_deletions(s: Stage) -> None:
    """Idle gives 0, pending 1; added again before the call and once more while it waits, 2."""
    driver = Driver(s)

    assert s.do(v2_3.del_timer_sync_blocking, driver.timer) == 1
    assert s.do(v2_3.del_timer_sync_blocking, driver.timer) == 0

    driver = Driver(s, gate="g", again=1)
    s.tick(2)
    call = s.t1.begin(v2_3.del_timer_sync_blocking, driver.timer)
    s.do(v2_3.mod_timer, driver.timer, s.do(jiffies) + 1)
    s.open("g")

    assert call.result() == 2

    s.tick(5)

    assert len(driver.ran) == 1


def test_wait_on_timers_waits_for_every_function_that_runs(s2: Stage) -> None:
    """wait_on_timers() comes back when all functions that ran have returned, and does not wait for pending timers."""
    driver = Driver(s2, gate="g")
    pending = Driver(s2)
    s2.do(v2_3.mod_timer, pending.timer, s2.do(jiffies) + 50)
    s2.tick(2)
    calls: list[Call[None]] = [actor.begin(v2_3.wait_on_timers_blocking) for actor in (s2.t1, s2.t2)]

    assert all(call.blocked for call in calls)

    s2.open("g")
    for call in calls:
        call.result()

    assert len(driver.ran) == 1
    assert s2.do(v2_3.timer_pending, pending.timer) == 1

    s2.t1.do(v2_3.wait_on_timers_blocking)


def test_timer_synchronize_waits_and_deletes_nothing(s: Stage) -> None:
    """timer_synchronize() waits for the run in progress and leaves the timer pending."""
    driver = Driver(s, gate="g", again=1)
    s.tick(2)
    call = s.t1.begin(v2_3.timer_synchronize_blocking, driver.timer)

    assert call.blocked

    s.open("g")
    call.result()

    assert s.do(v2_3.timer_pending, driver.timer) == 1
    assert s.do(v2_3.del_timer, driver.timer) == 1


def test_the_stand_ins_do_nothing(s: Stage) -> None:
    """timer_exit() and timer_set_running() change nothing, whatever the timer is doing."""
    driver = Driver(s)
    s.do(v2_3.timer_set_running, driver.timer)
    s.do(v2_3.timer_exit, driver.timer)

    assert s.do(v2_3.timer_is_running, driver.timer) == 0
    assert s.do(v2_3.timer_pending, driver.timer) == 1
