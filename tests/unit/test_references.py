"""What the engine refers to: only what is pending or running. And when the last reference dies: under no lock."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Final, NoReturn

import pytest
import trio

from callout import (
    ARM_STAY,
    C_DIRECT_EXEC,
    SBT_1MS,
    ArgumentTypeError,
    Callout,
    Mtx,
    NeverArmedError,
    RmLock,
    RwLock,
    callout_arm_curcpu,
    callout_arm_on,
    callout_dequeue,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_schedule,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
    open_callouts,
    ticks,
)
from callout._core.invariants import check_cpu
from callout._core.lifecycle import enter, quiesce
from callout._core.machine import Machine
from callout._core.phases import Phase
from callout._core.units import NEVER
from callout.testing import VirtualSMP
from callout_linux.timer import timer_list, timer_setup


def ignore(_: object) -> None:
    """Do nothing."""


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Two virtual CPUs whose clock stands still."""
    with VirtualSMP(2, free_clock=False) as vm:
        yield vm


# -- nothing is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.trio
@pytest.mark.parametrize("ticks", [50, 400, 3_600_000, 2_000_000_000])
@pytest.mark.parametrize("others", [0, 100])
async def test_what_is_stopped_or_drained_and_dropped_is_freed(ticks: int, others: int) -> None:
    """Whatever it was armed for, and whatever else is pending: a stopped callout dies with its last reference."""
    async with open_callouts():
        keep = [Callout() for _ in range(others)]
        for number, c in enumerate(keep):
            callout_init(c, 1)
            callout_reset(c, ticks + number, ignore, None)
        for end in (callout_stop, callout_drain, callout_terminate):
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, ticks, ignore, None)
            done = end(c)
            if not isinstance(done, int):
                await done
            del done
            gone = weakref.ref(c)
            del c

            assert gone() is None


@pytest.mark.trio
async def test_what_has_run_and_was_dropped_is_freed() -> None:
    """An idle softclock keeps neither the callout that it ran last nor its argument."""
    async with open_callouts():
        ran = trio.Event()
        c = Callout()
        callout_init(c, 1)
        argument = ran.set
        callout_reset(c, 1, lambda done: done(), argument)
        await ran.wait()
        await callout_drain(c)
        gone = weakref.ref(c)
        del c

        assert gone() is None


# -- nothing dies under a lock -----------------------------------------------------------------------------------------


class Last:
    """An argument whose finalizer looks at the engine's locks."""

    def __init__(self, machine: Machine, seen: list[bool]) -> None:
        self._machine = machine
        self._seen = seen

    def __del__(self) -> None:
        self._seen.append(any(cpu.busy or cpu.lock._is_owned() for cpu in self._machine.cpus))


def renew(c: Callout) -> None:
    """Stop and initialise a callout."""
    callout_stop(c)
    callout_init(c, 1)


def arm_again(c: Callout) -> None:
    """Stop and arm a callout."""
    callout_stop(c)
    callout_reset(c, 300_000, ignore, None)


def arm_at_a_tick(c: Callout) -> None:
    """Stop a callout, and arm it for a tick."""
    callout_stop(c)
    callout_arm_curcpu(c, ticks() + 300_000, ignore, None)


REPLACE: Final[dict[str, Callable[[Callout], object]]] = {
    "pushed out": lambda c: callout_reset(c, 200_000, ignore, None),
    "pulled in": lambda c: callout_reset(c, 50, ignore, None),
    "on another CPU": lambda c: callout_reset_on(c, 200_000, ignore, None, 1),
    "initialised anew": lambda c: renew(c),
    "armed after a stop": lambda c: arm_again(c),
    "pushed out at a tick": lambda c: callout_arm_curcpu(c, ticks() + 200_000, ignore, None),
    "armed at a tick after a stop": lambda c: arm_at_a_tick(c),
    "pushed out by its method": lambda c: c.reset(200, ignore, None),
    "pulled in by its method": lambda c: c.reset(0.05, ignore, None),
    "closed": lambda c: c.close_soon(ignore, None),
    "terminated": callout_terminate_sync,
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("way", REPLACE)
def test_an_argument_that_is_replaced_dies_after_the_locks_were_released(
    vm: VirtualSMP, way: str, *, careful: bool
) -> None:
    """Its finalizer may acquire locks of the application, and call the engine: no lock of the engine is held then."""
    vm.machine.careful = careful
    seen: list[bool] = []
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 100_000, ignore, Last(vm.machine, seen))
    REPLACE[way](c)
    gc.collect()

    assert seen == [False]


Arming = Callable[[Callout, Last], object]
IN_A_RUN: Final[dict[str, Arming]] = {
    "reset": lambda c, last: callout_reset(c, 3, ignore, last),
    "reset to a later time": lambda c, last: callout_reset(c, 300, ignore, last),
    "reset on another CPU": lambda c, last: callout_reset_on(c, 3, ignore, last, 1),
    "direct": lambda c, last: callout_reset_sbt(c, SBT_1MS, 0, ignore, last, C_DIRECT_EXEC),
    "arm to stay": lambda c, last: callout_arm_on(c, ticks() + 3, ignore, last, 1, ARM_STAY),
    "stop": lambda c, _: callout_stop(c),
    "drain": lambda c, last: callout_drain_async(c, ignore, last),
    "close": lambda c, last: c.close_soon(ignore, last),
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("begin", IN_A_RUN)
def test_what_any_calls_in_a_run_replace_dies_after_the_locks_were_released(begin: str, *, careful: bool) -> None:
    """After any three calls of the callback, and what the end of the run makes of them, no lock was held then."""
    for second, third in product(IN_A_RUN, IN_A_RUN):
        with VirtualSMP(2, free_clock=False) as vm:
            vm.machine.careful = careful
            seen: list[bool] = []
            c = Callout()
            calls = [IN_A_RUN[begin], IN_A_RUN[second], IN_A_RUN[third]]

            def callback(
                _: object, c: Callout = c, calls: list[Arming] = calls, vm: VirtualSMP = vm, seen: list[bool] = seen
            ) -> None:
                for call in calls:
                    call(c, Last(vm.machine, seen))

            callout_init(c, 1)
            callout_reset(c, 1, callback, Last(vm.machine, seen))
            vm.tick(1000)
            vm.check()
            callout_reset(c, 1, ignore, None)
            del callback

            assert seen == [False] * 4, (second, third)


def test_a_lock_that_is_replaced_dies_after_the_locks_were_released(vm: VirtualSMP) -> None:
    """A callout may have the last reference to its lock: that dies under no lock when it is initialised anew."""

    class Mortal(Mtx):
        def __del__(self) -> None:
            seen.append(any(cpu.busy or cpu.lock._is_owned() for cpu in vm.machine.cpus))

    seen: list[bool] = []
    c = Callout()
    callout_init_mtx(c, Mortal("old"))
    callout_init(c, 1)
    gc.collect()

    assert seen == [False]


@pytest.mark.parametrize("removes", [callout_stop, callout_dequeue])
def test_what_was_removed_does_not_refer_to_its_neighbours(
    vm: VirtualSMP, removes: Callable[[Callout], object]
) -> None:
    """A callout that is removed from among others does not keep the ring that they are in."""
    callouts = [Callout() for _ in range(3)]
    for c in callouts:
        callout_init(c, 1)
        callout_reset(c, 100_000, ignore, None)
    removes(callouts[1])

    assert callouts[1].prev is callouts[1].next is None


def test_the_argument_of_a_deferred_reset_dies_after_the_locks_were_released(vm: VirtualSMP) -> None:
    """So does what a second deferred reset replaces, and what a stop removes."""
    seen: list[bool] = []
    c = Callout()

    def callback(_: object) -> None:
        callout_reset_on(c, 5, ignore, Last(vm.machine, seen), 1)
        callout_reset_on(c, 5, ignore, Last(vm.machine, seen), 1)
        callout_stop(c)

    callout_init(c, 1)
    callout_reset(c, 1, callback, None)
    vm.tick(2)
    vm.check()
    gc.collect()

    assert seen == [False, False]


def test_the_arguments_of_several_deferred_resets_die_after_the_locks_were_released(vm: VirtualSMP) -> None:
    """Nor does what one deferred reset has left die under a lock when the next one is removed in the same run."""
    seen: list[bool] = []
    c = Callout()

    def callback(_: object) -> None:
        for _ in range(3):
            callout_reset_on(c, 5, ignore, Last(vm.machine, seen), 1)
            callout_stop(c)

    callout_init(c, 1)
    callout_reset(c, 1, callback, None)
    vm.tick(2)
    vm.check()
    gc.collect()

    assert seen == [False] * 3


def leave_to_the_engine(vm: VirtualSMP, seen: list[bool], how: str) -> weakref.ref[Callout]:
    """Arm a callout that only its wheel refers to, so that its argument dies when the engine drops it."""
    c = Callout()
    if how == "under a lock":
        callout_init_mtx(c, Mtx("m"))
    else:
        callout_init(c, 1)

    argument = Last(vm.machine, seen)
    if how == "directly":
        callout_reset_sbt(c, 1, 0, ignore, argument, C_DIRECT_EXEC)
    else:
        callout_reset(c, 1, ignore, argument)
    return weakref.ref(c)


@pytest.mark.parametrize("how", ["a migration is carried out", "a waiter is served"])
def test_the_argument_of_a_run_that_has_ended_dies_after_the_locks_were_released(vm: VirtualSMP, how: str) -> None:
    """When the end of a run has more to do than to begin the next, its argument dies under no lock all the same."""
    seen: list[bool] = []
    c = Callout()

    def callback(_: object) -> None:
        if how == "a waiter is served":
            callout_drain_async(c, lambda _: callout_reset(c, 5, ignore, None), None)
        else:
            callout_reset_on(c, 5, ignore, None, 1)

    callout_init(c, 1)
    callout_reset(c, 1, callback, Last(vm.machine, seen))
    vm.tick(2)
    gc.collect()

    assert callout_pending(c)
    assert seen == [False]


@pytest.mark.parametrize("how", ["plainly", "under a lock", "directly"])
def test_what_only_the_engine_refers_to_dies_after_the_locks_were_released(vm: VirtualSMP, how: str) -> None:
    """A callout that is dropped while it is pending dies with its argument after its run, and under no lock."""
    seen: list[bool] = []
    gone = leave_to_the_engine(vm, seen, how)
    assert gone() is not None

    vm.tick(2)
    gc.collect()

    assert gone() is None
    assert seen == [False]


def test_what_is_pending_at_the_end_dies_after_the_locks_were_released(vm: VirtualSMP) -> None:
    """Callouts that were dropped while they were pending are gone when the system is quiescent, each under no lock."""
    seen: list[bool] = []
    left = [leave_to_the_engine(vm, seen, how) for how in ("plainly", "under a lock", "directly")]
    assert seen == []

    enter(vm.machine, Phase.CANCELLING)
    vm.run(lambda: quiesce(vm.machine))
    gc.collect()

    assert [gone() for gone in left] == [None] * 3
    assert seen == [False] * 3


# -- nobody is asked whether callouts are equal ------------------------------------------------------------------------


@dataclasses.dataclass
class Equal(Callout):
    """A callout that equals every other one of its label, and has no hash."""

    label: str

    def __post_init__(self) -> None:
        Callout.__init__(self)


class Touchy(Callout):
    """A callout that must not be compared."""

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("a callout was compared")

    __eq__ = __ne__ = _refuse
    __hash__ = _refuse


@pytest.mark.trio
@pytest.mark.parametrize("make", [lambda: Equal("same"), Touchy])
async def test_callouts_are_told_apart_by_identity(make: Callable[[], Callout]) -> None:
    """A subclass with an equality of its own is armed, pushed out, stopped, run and closed like any other."""
    ran: list[int] = []
    done = trio.Event()
    async with open_callouts():
        callouts = [make() for _ in range(20)]
        for number, c in enumerate(callouts):
            callout_init(c, 1)
            callout_reset(c, 5, ran.append, number)
        for c in callouts[10:15]:
            assert callout_stop(c) == 1
        for c in callouts[15:]:
            callout_reset(c, 1_000_000, ignore, None)
        last = Callout()
        callout_init(last, 1)
        callout_reset(last, 6, lambda _: done.set(), None)
        await done.wait()

    assert ran == list(range(10))


# -- a twin would be in the wheel without being filed ------------------------------------------------------------------


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("make", [Callout, Mtx, RwLock, RmLock])
def test_callouts_and_locks_are_not_copied(
    vm: VirtualSMP, make: Callable[[], object], copies: Callable[[object], object]
) -> None:
    """Copy and pickle are refused with an error that says what to do instead; a pending callout stays as it was."""
    thing = make()
    if isinstance(thing, Callout):
        callout_init(thing, 1)
        callout_reset(thing, 5, ignore, None)
    with pytest.raises(ArgumentTypeError, match=r"cannot be copied or pickled; make a new"):
        copies(thing)
    if isinstance(thing, Callout):
        assert callout_pending(thing) == 1
        assert callout_stop(thing) == 1


def test_a_linux_timer_is_not_copied(vm: VirtualSMP) -> None:
    """Its callout is part of it."""
    timer = timer_list()
    timer_setup(timer, ignore)
    with pytest.raises(ArgumentTypeError):
        copy.deepcopy(timer)


# -- the stack's limit -------------------------------------------------------------------------------------------------


@pytest.mark.trio
@pytest.mark.parametrize("checking", [False, True])
async def test_at_the_stacks_limit_raised_means_not_armed(*, checking: bool) -> None:
    """However little stack is left: a reset that raises RecursionError has armed nothing, and one that returns has."""
    raised = armed = 0
    async with open_callouts(checking=checking) as system:
        (cpu,) = system._machine.cpus
        c, other = Callout(), Callout()
        for each in (c, other):
            callout_init(each, 1)
            callout_reset(each, 3_600_000, ignore, None)
        callout_stop(c)  # the other one keeps the bucket: to make one needs more of the stack than what comes after

        def down(frames: int) -> None:
            if frames:
                down(frames - 1)
            else:
                callout_schedule(c, 3_600_000)

        here = 0
        frame = sys._getframe()
        while frame is not None:
            here += 1
            frame = frame.f_back  # type: ignore[assignment]  # the outermost has none
        for left in range(2, 80):
            deadline, cpu.deadline = cpu.deadline, NEVER  # so that the event timer is set: that must not fail any more
            try:
                down(sys.getrecursionlimit() - here - left)
            except RecursionError:
                raised += 1
                assert not callout_pending(c)
            else:
                armed += 1
                assert callout_stop(c) == 1
            cpu.deadline = min(cpu.deadline, deadline)
            assert not cpu.lock._is_owned()
            assert not cpu.busy
            check_cpu(cpu)

    assert raised >= 5
    assert armed >= 5


def test_what_is_initialised_anew_has_forgotten_what_it_was_armed_with(vm: VirtualSMP) -> None:
    """callout_init() leaves no function to be scheduled, and no reference to the argument."""

    class Argument:
        pass

    c, argument = Callout(), Argument()
    gone = weakref.ref(argument)
    callout_init(c, 1)
    callout_reset(c, 1, ignore, argument)
    callout_stop(c)
    del argument
    assert gone() is not None
    callout_init(c, 1)

    assert gone() is None
    with pytest.raises(NeverArmedError):
        callout_schedule(c, 1)


class Stops:
    """An argument with a finalizer that uses the engine, and notes what came of it."""

    def __init__(self, other: Callout, told: list[object]) -> None:
        self.other, self.told = other, told

    def __del__(self) -> None:
        try:
            self.told.append(callout_stop(self.other))
        except BaseException as error:
            self.told.append(error)


@pytest.mark.parametrize("kinds", [*product([None, "mutex"], repeat=2)], ids=str)
def test_what_a_run_referred_to_dies_under_no_lock(vm: VirtualSMP, kinds: tuple[str | None, str | None]) -> None:
    """When the next run begins, also if that uses the record of the last: finalizers may use the engine."""
    told: list[object] = []
    other = Callout()
    callout_init(other, 1)
    callout_reset(other, 1000, ignore, None)
    ran: list[int] = []

    def note(number: int, _: object) -> None:
        ran.append(number)

    for number, kind in enumerate(kinds):
        c = Callout()
        if kind is None:
            callout_init(c, 1)
        else:
            callout_init_mtx(c, Mtx("m"))
        callout_reset(c, 1, partial(note, number), Stops(other, told))
        del c
    vm.tick()

    assert ran == [0, 1]
    assert told == [1, -1]


def test_a_record_that_is_used_again_keeps_no_move(vm: VirtualSMP) -> None:
    """What a deferred migration referred to dies with the run, though another one follows at once."""
    told: list[object] = []
    other, c, after = Callout(), Callout(), Callout()
    for each in (other, c, after):
        callout_init(each, 1)
    callout_reset(other, 1000, ignore, None)

    def move(_: object) -> None:
        callout_reset_on(c, 5, ignore, Stops(other, told), 1)
        callout_stop(c)

    callout_reset(c, 1, move, None)
    callout_reset(after, 1, lambda _: told.append("after"), None)
    vm.tick()

    assert told == [1, "after"]
