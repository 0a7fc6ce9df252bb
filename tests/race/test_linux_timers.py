"""Every call of the Linux timer API, and every pair of them, against the softirq, and planted bugs of the engine.

What is checked in every schedule is in ``linux_history.py``. Each scenario names the number of schedules it must have
at least: one that has quietly stopped racing has fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any, Final

import pytest

from callout._api import primitives
from callout._core import arm as engine
from callout._core import cpulock, drain, runs, short, stop
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from callout_linux.timer import (
    _list,
    add_timer_on,
    mod_timer,
    mod_timer_pending,
    timer_delete,
    timer_delete_sync,
    timer_list,
    timer_pending,
    timer_setup,
    timer_shutdown_sync_blocking,
)
from tests.race.linux_history import (
    ADD,
    ADD_ON,
    DEL,
    MOD,
    MOD_PENDING,
    OPS,
    REDUCE,
    SHUTDOWN,
    SHUTDOWN_SYNC,
    SYNC,
    TRY,
    race,
    undisturbed,
)
from tests.race.mutants import planted

# The schedules of each call alone with the softirq, at bound 2.
SINGLES: Final = {
    ADD: 90,
    ADD_ON: 78,
    MOD: 173,
    MOD_PENDING: 73,
    REDUCE: 53,
    DEL: 27,
    TRY: 27,
    SYNC: 23,
    SHUTDOWN: 36,
    SHUTDOWN_SYNC: 23,
}


@pytest.mark.parametrize("op", OPS)
def test_one_call_against_the_softirq(op: str) -> None:
    """No schedule with two preemptions breaks an invariant when one call races with the softirq."""
    certificate = explore(race(op), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= SINGLES[op]


@pytest.mark.parametrize(("first", "second"), list(combinations_with_replacement(OPS, 2)))
def test_two_calls_against_the_softirq(first: str, second: str) -> None:
    """No schedule with one preemption breaks an invariant when two calls race with each other and the softirq."""
    # A timer that is pulled to another CPU costs most schedules: against the calls that this is most likely to
    # confuse, and below.
    pulled = MOD in (first, second) and {first, second} & {DEL, SYNC, SHUTDOWN_SYNC}
    cpus = (1, 0) if pulled or not {first, second} & {MOD, MOD_PENDING, REDUCE} else (0, 0)

    certificate = explore(race(first, second, cpus=cpus), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 82


def test_two_calls_that_pull_the_timer_to_their_cpus() -> None:
    """No schedule with one preemption breaks an invariant when CPU 0 and CPU 1 both pull the timer to themselves."""
    certificate = explore(race(REDUCE, REDUCE, cpus=(1, 0)), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 654


FUNCTIONS: Final = ((MOD,), (ADD_ON,), (DEL,), (SHUTDOWN,), (ADD_ON, MOD))


@pytest.mark.parametrize("function", FUNCTIONS, ids=" then ".join)
@pytest.mark.parametrize("op", OPS)
def test_a_call_against_a_function_that_operates_on_its_own_timer(op: str, function: tuple[str, ...]) -> None:
    """No schedule with one preemption breaks an invariant when the function re-arms, moves, stops or shuts down its
    timer.
    """
    certificate = explore(race(op, function=function), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 14


@pytest.mark.parametrize(("op", "function"), [(SYNC, (MOD,)), (SHUTDOWN_SYNC, (ADD_ON, MOD)), (TRY, (MOD,))])
def test_a_waiting_call_against_a_function_that_re_arms_itself(op: str, function: tuple[str, ...]) -> None:
    """Nor does one with two preemptions, if the call is one that waits or wants to know whether it has to."""
    certificate = explore(race(op, function=function), bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 177


@pytest.mark.parametrize("op", [MOD, SYNC])
def test_two_waiting_calls_against_a_function_that_re_arms_itself(op: str) -> None:
    """No schedule with one preemption breaks an invariant when two calls race for the re-arming of the function."""
    certificate = explore(race(SYNC, op, function=(MOD,)), bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 548


def test_a_task_may_wait_for_a_run_that_softclock_has_begun_and_not_called() -> None:
    """timer_delete_sync() in a task of the timer's CPU is not taken for the timer's own function."""

    def scenario(vm: VirtualSMP) -> None:
        vm.machine.budget = -1  # softclock yields before each call
        timer = timer_list()
        ran: list[int] = []
        timer_setup(timer, lambda _: ran.append(0), 0)
        mod_timer(timer, 1)
        results: list[int] = []
        vm.spawn(lambda: results.append(vm.run(lambda: timer_delete_sync(timer))), name="task", cpu=0)
        vm.settle()

        assert results == [len(ran) == 0]
        assert not timer_pending(timer)

    assert explore(scenario, bound=2).exhausted


def shut_down(vm: VirtualSMP) -> None:
    """Shut a timer down, whose function re-arms it once, and arm it after that."""
    timer = timer_list()
    ran: list[bool] = []
    shut: list[bool] = []

    def function(_: timer_list) -> None:
        assert not shut, "it runs after it was shut down"
        vm.platform.point()
        ran.append(True)
        if len(ran) == 1:
            mod_timer(timer, timer.expires + 1)

    with undisturbed(vm):
        timer_setup(timer, function, 0)
        mod_timer(timer, 7)
    vm.platform.point()
    timer_shutdown_sync_blocking(timer)
    shut.append(True)
    mod_timer(timer, timer.expires + 1)

    assert not timer_pending(timer)
    vm.settle()


def test_a_timer_that_was_shut_down_is_armed_no_more() -> None:
    """Not even if it was shut down in the middle of its function."""
    certificate = explore(shut_down, bound=2)

    assert certificate.exhausted
    assert certificate.schedules >= 296


def the_same_time(vm: VirtualSMP) -> None:
    """A timer was armed for 7 and deleted.

    One thread arms it for 7, another for 9: 7 comes, unless 9 has replaced it.
    """
    ran: list[int] = []
    results: dict[int, int] = {}

    class Timer(timer_list):
        def __call__(self, expires: int) -> None:
            ran.append(expires)

    timer = Timer()

    def arm(expires: int) -> None:
        results[expires] = mod_timer(timer, expires)

    with undisturbed(vm):
        timer_setup(timer, lambda _: None, 0)
        mod_timer(timer, 7)
        timer_delete(timer)
        vm.spawn(arm, 7, name="seven")
        vm.spawn(arm, 9, name="nine")
    vm.settle()

    assert results[9] == 1 or 7 in ran


def test_arming_for_the_time_that_it_had_before() -> None:
    """mod_timer() to the time for which an idle timer was armed last starts it, whatever races with it."""
    certificate = explore(the_same_time, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 263


def the_last_word(vm: VirtualSMP) -> None:
    """A timer armed for 50 runs; its function adds it on CPU 1 for 900, and then has the last word: 50. A thread
    says 50, too, at any time.
    """
    ran: list[int] = []

    class Timer(timer_list):
        def __call__(self, expires: int) -> None:
            ran.append(expires)
            super().__call__(expires)

    timer = Timer()
    answers: list[int] = []

    def function(_: timer_list) -> None:
        if len(ran) == 1:
            vm.platform.point()
            timer.expires = 900
            add_timer_on(timer, 1)
            answers.append(mod_timer(timer, 50))

    with undisturbed(vm):
        timer_setup(timer, function, 0)
        mod_timer(timer, 50)
        vm.spawn(mod_timer_pending, timer, 50, name="bystander", bound=1)
    vm.settle()

    assert answers == [1]
    assert ran == [50, 50]
    assert timer.expires == 50


def test_the_last_arming_counts_also_after_a_deferred_one() -> None:
    """mod_timer() to the time of the run in progress replaces a deferred add_timer_on(), in every schedule."""
    certificate = explore(the_last_word, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 137


# -- planted bugs ---------------------------------------------------------------------------------------------------

DEFER: Final = "if (state & MOVING or to is not cpu) and not how & STAY:"
STAYS: Final = "        to = cpu\n"
IN_A_QUEUE: Final = "c.state & _SCHEDULED == PENDING"

Mutant = tuple[Callable[[VirtualSMP], None], Callable[..., Any], tuple[tuple[str, str], ...]]  # Any: every function

MUTANTS: Final[dict[str, Mutant]] = {
    "pending is off before running is on, with the lock dropped between": (
        race(SYNC),
        runs._begin,
        (("c.run = lane.run = run", "cpu.busy = False; cpu.lock.release(); acquire(cpu); c.run = lane.run = run"),),
    ),
    "a timer that runs is moved at once": (
        race(MOD),
        engine._arm_locked,
        ((STAYS, "        pass\n"), (DEFER, "if False:")),
    ),
    "a deferred migration is carried out before the run has ended": (
        race(ADD_ON),
        engine._arm_locked,
        ((STAYS, "        pass\n"), (DEFER, "if False:")),
    ),
    "a pending timer is deleted without a second look under the lock": (
        race(MOD, DEL),
        cpulock.lock_callout,
        (("if c.c_cpu is cpu:", "if True:"),),
    ),
    "the short way of a delete does not look again": (
        race(DEL, DEL),
        short.callout_dequeue,
        (("state == ARMED or state == ARMED_TRACED", "True"),),
    ),
    "add_timer() starts a timer that is pending": (
        race(ADD),
        engine._applies,
        (("if how & IF_IDLE:", "if False:"),),
    ),
    "mod_timer_pending() starts a timer that is not": (
        race(MOD_PENDING),
        engine._applies,
        (("return not how & IF_PENDING", "return True"),),
    ),
    "the waiter is woken and the re-arming stays": (
        race(SYNC, function=(MOD,)),
        runs.answer_tickets,
        (("if unschedule(cpu, c):", "if False:"),),
    ),
    "both waiters are told that they took the re-arming": (
        race(SYNC, SYNC, function=(MOD,)),
        runs.answer_tickets,
        (("if unschedule(cpu, c):", "if unschedule(cpu, c) or True:"),),
    ),
    "the second waiter overwrites the first": (
        race(SYNC, SYNC),
        drain.attach,
        (("run.tickets = [*(run.tickets or ()), ticket]", "run.tickets = [ticket]"),),
    ),
    "the waiter is not woken": (
        race(SYNC),
        runs.serve,
        (("if ticket.waiter is not None:", "if False:"),),
    ),
    "the waiter is woken before the run has ended": (
        race(SYNC),
        runs.execute,
        (("func = run.func", "[t.waiter.set() for t in run.tickets or ()]; func = run.func"),),
    ),
    "del_sync does not wait": (
        race(SYNC),
        drain.begin,
        (("if run is None:", "if True:"),),
    ),
    "try_to_del_sync deletes a timer that runs": (
        race(TRY, function=(MOD,)),
        stop.dequeue,
        (("if if_not_running and facts:", "if False:"),),
    ),
    "try_to_del_sync says 0 for a timer that runs": (
        race(TRY),
        _list.try_to_del_timer_sync,
        (("return -1 if facts & CALLOUT_RUNNING else facts", "return facts & 1"),),
    ),
    "shutdown leaves the timer open while it runs": (
        race(SHUTDOWN, function=(MOD,)),
        stop.dequeue,
        (("if close:", "if close and not facts:"),),
    ),
    "shutdown_sync closes nothing": (
        race(SHUTDOWN_SYNC, MOD),
        runs.answer_tickets,
        (("if any(ticket.asks & T_CLOSE for ticket in tickets):", "if False:"),),
    ),
    "a closed timer is armed": (
        race(SHUTDOWN, MOD),
        engine._arm_locked,
        (("if state & CLOSED or machine.phase >= Phase.QUIESCING:", "if False:"),),
    ),
    "the deferred migration survives a delete": (
        race(SYNC, function=(ADD_ON,)),
        engine.unschedule,
        (("run.move = None", "pass"),),
    ),
    "mod_timer() for the same time looks at the time first": (
        the_same_time,
        primitives.callout_armed_with,
        ((f"armed_with == arg and {IN_A_QUEUE} and c.arg == arg", f"armed_with == arg and {IN_A_QUEUE}"),),
    ),
    "mod_timer() for the same time takes a deferred arming for the one that it replaces": (
        the_last_word,
        primitives.callout_armed_with,
        ((IN_A_QUEUE, "c.state & PENDING == PENDING"),),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """The search finds the bug, in a scenario in which it finds nothing above."""
    scenario, function, changes = MUTANTS[name]
    with planted(function, *changes), pytest.raises(Violation):
        explore(scenario, bound=2, schedules=20_000)
