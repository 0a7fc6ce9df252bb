"""Edges of the engine: odd ticks, the largest time, a burst of direct callouts, a free mutex and a busy loop."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callout import (
    C_DIRECT_EXEC,
    C_PRECALC,
    SBT_1MS,
    SBT_1S,
    SBT_MAX,
    ArgumentTypeError,
    Callout,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
    callout_when,
    cpu_call,
)
from callout._core import deadline
from callout._core.machine import Machine
from callout.testing import VirtualSMP


def ignore(_: object) -> None:
    """Do nothing."""


# -- time --------------------------------------------------------------------------------------------------------------


def machine_of(hz: int, boot: int) -> Machine:
    """Return what the conversions need of a machine."""
    return cast("Machine", SimpleNamespace(hz=hz, boot=boot))


@given(hz=st.integers(1, 1_000_000), boot=st.integers(0, 1 << 60), tick=st.integers(0, 1 << 40))
def test_a_tick_begins_when_so_many_have_passed(hz: int, boot: int, tick: int) -> None:
    """At its start *tick* ticks have passed, a nanosecond before one less; whatever hz is."""
    machine = machine_of(hz, boot)
    start = deadline.start_of_tick(machine, tick)

    assert deadline.ticks_since_boot(machine, start) == tick
    assert deadline.ticks_since_boot(machine, start - 1) == tick - 1


@given(hz=st.integers(1, 1_000_000), now=st.integers(0, 1 << 60), ticks=st.integers(-5, 1 << 31))
def test_ticks_are_never_short_and_never_long_by_a_nanosecond(hz: int, now: int, ticks: int) -> None:
    """*n* ticks are n / hz seconds, rounded up to a nanosecond, also where a tick is no whole number of them."""
    spent = deadline.after_ticks(machine_of(hz, 0), now, ticks) - now
    exact = Fraction(max(ticks, 1) * 1_000_000_000, hz)

    assert exact <= spent < exact + 1


@pytest.mark.parametrize("hz", [3, 7, 1000, 700_000, 999_999])
def test_the_second_of_a_callout_is_a_second(hz: int) -> None:
    """Hz ticks after now is a second after now, by the short path and by the long one."""
    with VirtualSMP(1, hz=hz, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        for _ in range(2):
            callout_reset(c, 2 * hz, ignore, None)

            assert c.time == vm.platform.now() + 2_000_000_000


@pytest.mark.parametrize(("sbt", "precision"), [(SBT_MAX, 0), (SBT_1S, SBT_MAX), (SBT_MAX, SBT_MAX)])
def test_what_callout_when_returns_can_be_armed(sbt: int, precision: int) -> None:
    """It saturates at SBT_MAX, and C_PRECALC takes it."""
    with VirtualSMP(1, free_clock=False):
        c = Callout()
        callout_init(c, 1)
        when, pr = callout_when(sbt, precision)

        assert max(when, pr) <= SBT_MAX
        assert callout_reset_sbt(c, when, pr, ignore, None, C_PRECALC) == 0
        assert callout_stop(c) == 1


# -- the interrupt's time budget ---------------------------------------------------------------------------------------


def test_a_burst_of_direct_callouts_lets_the_loop_have_turns_and_goes_first() -> None:
    """Over its time budget the interrupt lets the loop's tasks have a turn; what softclock has waits for the rest."""
    log: list[str] = []
    with VirtualSMP(1, free_clock=False) as vm:
        vm.machine.budget = -1  # every run is one too many
        callouts = [Callout() for _ in range(6)]
        for c in callouts:
            callout_init(c, 1)
        callout_reset(callouts[0], 1, log.append, "plain")
        for c in callouts[1:]:
            callout_reset_sbt(c, SBT_1MS, 0, log.append, "direct", C_DIRECT_EXEC)

        async def task() -> None:
            while len(log) < 20 and "plain" not in log:
                log.append("turn")
                await vm.platform.checkpoint()

        vm.platform.tick(vm.machine.tick)
        vm.spawn(task, cpu=0)
        vm.settle()
        vm.check()

    ran = [entry for entry in log if entry != "turn"]
    assert ran == ["direct"] * 5 + ["plain"]
    assert "turn" in log[log.index("direct") : len(log) - 1 - log[::-1].index("direct")]


# -- locks -------------------------------------------------------------------------------------------------------------


def test_a_softclock_gets_a_free_mutex_though_another_one_is_on_a_busy_loop() -> None:
    """Two softclocks are parked at a mutex, and the loop of the first is blocked: the other one goes on."""
    ran: list[int] = []
    with VirtualSMP(2, free_clock=False) as vm:
        mtx = Mtx("m")
        first, second = Callout(), Callout()
        for number, c in enumerate((first, second)):
            callout_init_mtx(c, mtx)
            with mtx:
                callout_reset_on(c, 1 + number, ran.append, number, number)
        blocked = vm.platform.thread_waiter

        async def block() -> None:
            await blocked().wait()

        mtx.lock()
        vm.tick(3)  # both are parked, CPU 0's softclock first
        vm.spawn(block, cpu=0)
        vm.settle()
        mtx.unlock()
        vm.settle()

        assert ran == [1]


# -- what a callback returns -------------------------------------------------------------------------------------------


async def work() -> None:
    """Be work that nobody runs."""


def make_generator() -> object:
    """Return a generator."""
    return (number for number in range(3))


@pytest.mark.parametrize("make", [work, make_generator])
@pytest.mark.parametrize("flags", [0, C_DIRECT_EXEC])
def test_a_callback_that_returns_something_to_be_run_is_reported(make: Callable[[], object], flags: int) -> None:
    """A lambda that makes a coroutine would lose it silently: it is an error of the callback, and no warning."""
    with VirtualSMP(1, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        callout_reset_sbt(c, SBT_1MS, 0, lambda _: make(), None, flags)
        vm.tick(2)
        (error,) = vm.errors
        vm.errors.clear()

        assert isinstance(error, ArgumentTypeError)
        assert "start_soon" in str(error)
        assert not callout_pending(c)


def returns(result: object, _: object) -> object:
    """Be a callback that returns something."""
    return result


def test_what_else_a_callback_returns_does_not_matter() -> None:
    """Only what still wants to be run is refused."""
    with VirtualSMP(1, free_clock=False) as vm:
        results: list[Any] = [0, "text", object(), [], Callout]
        for result in results:
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, 1, partial(returns, result), None)
        cpu_call(0, ignore, None)
        vm.tick(2)
        vm.check()
