"""The short paths do what the long way does: the same call in the same situation, both ways, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn, cast

import pytest

from callout import (
    ARM_IF_EARLIER,
    ARM_IF_IDLE,
    ARM_IF_PENDING,
    ARM_STAY,
    ARM_UNCHANGED,
    CALLOUT_REMOVED,
    CALLOUT_RUNNING,
    SBT_1MS,
    ArgumentTypeError,
    Callout,
    CalloutError,
    callout_deactivate,
    callout_dequeue,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_stop,
    ticks,
)
from callout._core.levels import COARSE
from callout._core.phases import Phase
from callout._core.short import arm_at_tick, callout_arm_curcpu
from callout._core.state import CAREFUL
from callout.testing import VirtualSMP

TICK: Final = 1_000_000  # ns
SLOT: Final = (1 << COARSE) // TICK + 1  # ticks that reach into the next slot of the wheel
FAR: Final = 300 * SLOT  # a slot of the second level

Fired = list[tuple[str, int]]


class Stage:
    """One CPU with a clock that the test moves: the callout that is called on, *c*, and two others."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.cpu = vm.machine.cpus[0]
        self.fired: Fired = []
        self.old, self.new = self._old, self._new  # bound once: the function of an arming is known by its identity
        self.c = self.callout()
        self.before = self.callout()
        self.after = self.callout()

    def callout(self) -> Callout:
        """Make a callout."""
        c = Callout()
        callout_init(c, 1)
        return c

    def _old(self, name: str) -> None:
        """Be what *c* was armed with before."""
        self.fired.append((f"old {name}", ticks()))

    def _new(self, name: str) -> None:
        """Be what *c* is armed with."""
        self.fired.append((name, ticks()))

    def known(self, c: Callout) -> dict[str, object]:
        """Return what the record of *c* says, but not how it is filed."""
        origins = self.cpu.machine.origins
        return {
            "state": c.state & ~CAREFUL,
            "time": c.time,
            "func": c.func,
            "arg": c.arg,
            "precision": c.precision,
            "origin": None if origins is None else origins.get(c),
        }

    def order(self) -> list[str]:
        """Return which callouts are pending, in the order in which they will run."""
        names = {id(self.c): "c", id(self.before): "before", id(self.after): "after"}
        return [names[id(c)] for c in sorted(self.cpu.wheel.callouts(), key=lambda c: (c.time, c.seq))]


def fresh(s: Stage) -> None:
    """Never armed."""


def has_run(s: Stage) -> None:
    """It has run, and is active still."""
    callout_reset(s.c, 1, s.old, "run")
    s.vm.tick(1)


def deactivated(s: Stage) -> None:
    """It has run, and was deactivated."""
    has_run(s)
    callout_deactivate(s.c)


def stopped(s: Stage) -> None:
    """It was stopped."""
    callout_reset(s.c, 3, s.old, "stopped")
    callout_stop(s.c)


def pending(s: Stage) -> None:
    """It is pending, in the open slot."""
    callout_reset(s.c, 3, s.old, "pending")


def pending_and_inactive(s: Stage) -> None:
    """It is pending, and was deactivated."""
    pending(s)
    callout_deactivate(s.c)


def pending_later(s: Stage) -> None:
    """It is pending, in a bucket."""
    callout_reset(s.c, 2 * SLOT, s.old, "later")


def imprecise(s: Stage) -> None:
    """It is pending, and may be late."""
    callout_reset_sbt(s.c, 3 * SBT_1MS, SBT_1MS, s.old, "imprecise")


def imprecise_and_stopped(s: Stage) -> None:
    """It was armed to be late, and stopped."""
    imprecise(s)
    callout_stop(s.c)


BEFORE: Final = [
    fresh,
    has_run,
    deactivated,
    stopped,
    pending,
    pending_and_inactive,
    pending_later,
    imprecise,
    imprecise_and_stopped,
]
OTHERS: Final[dict[str, int | None]] = {"nothing": None, "sooner": 1, "for the same time": 5, "later": SLOT, "far": FAR}


@contextmanager
def stage(others: int | None, *, short: bool, checking: bool) -> Iterator[Stage]:
    """Set it; *others*: in how many ticks one is due that was armed before."""
    with VirtualSMP(1, free_clock=False, checking=checking, short_paths=short) as vm:
        s = Stage(vm)
        if others is not None:
            callout_reset(s.before, others, s.new, "before")
        yield s


def outcomes(others: int | None, situation: Callable[[Stage], None], act: Callable[[Stage], object]) -> list[object]:
    """Return what *act* comes to by the short path and by the long way, in checking mode and without."""
    out: list[object] = []
    for checking in (True, False):
        for short in (True, False):
            with stage(others, short=short, checking=checking) as s:
                situation(s)
                result = act(s)
                if others is not None:
                    callout_reset(s.after, others, s.new, "after")
                known, order, deadline = s.known(s.c), s.order(), s.cpu.deadline
                known["func"] = getattr(known["func"], "__name__", None)
                s.vm.check()
                s.vm.tick(6)
                out.append((result, known, order, deadline, s.fired))
    return out


def same(out: list[object]) -> bool:
    """Whether both ways came to the same, in each mode."""
    return out[0] == out[1] and out[2] == out[3]


@pytest.mark.parametrize("count", [5, 1, 0, -3, 2, 3, SLOT, 2 * SLOT, FAR])
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("situation", BEFORE)
def test_reset_does_the_same(situation: Callable[[Stage], None], others: str, count: int) -> None:
    """callout_reset() has the same result, record, order, deadline and calls by the short path as by the long way."""
    out = outcomes(OTHERS[others], situation, lambda s: callout_reset(s.c, count, s.new, "c"))

    assert same(out), out


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("situation", BEFORE)
@pytest.mark.parametrize("call", [callout_stop, callout_dequeue])
def test_stop_and_dequeue_do_the_same(
    call: Callable[[Callout], int], situation: Callable[[Stage], None], others: str
) -> None:
    """Both have the same result, record, order and calls by the short path as by the long way."""
    out = outcomes(OTHERS[others], situation, lambda s: call(s.c))

    assert same(out), out


def arm_curcpu(s: Stage, tick: int, func: Callable[[str], None], arg: str, flags: int = 0) -> int:
    """Arm *c* for a clock tick, on the CPU on which this code runs."""
    arm: Callable[..., int] = callout_arm_curcpu
    rest: tuple[object, ...] = (flags,)
    if s.cpu.machine.careful:  # the long way itself: what the short path is compared with must not begin with it
        arm, rest = partial(arm_at_tick, "callout_arm_curcpu"), (s.cpu, flags)
    return arm(s.c, tick, func, arg, *rest)


@pytest.mark.parametrize("count", [5, 1, 0, -3, 2, 3, SLOT, FAR])
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("situation", BEFORE)
def test_arming_for_a_tick_does_the_same(situation: Callable[[Stage], None], others: str, count: int) -> None:
    """An arming for a clock tick comes to the same by the short path as by the long way, with the function it had."""
    out = outcomes(OTHERS[others], situation, lambda s: arm_curcpu(s, ticks() + count, s.old, "c"))

    assert same(out), out


FLAGS: Final = [*(1 << bit for bit in range(5, 8)), ARM_STAY | ARM_UNCHANGED, ARM_IF_EARLIER | ARM_STAY, -1, 8.0, None]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("count", [5, 3, 2])
@pytest.mark.parametrize("situation", BEFORE)
def test_every_flag_does_the_same(situation: Callable[[Stage], None], count: int, flags: object) -> None:
    """Whatever the flags of an arming for a tick are, and whether it has such flags, the short path does the same."""

    def act(s: Stage) -> object:
        try:
            return arm_curcpu(s, ticks() + count, s.old, "c", cast("int", flags))
        except CalloutError as error:
            return type(error), str(error)

    out = outcomes(5, situation, act)

    assert same(out), out


@pytest.mark.parametrize("flags", [0, ARM_IF_IDLE, ARM_IF_PENDING, ARM_IF_EARLIER, ARM_STAY, ARM_UNCHANGED])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("situation", BEFORE)
def test_arming_for_a_tick_on_a_condition_does_the_same(
    situation: Callable[[Stage], None], count: int, known: bool, flags: int
) -> None:
    """So does one on a condition, with the function that the callout had and with another one."""
    out = outcomes(1, situation, lambda s: arm_curcpu(s, ticks() + count, s.old if known else s.new, "c", flags))

    assert same(out), out


@pytest.mark.parametrize("short", [True, False])
def test_what_is_pushed_out_comes_after_what_is_due_then(short: bool) -> None:
    """A callout that is armed anew for the time of another one runs after that, though it was armed before it."""
    for act in (
        lambda s: callout_reset(s.c, 5, s.old, "c"),
        lambda s: arm_curcpu(s, ticks() + 5, s.old, "c"),
    ):
        with stage(None, short=short, checking=False) as s:
            pending(s)
            callout_reset(s.before, 5, s.new, "before")
            act(s)

            assert s.order() == ["before", "c"]

            s.vm.tick(6)

            assert [name for name, _ in s.fired] == ["before", "old c"]


@pytest.mark.parametrize("short", [True, False])
def test_an_arming_for_a_later_tick_during_the_run_says_that_it_runs(short: bool) -> None:
    """A callback that has armed its callout, and arms it for later, is told of both: what it replaced, and its run."""
    facts: list[int] = []
    with stage(None, short=short, checking=False) as s:

        def callback(name: str) -> None:
            callout_reset(s.c, 3, callback, name)
            facts.append(arm_curcpu(s, ticks() + 5, callback, name))
            callout_stop(s.c)

        callout_reset(s.c, 1, callback, "c")
        s.vm.tick()

    assert facts == [CALLOUT_REMOVED | CALLOUT_RUNNING]


@pytest.mark.parametrize("short", [True, False])
def test_a_refused_arming_during_the_run_says_that_it_runs(short: bool) -> None:
    """Of a callout that was closed meanwhile nothing is armed, and the facts are those of its run."""
    facts: list[int] = []
    with stage(None, short=short, checking=False) as s:

        def callback(name: str) -> None:
            callout_dequeue(s.c, close=True)
            facts.append(arm_curcpu(s, ticks() + 5, callback, name))

        callout_reset(s.c, 1, callback, "c")
        s.vm.tick()

    assert facts == [CALLOUT_RUNNING]


class Touchy(int):
    """A number that must not be computed with: what it does would be done under the lock of a CPU."""

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("the code of a subclass was run")

    __add__ = __radd__ = __mul__ = __rmul__ = __and__ = __rand__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __bool__ = __index__ = __int__ = _refuse


def test_no_code_of_a_subclass_of_int_runs_under_the_lock() -> None:
    """Tick and flags of a subclass of int are taken as the numbers that they are, without asking its methods."""
    with stage(None, short=True, checking=False) as s:
        pending(s)
        callout_arm_curcpu(s.c, Touchy(ticks() + 5), s.old, "tick")
        callout_arm_curcpu(s.c, ticks() + 6, s.old, "flags", Touchy(0))
        s.vm.tick(7)

        assert [name for name, _ in s.fired] == ["old flags"]


@pytest.mark.parametrize("others", OTHERS)
def test_a_first_arming_without_a_function_is_refused(others: str) -> None:
    """None is no callback, whatever else is pending, and nothing was armed."""
    nothing: Any = None  # Any: a type checker would refuse it
    for short in (True, False):
        with stage(OTHERS[others], short=short, checking=False) as s:
            with pytest.raises(ArgumentTypeError, match="must be a function"):
                callout_reset(s.c, 5, nothing, None)

            assert callout_pending(s.c) == 0


@pytest.mark.parametrize("situation", [fresh, pending])
@pytest.mark.parametrize("count", [0, -3, 1])
def test_an_arming_while_the_clock_interrupt_is_due(situation: Callable[[Stage], None], count: int) -> None:
    """Ticks that are not positive count as one, also where the interrupt need not be told."""
    times = []
    for short in (True, False):
        with stage(1, short=short, checking=False) as s:
            situation(s)
            s.vm.platform.time += 10 * TICK  # the interrupt for the other one is overdue
            now = s.vm.platform.time
            callout_reset(s.c, count, s.new, "c")
            times.append(s.c.time - now)

    assert times == [TICK, TICK]


def test_a_tick_that_begins_now_has_begun() -> None:
    """An arming for the clock tick of this very instant is for the next, though the callout was due before that."""
    times = []
    for short in (True, False):
        with stage(None, short=short, checking=False) as s:
            pending(s)
            s.vm.platform.time += 5 * TICK  # the interrupt is overdue
            now = s.vm.platform.time
            callout_arm_curcpu(s.c, ticks(), s.old, "c")
            times.append(s.c.time - now)

    assert times == [TICK, TICK]


@pytest.mark.parametrize("ahead", [10 * SLOT, 20, 21])
@pytest.mark.parametrize("call", ["callout_reset", "callout_arm_curcpu"])
def test_an_arming_for_a_slot_in_use_that_is_the_first_sets_the_event_timer(call: str, ahead: int) -> None:
    """The place in the wheel is there already, but nothing was due so early: the interrupt has to come for it."""
    for short in (True, False):
        with stage(None, short=short, checking=False) as s:
            callout_reset(s.before, ahead + 1, s.new, "before")
            if call == "callout_reset":
                callout_reset(s.c, ahead, s.new, "c")
            else:
                callout_reset(s.c, 1, s.new, "c")
                callout_stop(s.c)
                callout_arm_curcpu(s.c, ticks() + ahead, s.new, "c")

            assert s.c.time < s.before.time
            assert s.cpu.deadline <= s.c.time
            assert s.vm.platform.events[0] == s.cpu.deadline


@pytest.mark.parametrize("short", [True, False])
def test_an_idle_callout_is_not_armed_once_the_end_has_begun_to_stop_what_is_pending(short: bool) -> None:
    """Neither for so many ticks nor for a tick; it is refused quietly."""
    with stage(None, short=short, checking=False) as s:
        has_run(s)
        machine = s.cpu.machine
        before, machine.phase = machine.phase, Phase.QUIESCING
        s.cpu.plain = None
        try:
            for act in (callout_reset, arm_later):
                assert act(s.c, 5, s.old, "c") == 0
                assert callout_pending(s.c) == 0
        finally:
            machine.phase = before
            s.cpu.plain = s.cpu


def arm_later(c: Callout, count: int, func: Callable[[str], None], arg: str) -> int:
    """Arm it for a clock tick, on the CPU on which this code runs."""
    return callout_arm_curcpu(c, ticks() + count, func, arg)
