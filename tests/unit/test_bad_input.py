"""What a caller can get wrong: one exception each, which says what to do, and nothing has changed."""

from __future__ import annotations

import asyncio
import functools
import http
import inspect
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import pytest
import trio
import trio.testing

import callout
from callout import (
    ARM_IF_EARLIER,
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    C_HARDCLOCK,
    C_PREL,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MA_OWNED,
    MA_RECURSED,
    MTX_SPIN,
    RM_SLEEPABLE,
    SBT_1S,
    SBT_MAX,
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    ClockError,
    ClosedError,
    ForkedError,
    LockClassError,
    LockHeldError,
    LockNotHeldError,
    LoopThreadError,
    Mtx,
    NeverArmedError,
    NoSystemError,
    NotInitializedError,
    RmLock,
    RwLock,
    SelfDrainError,
    draining,
    open_callouts,
)
from callout._api import mutex9
from callout._core.state import FIELDS
from callout.freebsd13 import callout_async_drain
from callout.testing import VirtualSMP

E = TypeVar("E", bound=Exception)
Use = Callable[[Callout], object]


def ignore(_: object) -> None:
    """Do nothing."""


def drive(coroutine: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: int = end.value
        return result
    pytest.fail("it waits")


# Every function of a callout, with arguments that are right.
ARMING: Final[dict[str, Use]] = {
    "callout_reset": lambda c: callout.callout_reset(c, 1, ignore, None),
    "callout_reset_on": lambda c: callout.callout_reset_on(c, 1, ignore, None, 0),
    "callout_reset_curcpu": lambda c: callout.callout_reset_curcpu(c, 1, ignore, None),
    "callout_reset_sbt": lambda c: callout.callout_reset_sbt(c, SBT_1S, 0, ignore, None, 0),
    "callout_reset_sbt_on": lambda c: callout.callout_reset_sbt_on(c, SBT_1S, 0, ignore, None, 0, 0),
    "callout_reset_sbt_curcpu": lambda c: callout.callout_reset_sbt_curcpu(c, SBT_1S, 0, ignore, None, 0),
    "callout_arm": lambda c: callout.callout_arm(c, 1, ignore, None),
    "callout_arm_on": lambda c: callout.callout_arm_on(c, 1, ignore, None, 0),
    "callout_arm_curcpu": lambda c: callout.callout_arm_curcpu(c, 1, ignore, None),
}
SCHEDULING: Final[dict[str, Use]] = {
    "callout_schedule": lambda c: callout.callout_schedule(c, 1),
    "callout_schedule_on": lambda c: callout.callout_schedule_on(c, 1, 0),
    "callout_schedule_curcpu": lambda c: callout.callout_schedule_curcpu(c, 1),
    "callout_schedule_sbt": lambda c: callout.callout_schedule_sbt(c, SBT_1S, 0, 0),
    "callout_schedule_sbt_on": lambda c: callout.callout_schedule_sbt_on(c, SBT_1S, 0, 0, 0),
    "callout_schedule_sbt_curcpu": lambda c: callout.callout_schedule_sbt_curcpu(c, SBT_1S, 0, 0),
}
STOPPING: Final[dict[str, Use]] = {
    "callout_stop": callout.callout_stop,
    "callout_drain_async": lambda c: callout.callout_drain_async(c, ignore, None),
    "callout_async_drain": lambda c: callout_async_drain(c, ignore),
}
WAITING: Final[dict[str, Callable[[Callout], Coroutine[Any, Any, int]]]] = {
    "callout_drain": callout.callout_drain,
    "callout_barrier": callout.callout_barrier,
    "callout_terminate": callout.callout_terminate,
    "callout_quiesce": callout.callout_quiesce,
}
BLOCKING: Final[dict[str, Use]] = {
    "callout_drain": callout.callout_drain_sync,
    "callout_barrier": callout.callout_barrier_sync,
    "callout_terminate": callout.callout_terminate_sync,
    "callout_quiesce": callout.callout_quiesce_sync,
}
OTHERS: Final[dict[str, Use]] = {
    "callout_deactivate": callout.callout_deactivate,
    "callout_dequeue": callout.callout_dequeue,
}
LOOKING: Final[dict[str, Use]] = {
    "callout_pending": callout.callout_pending,
    "callout_active": callout.callout_active,
    "callout_terminated": callout.callout_terminated,
    "callout_running": callout.callout_running,
}
CHANGING: Final[dict[str, Use]] = {
    **ARMING,
    **SCHEDULING,
    **STOPPING,
    **{name: lambda c, wait=wait: drive(wait(c)) for name, wait in WAITING.items()},  # type: ignore[misc]  # binds it
    **{f"{name}_sync": use for name, use in BLOCKING.items()},
    **OTHERS,
}


def record(c: Callout) -> tuple[object, ...]:
    """Return all that is known of a callout and of the CPUs of its system."""
    fields = [getattr(c, name) for name in FIELDS]
    cpus = () if c.c_cpu.id < 0 else c.c_cpu.machine.cpus
    return (*fields, *((len(cpu.wheel), cpu.deadline, bool(cpu.softclock.queue)) for cpu in cpus))


@contextmanager
def refused(error: type[E], *words: str, unchanged: Callout | None = None) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect exactly that error, with these words in its text, and *unchanged* exactly as it was."""
    before = None if unchanged is None else record(unchanged)
    with pytest.raises(error) as caught:
        yield caught

    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    assert before == (None if unchanged is None else record(unchanged))


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give a system of two virtual CPUs whose clock does not move by itself."""
    with VirtualSMP(2, free_clock=False) as smp:
        yield smp


def armed(lock: Mtx | RwLock | None = None, flags: int = 0) -> Callout:
    """Return a callout that is pending."""
    c = Callout()
    if lock is None:
        callout.callout_init(c, 1)
    elif isinstance(lock, Mtx):
        callout.callout_init_mtx(c, lock, flags)
    elif isinstance(lock, RmLock):
        callout.callout_init_rm(c, lock, flags)
    else:
        callout.callout_init_rw(c, lock, flags)
    callout.callout_reset(c, 5, ignore, None)
    return c


# -- no system, or not this one --------------------------------------------------------------------------------------

SYSTEMLESS: Final[dict[str, Callable[[], object]]] = {
    "callout_init": lambda: callout.callout_init(Callout(), 1),
    "callout_init_mtx": lambda: callout.callout_init_mtx(Callout(), object(), 0),  # type: ignore[arg-type]  # no lock yet
    "callout_init_rw": lambda: callout.callout_init_rw(Callout(), object(), 0),  # type: ignore[arg-type]  # as above
    "callout_init_rm": lambda: callout.callout_init_rm(Callout(), object(), 0),  # type: ignore[arg-type]  # as above
    "Mtx": lambda: callout.mtx_init("m"),
    "RwLock": lambda: callout.rw_init("rw"),
    "RmLock": lambda: callout.rm_init("rm"),
    "callout_when": lambda: callout.callout_when(SBT_1S, 0),
    "sbinuptime": callout.sbinuptime,
    "ticks": callout.ticks,
    "hz": callout.hz,
    "curcpu": callout.curcpu,
    "giant": callout.giant,
    "mp_ncpus": callout.mp_ncpus,
    "on_cpu": lambda: callout.on_cpu(0),
    "cpu_call": lambda: callout.cpu_call(0, ignore, None),
    "callout_barrier_all": lambda: drive(callout.callout_barrier_all()),
}


@pytest.mark.parametrize("call", SYSTEMLESS)
def test_no_system_is_open(call: str) -> None:
    """Where no system is open, whatever needs one says how to open one."""
    with refused(NoSystemError, f"{call}: ", "async with open_callouts()", "system.bound()"):
        SYSTEMLESS[call]()


@pytest.mark.parametrize("call", [*CHANGING, *LOOKING])
def test_a_callout_that_was_never_initialised(call: str) -> None:
    """Every function of a callout says that it has to be initialised first."""
    c = Callout()
    with refused(NotInitializedError, call.removesuffix("_sync"), "callout_init(c, 1)", unchanged=c):
        (CHANGING | LOOKING)[call](c)


# What the calls want after their callout, by the name of the parameter.
RIGHT: Final[dict[str, Callable[[], object]]] = {
    "arg": lambda: None,
    "cpu": lambda: 0,
    "func": lambda: ignore,
    "mpsafe": lambda: 1,
    "mtx": lambda: Mtx("m"),
    "precision": lambda: 0,
    "rm": lambda: RmLock("rm"),
    "rw": lambda: RwLock("rw"),
    "sbt": lambda: SBT_1S,
    "tick": lambda: 1,
    "ticks": lambda: 1,
}


def of_a_callout(function: Callable[..., object]) -> Callable[[Any], object]:
    """Return *function* as a function of its callout alone; what else it wants is right."""
    _, *others = inspect.signature(function).parameters.values()
    wanted = [each.name for each in others if each.default is each.empty]
    return lambda c: function(c, *(RIGHT[name]() for name in wanted))


def enters(c: Callout) -> None:
    """Enter a block of draining()."""

    async def enter() -> int:
        async with draining(c):
            return 0

    drive(enter())


WANTS_A_CALLOUT: Final[dict[str, Callable[[Any], object]]] = {
    **{
        name: of_a_callout(getattr(callout, name))
        for name in callout.__all__
        if name.startswith("callout_") and "c" in inspect.signature(getattr(callout, name)).parameters
    },
    "callout_async_drain": of_a_callout(callout_async_drain),
    "check_wait": lambda c: callout.check_wait("check_wait", c),
    "check_current": lambda c: callout.check_current("check_current", c),
    "draining": enters,
}


class Unmade(Callout):
    """A callout whose fields were never made."""

    def __init__(self) -> None:
        """Forget the base class."""


class Unshown:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise ZeroDivisionError


class Alike:
    """A session that has fields with the names of a callout's."""

    def __init__(self) -> None:
        self.arg = self.cpu = self.flags = self.func = self.lock = self.run = self.state = self.time = 1


NO_CALLOUTS: Final = [None, 5, "c", callout.Mtx, Unshown(), 10**5000, Callout, Alike()]


def test_the_calls_that_want_a_callout_are_known() -> None:
    """Every call of this file that uses a callout is in the table of those that want one."""
    assert {*CHANGING, *LOOKING, "callout_init", "callout_executing"} <= {*WANTS_A_CALLOUT}


@pytest.mark.parametrize("what", NO_CALLOUTS, ids=type)
@pytest.mark.parametrize("call", WANTS_A_CALLOUT)
def test_what_is_no_callout(vm: VirtualSMP, call: str, what: object) -> None:
    """Every call that wants a callout refuses what is none, and the error knows the call that was made."""
    with pytest.raises(ArgumentTypeError) as caught:
        WANTS_A_CALLOUT[call](what)

    which = "every" if call == "draining" else "the first"
    assert str(caught.value).startswith(f"{call}: {which} argument must be a Callout, not ")
    assert caught.value.call == call


@pytest.mark.parametrize("call", WANTS_A_CALLOUT)
def test_a_callout_that_was_never_made(vm: VirtualSMP, call: str) -> None:
    """Every call that wants a callout refuses one whose class forgot Callout.__init__()."""
    with pytest.raises(NotInitializedError) as caught:
        WANTS_A_CALLOUT[call](Unmade())

    assert str(caught.value).startswith(f"{call}: this Unmade was never made: ")
    assert caught.value.call == call


def test_a_lock_of_another_system(vm: VirtualSMP) -> None:
    """A callout's lock has to belong to the callout's system."""
    c = Callout()
    with VirtualSMP(1):
        foreign = Mtx("foreign")

    with refused(ArgumentValueError, "callout_init_mtx: ", "'foreign'", "another callout system", unchanged=c):
        callout.callout_init_mtx(c, foreign)


# -- initialising ------------------------------------------------------------------------------------------------------


def test_initialising_one_that_is_pending(vm: VirtualSMP) -> None:
    """A pending callout is drained before it is initialised anew."""
    c = armed()
    with refused(BusyError, "callout_init: ", "pending", "drain it", unchanged=c):
        callout.callout_init(c, 1)


def test_initialising_one_that_is_running(vm: VirtualSMP) -> None:
    """A callback cannot initialise its own callout anew."""
    c = Callout()
    refusals: list[bool] = []

    def callback(_: object) -> None:
        with refused(BusyError, "callout_init_mtx: ", "running", "drain it", unchanged=c):
            callout.callout_init_mtx(c, Mtx("m"))
        refusals.append(True)

    callout.callout_init(c, 1)
    callout.callout_reset(c, 1, callback, None)
    vm.tick()
    vm.check()

    assert refusals == [True]


LOCK_CALLS: Final = [name for name in mutex9.__all__ if not name.endswith("_init")]


@pytest.mark.parametrize("name", LOCK_CALLS)
def test_a_call_for_locks_wants_a_lock_of_its_kind(vm: VirtualSMP, name: str) -> None:
    """Every call of mutex(9), rwlock(9) and rmlock(9) refuses what is no lock, and another kind of lock."""
    other = RwLock("other") if name.startswith("mtx_") else Mtx("other")
    for wrong in (5, None, other, Mtx):
        with pytest.raises(ArgumentTypeError, match=f"^{name}: the first argument must be a lock, of type ") as caught:
            getattr(callout, name)(wrong)

        assert caught.value.call == name
    assert not other.holds()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, asyncio.Lock, trio.Lock, lambda: None, object])
@pytest.mark.parametrize("init", [callout.callout_init_mtx, callout.callout_init_rw, callout.callout_init_rm])
def test_locks_that_are_none_of_ours(
    vm: VirtualSMP, init: Callable[[Callout, Any], None], make: Callable[[], object]
) -> None:
    """A lock whose owner softclock cannot know, or that may be held across an await, is no callout's lock."""
    c = Callout()
    with refused(LockClassError, f"{init.__name__}: ", "the lock must be a callout.", "trio.Lock", unchanged=c):
        init(c, make())


@pytest.mark.parametrize(
    ("init", "make"),
    [
        (callout.callout_init_mtx, RwLock),
        (callout.callout_init_mtx, RmLock),
        (callout.callout_init_rw, Mtx),
        (callout.callout_init_rw, RmLock),
        (callout.callout_init_rm, Mtx),
        (callout.callout_init_rm, RwLock),
    ],
)
def test_locks_of_the_wrong_kind(
    vm: VirtualSMP, init: Callable[[Callout, Any], None], make: Callable[[str], object]
) -> None:
    """callout_init_mtx(), _rw() and _rm() accept a lock of their own kind."""
    c = Callout()
    with refused(LockClassError, f"{init.__name__}: ", "the lock must be a callout.", "'wrong'", unchanged=c):
        init(c, make("wrong"))


def test_a_sleepable_lock(vm: VirtualSMP) -> None:
    """A lock that can be held across an await is no callout's lock."""
    c = Callout()
    with refused(LockClassError, "callout_init_rm: ", "held across an await", "not sleepable", unchanged=c):
        callout.callout_init_rm(c, RmLock("rm", RM_SLEEPABLE))


@pytest.mark.parametrize("flags", [1, 0x80, -1, CALLOUT_TRYLOCK | 1])
def test_unknown_lock_flags(vm: VirtualSMP, flags: int) -> None:
    """Only the CALLOUT_* flags are known at initialisation."""
    c = Callout()
    with refused(ArgumentValueError, "callout_init_mtx: unknown flag", unchanged=c):
        callout.callout_init_mtx(c, Mtx("m"), flags)


def test_lock_flags_that_are_no_int(vm: VirtualSMP) -> None:
    """Flags are ints."""
    with refused(ArgumentTypeError, "callout_init_rw: flags must be an int"):
        callout.callout_init_rw(Callout(), RwLock("rw"), None)  # type: ignore[arg-type]  # the mistake


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def coroutine_function(_: object) -> None:
    """Run nothing when called."""


async def asynchronous_generator(_: object) -> AsyncIterator[int]:
    """Run nothing when called."""
    yield 1


def generator(_: object) -> Generator[int]:
    """Run nothing when called."""
    yield 1


class Asynchronous:
    """An object with a coroutine function for its call."""

    async def __call__(self, _: object) -> None:
        """Run nothing when called."""

    async def method(self, _: object) -> None:
        """Run nothing when called."""


NOT_PLAIN: Final[list[object]] = [
    coroutine_function,
    asynchronous_generator,
    generator,
    functools.partial(coroutine_function),
    functools.partial(functools.partial(generator)),
    Asynchronous(),
    Asynchronous().method,
    functools.partial(Asynchronous()),
]
TAKES_CALLBACK: Final[dict[str, Callable[[Callout, Any], object]]] = {
    "callout_reset": lambda c, f: callout.callout_reset(c, 1, f, None),
    "callout_reset_on": lambda c, f: callout.callout_reset_on(c, 1, f, None, 0),
    "callout_reset_curcpu": lambda c, f: callout.callout_reset_curcpu(c, 1, f, None),
    "callout_reset_sbt": lambda c, f: callout.callout_reset_sbt(c, SBT_1S, 0, f, None),
    "callout_reset_sbt_on": lambda c, f: callout.callout_reset_sbt_on(c, SBT_1S, 0, f, None, 0),
    "callout_reset_sbt_curcpu": lambda c, f: callout.callout_reset_sbt_curcpu(c, SBT_1S, 0, f, None),
    "callout_arm": lambda c, f: callout.callout_arm(c, 1, f, None),
    "callout_arm_on": lambda c, f: callout.callout_arm_on(c, 1, f, None, 0),
    "callout_arm_curcpu": lambda c, f: callout.callout_arm_curcpu(c, 1, f, None),
    "callout_drain_async": lambda c, f: callout.callout_drain_async(c, f, None),
    "callout_async_drain": callout_async_drain,
}


@pytest.mark.parametrize("func", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
@pytest.mark.parametrize("call", TAKES_CALLBACK)
def test_callbacks_that_would_run_nothing(vm: VirtualSMP, call: str, func: object) -> None:
    """A coroutine or generator function is refused, however wrapped, with the way to start asynchronous work."""
    c = armed()
    with refused(ArgumentTypeError, f"{call}: ", "plain function", "start_soon", unchanged=c):
        TAKES_CALLBACK[call](c, func)


@pytest.mark.trio
@pytest.mark.parametrize("func", [None, 3, *NOT_PLAIN], ids=range(2 + len(NOT_PLAIN)))
async def test_calls_that_would_run_nothing(func: Callable[..., object]) -> None:
    """What cannot be called, and what would run nothing, is refused by a CPU's call() and by cpu_call()."""
    async with open_callouts() as system:
        with refused(ArgumentTypeError, "call: "):
            system.cpu(0).call(func)
        with refused(ArgumentTypeError, "cpu_call: "):
            callout.cpu_call(0, func)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("func", [None, 3, "ignore", object()])
@pytest.mark.parametrize("call", TAKES_CALLBACK)
def test_callbacks_that_cannot_be_called(vm: VirtualSMP, call: str, func: object, *, fresh: bool) -> None:
    """What cannot be called is refused, also for a callout that has no function yet."""
    c = armed()
    if fresh:
        callout.callout_stop(c)
        callout.callout_init(c, 1)
    with refused(ArgumentTypeError, f"{call}: the callback must be a function", repr(func), unchanged=c):
        TAKES_CALLBACK[call](c, func)


HUGE: Final = 10**5000  # more digits than Python writes


def of_an_int(number: int) -> str:
    """Return how a message shows *number*."""
    return "an int of 16610 bits" if number == HUGE else str(number)


# -- CPUs, times, flags ------------------------------------------------------------------------------------------------

TAKES_CPU: Final[dict[str, Callable[[Callout, Any], object]]] = {
    "callout_reset_on": lambda c, cpu: callout.callout_reset_on(c, 1, ignore, None, cpu),
    "callout_reset_sbt_on": lambda c, cpu: callout.callout_reset_sbt_on(c, SBT_1S, 0, ignore, None, cpu),
    "callout_schedule_on": lambda c, cpu: callout.callout_schedule_on(c, 1, cpu),
    "callout_schedule_sbt_on": lambda c, cpu: callout.callout_schedule_sbt_on(c, SBT_1S, 0, cpu),
    "callout_arm_on": lambda c, cpu: callout.callout_arm_on(c, 1, ignore, None, cpu),
    "on_cpu": lambda _, cpu: callout.on_cpu(cpu),
    "cpu_call": lambda _, cpu: callout.cpu_call(cpu, ignore, None),
}


@pytest.mark.parametrize("cpu", [-1, 2, 1 << 70, HUGE], ids=["negative", "next", "large", "huge"])
@pytest.mark.parametrize("call", TAKES_CPU)
def test_cpus_that_are_not_there(vm: VirtualSMP, call: str, cpu: int) -> None:
    """A CPU that the system does not have is refused, with how many it has."""
    c = armed()
    with refused(ArgumentValueError, f"{call}: there is no cpu {of_an_int(cpu)}", "this system has 2", unchanged=c):
        TAKES_CPU[call](c, cpu)


@pytest.mark.parametrize("cpu", ["0", 0.0, None, True, http.HTTPStatus.OK], ids=str)
@pytest.mark.parametrize("call", TAKES_CPU)
def test_cpus_that_are_no_int(vm: VirtualSMP, call: str, cpu: object) -> None:
    """A CPU is an int; True is not CPU 1."""
    c = armed()
    with refused(
        ArgumentTypeError,
        f"{call}: cpu must be an int",
        "not 200, a HTTPStatus" if cpu == http.HTTPStatus.OK else f"not {cpu!r}",
        unchanged=c,
    ):
        TAKES_CPU[call](c, cpu)


TAKES_TICKS: Final[dict[str, Callable[[Callout, Any], object]]] = {
    "callout_reset": lambda c, ticks: callout.callout_reset(c, ticks, ignore, None),
    "callout_reset_on": lambda c, ticks: callout.callout_reset_on(c, ticks, ignore, None, 0),
    "callout_reset_curcpu": lambda c, ticks: callout.callout_reset_curcpu(c, ticks, ignore, None),
    "callout_schedule": callout.callout_schedule,
    "callout_schedule_on": lambda c, ticks: callout.callout_schedule_on(c, ticks, 0),
    "callout_schedule_curcpu": callout.callout_schedule_curcpu,
}


@pytest.mark.parametrize("ticks", [1.0, float("nan"), None, "1"])
@pytest.mark.parametrize("call", TAKES_TICKS)
def test_ticks_that_are_no_int(vm: VirtualSMP, call: str, ticks: object) -> None:
    """Ticks are ints."""
    c = armed()
    with refused(ArgumentTypeError, f"{call}: ticks must be an int", repr(ticks), unchanged=c):
        TAKES_TICKS[call](c, ticks)


@pytest.mark.parametrize("call", TAKES_TICKS)
def test_too_many_ticks(vm: VirtualSMP, call: str) -> None:
    """Ticks fit into an int of C."""
    c = armed()
    with refused(ArgumentValueError, f"{call}: an int of 16610 bits ticks", "2147483647", unchanged=c):
        TAKES_TICKS[call](c, HUGE)
    with refused(ArgumentValueError, f"{call}: 2147483648 ticks", "2147483647", unchanged=c):
        TAKES_TICKS[call](c, 1 << 31)


TAKES_SBT: Final[dict[str, Callable[[Callout, Any, Any, Any], object]]] = {
    "callout_reset_sbt": lambda c, *a: callout.callout_reset_sbt(c, a[0], a[1], ignore, None, a[2]),
    "callout_reset_sbt_on": lambda c, *a: callout.callout_reset_sbt_on(c, a[0], a[1], ignore, None, 0, a[2]),
    "callout_reset_sbt_curcpu": lambda c, *a: callout.callout_reset_sbt_curcpu(c, a[0], a[1], ignore, None, a[2]),
    "callout_schedule_sbt": callout.callout_schedule_sbt,
    "callout_schedule_sbt_on": lambda c, *a: callout.callout_schedule_sbt_on(c, a[0], a[1], 0, a[2]),
    "callout_schedule_sbt_curcpu": callout.callout_schedule_sbt_curcpu,
    "callout_when": lambda _, *a: callout.callout_when(*a),
}


@pytest.mark.parametrize("time", [float("nan"), 1.5, None, "1"])
@pytest.mark.parametrize("call", TAKES_SBT)
def test_times_that_are_no_sbintime(vm: VirtualSMP, call: str, time: object) -> None:
    """Time and precision are ints; NaN and other floats are refused, with the unit."""
    c = armed()
    with refused(ArgumentTypeError, f"{call}: sbt must be an int of sbintime", repr(time), unchanged=c):
        TAKES_SBT[call](c, time, 0, 0)
    with refused(ArgumentTypeError, f"{call}: precision must be an int of sbintime", unchanged=c):
        TAKES_SBT[call](c, SBT_1S, time, 0)


@pytest.mark.parametrize("flags", [0, C_ABSOLUTE])
@pytest.mark.parametrize("call", TAKES_SBT)
def test_times_out_of_range(vm: VirtualSMP, call: str, flags: int) -> None:
    """Negative and over-large times and precisions are refused."""
    c = armed()
    for args, what in (((-1, 0), "sbt"), ((SBT_1S, -1), "precision")):
        with refused(ArgumentValueError, f"{call}: {what} must not be negative, got -1", unchanged=c):
            TAKES_SBT[call](c, *args, flags)
    for args in ((HUGE, 0), (-HUGE, 0), (SBT_1S, HUGE)):
        with refused(ArgumentValueError, f"{call}: ", "an int of 16610 bits", unchanged=c):
            TAKES_SBT[call](c, *args, flags)
    for args, what in (((SBT_MAX + 1, 0), "sbt"), ((SBT_1S, SBT_MAX + 1), "precision")):
        with refused(ArgumentValueError, f"{call}: {what} ", "SBT_MAX", unchanged=c):
            TAKES_SBT[call](c, *args, flags)


@pytest.mark.parametrize("call", TAKES_SBT)
def test_unknown_flags(vm: VirtualSMP, call: str) -> None:
    """Only the C_* flags are known; the message shows the bits that are not."""
    c = armed()
    with refused(ArgumentValueError, f"{call}: unknown flag 0x1000", unchanged=c):
        TAKES_SBT[call](c, SBT_1S, 0, C_DIRECT_EXEC | 0x1000)
    with refused(ArgumentValueError, f"{call}: unknown flag an int of ", unchanged=c):
        TAKES_SBT[call](c, SBT_1S, 0, HUGE)
    with refused(ArgumentTypeError, f"{call}: flags must be an int", unchanged=c):
        TAKES_SBT[call](c, SBT_1S, 0, 1.0)


@pytest.mark.parametrize("call", ["callout_arm", "callout_arm_on", "callout_arm_curcpu"])
def test_unknown_conditions(vm: VirtualSMP, call: str) -> None:
    """callout_arm() and its relatives know the ARM_* flags only, and want their tick as an int."""
    c = armed()
    args: tuple[Any, ...] = (0,) if call == "callout_arm_on" else ()
    with refused(ArgumentValueError, f"{call}: unknown flag 0x4000", unchanged=c):
        getattr(callout, call)(c, 1, ignore, None, *args, 0x4000)
    with refused(ArgumentTypeError, f"{call}: tick must be an int", unchanged=c):
        getattr(callout, call)(c, 1.0, ignore, None, *args)


@pytest.mark.parametrize("x", [-1, 63, HUGE], ids=["negative", "next", "huge"])
def test_c_prel_out_of_range(x: int) -> None:
    """C_PREL() takes 0 to 62."""
    with refused(ArgumentValueError, "C_PREL: x must be ", "0 to 62"):
        C_PREL(x)


CONVERTS: Final[dict[str, Callable[[Any], object]]] = {
    name: getattr(callout, name)
    for name in (
        *("C_PREL", "C_PRELGET", "sbttons", "sbttous", "sbttoms", "nstosbt", "ustosbt", "mstosbt"),
        *("sbttots", "sbttotv", "tstosbt", "tvtosbt"),
    )
}


@pytest.mark.parametrize("what", ["x", 1.5, None, ("x", 1), (HUGE, None)], ids=range(5))
@pytest.mark.parametrize("call", CONVERTS)
def test_what_cannot_be_converted(call: str, what: object) -> None:
    """The conversions of time and the macros of precision want ints, and the error knows which of them was called."""
    with refused(ArgumentTypeError, f"{call}: ") as caught:
        CONVERTS[call](what)

    assert caught.value.call == call


# -- ints that are more ------------------------------------------------------------------------------------------------


def fails(*_: object) -> NoReturn:
    """Fail."""
    raise ZeroDivisionError


# An int whose own code always fails.
Loud: Final[Callable[[int], int]] = type(
    "Loud",
    (int,),
    {name: fails for name, code in vars(int).items() if callable(code) and name not in ("__new__", "__getattribute__")},
)

TakesInts = Callable[[Callout, Callable[[int], int]], object]


def as_ticks(call: Callable[[Callout, Any], object]) -> TakesInts:
    """Return *call* with ticks."""
    return lambda c, i: call(c, i(5))


def as_sbt(call: Callable[[Callout, Any, Any, Any], object]) -> TakesInts:
    """Return *call* with time, precision and flags."""
    return lambda c, i: call(c, i(SBT_1S), i(7), i(C_HARDCLOCK | C_ABSOLUTE))


def as_number(call: Callable[[Any], object]) -> TakesInts:
    """Return *call* with a number, or a pair of them if that is what it wants."""
    pair = call in (callout.tstosbt, callout.tvtosbt)
    return lambda _, i: call((i(5), i(7)) if pair else i(5))


# Calls that are carried out with the very ints that they were given.
TAKES_INTS: Final[dict[str, TakesInts]] = {
    **{name: as_ticks(call) for name, call in TAKES_TICKS.items()},
    **{name: as_sbt(call) for name, call in TAKES_SBT.items()},
    **{name: as_number(call) for name, call in CONVERTS.items()},
    "callout_arm": lambda c, i: callout.callout_arm(c, i(5), ignore, None, i(ARM_IF_EARLIER)),
    "callout_arm_on": lambda c, i: callout.callout_arm_on(c, i(5), ignore, None, 0, i(ARM_IF_EARLIER)),
    "callout_arm_curcpu": lambda c, i: callout.callout_arm_curcpu(c, i(5), ignore, None, i(ARM_IF_EARLIER)),
    "callout_init_mtx": lambda _, i: callout.callout_init_mtx(Callout(), Mtx("m"), i(CALLOUT_TRYLOCK)),
    "pause": lambda _, i: waits(callout.pause("w", i(5))),
    "pause_sbt": lambda _, i: waits(callout.pause_sbt("w", i(SBT_1S), i(7), i(C_HARDCLOCK))),
    "tsleep": lambda _, i: waits(callout.tsleep(object(), i(callout.PDROP), "w", i(5))),
    "wait": lambda _, i: waits(callout.Event().wait(i(5))),
}


def waits(coroutine: Coroutine[Any, Any, int]) -> int:
    """End a wait that has not begun; what is wrong with it was said before."""
    coroutine.close()
    return 0


def as_it_was_left(c: Callout) -> tuple[object, ...]:
    """Return when and how *c* will run."""
    assert {*map(type, (c.time, c.filed, c.precision, c.state, c.flags))} == {int}
    return c.time, c.filed, c.precision, c.state


@pytest.mark.parametrize(
    "call",
    TAKES_INTS,
)
def test_no_code_of_an_int_runs(call: str) -> None:
    """An int of a subclass does what an int does, and none of the subclass's code runs: a lock may be held there."""
    ends: list[tuple[object, ...]] = []
    for kind in (int, Loud):
        with VirtualSMP(1, free_clock=False):
            c = armed()
            result = TAKES_INTS[call](c, kind)
            ends.append((result, *as_it_was_left(c)))

    assert ends[0] == ends[1]


# -- locks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", STOPPING)
@pytest.mark.parametrize("kind", [Mtx, RwLock, RmLock])
def test_stopping_without_the_callouts_lock(vm: VirtualSMP, call: str, kind: Callable[[str], Any]) -> None:
    """Stopping a callout wants its lock held, for writing."""
    lock = kind("mine")
    c = armed(lock)
    with refused(LockNotHeldError, f"{call}: acquire ", "'mine'", "Callout", unchanged=c):
        STOPPING[call](c)
    if kind is not Mtx:
        with lock.read(), refused(LockNotHeldError, f"{call}: acquire ", "'mine'", unchanged=c):
            STOPPING[call](c)


DIRECT: Final[dict[str, Use]] = {
    "callout_reset_sbt": lambda c: callout.callout_reset_sbt(c, SBT_1S, 0, ignore, None, C_DIRECT_EXEC),
    "callout_reset_sbt_on": lambda c: callout.callout_reset_sbt_on(c, SBT_1S, 0, ignore, None, 1, C_DIRECT_EXEC),
    "callout_schedule_sbt": lambda c: callout.callout_schedule_sbt(c, SBT_1S, 0, C_DIRECT_EXEC),
    "callout_schedule_sbt_curcpu": lambda c: callout.callout_schedule_sbt_curcpu(c, SBT_1S, 0, C_DIRECT_EXEC),
}


@pytest.mark.parametrize("call", DIRECT)
@pytest.mark.parametrize("kind", ["mutex", "Giant", "rw", "shared"])
def test_direct_execution_with_a_lock_that_may_not(vm: VirtualSMP, call: str, kind: str) -> None:
    """Only a callout with a spin mutex or without a lock runs in the clock interrupt."""
    if kind == "Giant":
        c = Callout()
        callout.callout_init(c, 0)
        callout.callout_reset(c, 5, ignore, None)
    elif kind == "mutex":
        c = armed(Mtx("m"))
    else:
        c = armed(RwLock("rw"), CALLOUT_SHAREDLOCK if kind == "shared" else 0)
    with refused(LockClassError, f"{call}: C_DIRECT_EXEC", "spin mutex", unchanged=c):
        DIRECT[call](c)


@pytest.mark.parametrize("call", SCHEDULING)
def test_scheduling_before_any_reset(vm: VirtualSMP, call: str) -> None:
    """callout_schedule() and its relatives need a function from an earlier callout_reset()."""
    c = Callout()
    callout.callout_init(c, 1)
    with refused(NeverArmedError, f"{call}: ", "callout_reset() first", unchanged=c):
        SCHEDULING[call](c)


@pytest.mark.parametrize("call", WAITING)
def test_waiting_in_its_own_callback(vm: VirtualSMP, call: str) -> None:
    """A callback that waits for its own callout is told that this would never end, however it does it."""
    c = Callout()
    refusals: list[bool] = []

    def callback(_: object) -> None:
        with refused(SelfDrainError, f"{call}: ", "its own callback", unchanged=c):
            drive(WAITING[call](c))
        with pytest.raises((SelfDrainError, LoopThreadError), match=call):
            BLOCKING[call](c)
        refusals.append(True)

    callout.callout_init(c, 1)
    callout.callout_reset(c, 1, callback, None)
    vm.tick()
    vm.check()

    assert refusals == [True]
    assert callout.callout_terminated(c) == 0


@pytest.mark.parametrize("call", WAITING)
@pytest.mark.parametrize("checking", [True, False])
def test_waiting_with_the_callouts_lock_held(call: str, *, checking: bool) -> None:
    """Waiting with the callout's own lock held is an error in checking mode and without, also when nothing runs."""
    with VirtualSMP(1, free_clock=False, checking=checking):
        for lock in (Mtx("mine"), Mtx("mine", MTX_SPIN), RwLock("mine"), RmLock("mine")):
            c = armed(lock)
            with lock, refused(LockHeldError, f"{call}: release ", "'mine'", unchanged=c):
                drive(WAITING[call](c))
            with lock, refused(LockHeldError, call, ": release ", "'mine'", unchanged=c):
                BLOCKING[call](c)
        rw = RwLock("mine")
        c = armed(rw)
        with rw.read(), refused(LockHeldError, f"{call}: release ", "'mine'", unchanged=c):
            drive(WAITING[call](c))


# Blocking calls in whose errors the call to await instead is still named.
@pytest.mark.parametrize(
    "call",
    BLOCKING,
)
def test_a_blocking_call_is_named_as_it_was_made(vm: VirtualSMP, call: str) -> None:
    """The errors of a call that blocks the thread have its own name, not that of the call that is awaited."""
    lock = Mtx("mine")
    c = armed(lock)
    with lock, pytest.raises(LockHeldError) as caught:
        BLOCKING[call](c)

    assert caught.value.call == f"{call}_sync"
    assert str(caught.value).startswith(f"{call}_sync: release ")


@pytest.mark.parametrize("call", WAITING)
def test_waiting_with_another_lock_held(vm: VirtualSMP, call: str) -> None:
    """In checking mode waiting with any lock but Giant held is an error."""
    other, c = Mtx("other"), armed(Mtx("mine"))
    with other, refused(LockHeldError, f"{call}: release ", "'other'", unchanged=c):
        drive(WAITING[call](c))
    with callout.giant():
        assert drive(WAITING[call](c)) in (0, 1)


def test_what_locks_refuse(vm: VirtualSMP) -> None:
    """Unknown options and assertions that mean nothing are refused."""
    with refused(ArgumentValueError, "mtx_init: unknown option 0x20"):
        Mtx("m", 0x20)
    with refused(ArgumentTypeError, "mtx_init: type must be a str or None, not 1", "third argument"):
        callout.mtx_init("m", MTX_SPIN)  # type: ignore[arg-type]  # as an option, which it is not
    with refused(ArgumentValueError, "rw_init: unknown option 0x2"):
        RwLock("rw", 2)
    with refused(ArgumentValueError, "rm_init: unknown option 0x8"):
        RmLock("rm", 8)
    with refused(ArgumentValueError, "mtx_assert: give MA_OWNED"):
        callout.mtx_assert(Mtx("m"), MA_RECURSED)
    with refused(ArgumentValueError, "rw_assert: give RA_LOCKED"):
        callout.rw_assert(RwLock("rw"), MA_OWNED | 0x10)
    with refused(LockClassError, "mtx_lock: 's' is a spin mutex", "mtx_lock_spin"):
        callout.mtx_lock(Mtx("s", MTX_SPIN))
    with refused(LockClassError, "mtx_lock_spin: 'm' is a default mutex", "use mtx_lock"):
        callout.mtx_lock_spin(Mtx("m"))


# -- the system --------------------------------------------------------------------------------------------------------

OPTIONS: Final[list[tuple[dict[str, Any], type[Exception], str]]] = [
    ({"cpus": 0}, ArgumentValueError, "cpus must be from 1 to 1024, got 0"),
    ({"cpus": 1025}, ArgumentValueError, "cpus must be from 1"),
    ({"cpus": True}, ArgumentTypeError, "cpus must be an int"),
    ({"cpus": "2"}, ArgumentTypeError, "cpus must be an int"),
    ({"hz": 0}, ArgumentValueError, "hz must be from 1"),
    ({"hz": 1e3}, ArgumentTypeError, "hz must be an int"),
    ({"hz": 1_000_001}, ArgumentValueError, "hz must be from 1"),
    ({"alloweddeviation": -1}, ArgumentValueError, "alloweddeviation must be from 0 to 100"),
    ({"alloweddeviation": 101}, ArgumentValueError, "alloweddeviation must be from 0 to 100"),
    ({"alloweddeviation": 0.5}, ArgumentTypeError, "alloweddeviation must be an int"),
    ({"on_error": 3}, ArgumentTypeError, "on_error must be a function"),
    ({"expensive": 0}, ArgumentValueError, "expensive must be a number of seconds"),
    ({"expensive": -1.0}, ArgumentValueError, "expensive must be a number of seconds"),
    ({"expensive": float("nan")}, ArgumentValueError, "expensive must be a number of seconds"),
    ({"expensive": "1"}, ArgumentTypeError, "expensive must be a number of seconds"),
]


@pytest.mark.parametrize(("options", "error", "text"), OPTIONS)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """A wrong option of open_callouts() is refused, and no thread and no system is left of the attempt."""
    threads = set(threading.enumerate())

    async def main() -> None:
        with refused(error, f"open_callouts: {text}"):
            async with open_callouts(**options):
                pytest.fail("opened")
        with pytest.raises(NoSystemError):
            callout.hz()

    trio.run(main)

    assert set(threading.enumerate()) <= threads


@pytest.mark.trio
async def test_an_infinite_limit_is_none() -> None:
    """expensive=inf is no mistake: no callback is ever too slow."""
    async with open_callouts(expensive=float("inf")) as system:
        assert system.cpus == 1


@pytest.mark.trio
async def test_a_mock_clock_drives_one_cpu(autojump_clock: trio.testing.MockClock) -> None:
    """Under a mock clock a second CPU is refused."""
    with refused(ClockError, "open_callouts: ", "mock clock", "cpus=1, not 2"):
        async with open_callouts(cpus=2):
            pytest.fail("opened")


def closed_callout() -> Callout:
    """Return a callout of a system that was closed while it was pending."""
    c = Callout()

    async def main() -> None:
        async with open_callouts():
            callout.callout_init(c, 1)
            callout.callout_reset(c, 1000, ignore, None)

    trio.run(main)
    return c


@pytest.mark.parametrize("call", CHANGING)
def test_use_after_close(call: str) -> None:
    """Every function that could change a callout says that its system was closed."""
    c = closed_callout()
    with refused(ClosedError, call.removesuffix("_sync"), "was closed", "open_callouts()", unchanged=c):
        CHANGING[call](c)


@pytest.mark.parametrize("call", STOPPING)
def test_stopping_after_close_without_the_callouts_lock(call: str) -> None:
    """Of a closed system's callout that has a lock the error says that the system was closed, held or not."""
    c, mtx = Callout(), []

    async def main() -> None:
        async with open_callouts():
            mtx.append(Mtx("mine"))
            callout.callout_init_mtx(c, mtx[0])
            callout.callout_reset(c, 1000, ignore, None)

    trio.run(main)

    with refused(ClosedError, f"{call}: ", "was closed", unchanged=c):
        STOPPING[call](c)
    with mtx[0], refused(ClosedError, call, "was closed", unchanged=c):
        STOPPING[call](c)


@pytest.mark.parametrize("call", LOOKING)
def test_looking_after_close(call: str) -> None:
    """Of a closed system nothing is pending, active, terminated or running: that may still be asked."""
    assert LOOKING[call](closed_callout()) == 0


@pytest.mark.trio
async def test_a_closed_system_takes_nothing_new() -> None:
    """A closed system takes no callout where it is still the current one, and neither tasks nor calls."""
    system: callout.CalloutSystem | None = None
    refusals: list[bool] = []

    async def outlives(closed: trio.Event) -> None:
        await closed.wait()
        with refused(ClosedError, "callout_init: ", "was closed"):
            callout.callout_init(Callout(), 1)
        refusals.append(True)

    async with trio.open_nursery() as nursery:
        closed = trio.Event()
        async with open_callouts() as system:
            nursery.start_soon(outlives, closed)  # a task inherits the current system from who starts it
        closed.set()
    with refused(ClosedError, "start_soon: ", "was closed"):
        system.cpu(0).start_soon(trio.sleep, 0)
    with refused(ClosedError, "call: ", "was closed"):
        system.cpu(0).call(ignore, None)

    assert refusals == [True]


def in_child(check: Callable[[], None]) -> str:
    """Run *check* in a forked child; return what it raised there, "" if nothing."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the child uses none
        child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException as error:
            os.write(write, repr(error).encode()[:1000])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.trio
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_use_in_a_forked_child() -> None:
    """In a forked child every function that could change a callout says whose system it is; the parent's goes on."""
    async with open_callouts() as system:
        ran = trio.Event()
        c, fires = Callout(), Callout()
        mtx = Mtx("m")
        callout.callout_init(c, 1)
        callout.callout_reset(c, 100_000, ignore, None)

        def check() -> None:
            for call, use in CHANGING.items():
                if not call.endswith("_sync"):  # refused in any thread of a loop, and this still looks like one
                    with refused(ForkedError, call, "forked child", "open one of your own", unchanged=c):
                        use(c)
            with refused(ForkedError, "forked child"):
                mtx.lock()  # held for ever by a thread that is not there
            with refused(ForkedError, "forked child"):
                callout.callout_init(Callout(), 1)
            with refused(ForkedError, "forked child"):
                system.cpu(0).start_soon(trio.sleep, 0)
            with refused(ForkedError, "forked child"):
                system.cpu(0).call(ignore, None)

        def hold(taken: trio.Event, done: threading.Event) -> None:
            with mtx:
                trio.from_thread.run_sync(taken.set)
                done.wait()

        async with trio.open_nursery() as nursery:
            taken, done = trio.Event(), threading.Event()
            nursery.start_soon(trio.to_thread.run_sync, hold, taken, done)
            await taken.wait()
            text = in_child(check)
            done.set()

        assert text == ""

        callout.callout_init(fires, 1)
        callout.callout_reset(fires, 1, lambda _: ran.set(), None)
        await ran.wait()

        assert callout.callout_stop(c) == 1


# -- threads and loops -------------------------------------------------------------------------------------------------


@pytest.mark.trio
@pytest.mark.parametrize("call", BLOCKING)
async def test_blocking_a_loop(call: str) -> None:
    """A call that blocks the thread is refused in a thread that runs a loop of trio, with the call to await instead."""
    async with open_callouts():
        c = armed()
        with refused(LoopThreadError, f"{call}_sync: ", "event loop", f"await {call}(c)", unchanged=c):
            BLOCKING[call](c)
        with refused(LoopThreadError, "callout_barrier_all_sync: ", "await callout_barrier_all()"):
            callout.callout_barrier_all_sync()


@pytest.mark.trio
async def test_blocking_a_loop_of_asyncio() -> None:
    """A call that blocks the thread is refused in a thread that runs a loop of asyncio."""
    async with open_callouts():
        c = armed()

        async def elsewhere() -> None:
            with refused(LoopThreadError, "callout_drain_sync: ", "event loop", unchanged=c):
                callout.callout_drain_sync(c)

        await trio.to_thread.run_sync(asyncio.run, elsewhere())


@pytest.mark.trio
async def test_binding_a_thread_wrongly() -> None:
    """system.bound() wants a CPU that is there, and a thread that is not the loop of one."""
    async with open_callouts() as system:

        def thread() -> None:
            with refused(ArgumentValueError, "bound: there is no cpu 1"), system.bound(1):
                pytest.fail("bound")
            with refused(ArgumentTypeError, "bound: cpu must be an int"), system.bound(True):
                pytest.fail("bound")

        await trio.to_thread.run_sync(thread)
        with refused(ArgumentValueError, "system.cpu: there is no cpu 1"):
            system.cpu(1)
    async with open_callouts(2) as system:
        with refused(ArgumentValueError, "bound: this thread is the loop of cpu 0"), system.bound(1):
            pytest.fail("bound")


# -- extras ------------------------------------------------------------------------------------------------------------

WITHOUT_GREENLET: Final = """
import sys
sys.modules["greenlet"] = None  # the import fails, as if it were not installed
import trio
import callout, callout.testing

async def main():
    async with callout.open_callouts():
        ran = trio.Event()
        c = callout.Callout()
        callout.callout_init(c, 1)
        callout.callout_reset(c, 1, lambda _: ran.set(), None)
        await ran.wait()

trio.run(main)
for name in ("callout._worlds.virtual.platform", "callout.explore"):
    try:
        __import__(name)
    except callout.MissingExtraError as error:
        assert "callout[explore]" in str(error), error
        print(name, "refused")
try:
    callout.testing.VirtualSMP
except callout.MissingExtraError as error:
    print("VirtualSMP refused")
"""


def test_greenlet_is_missing() -> None:
    """Without greenlet all works but the virtual platform and what stands on it, which name the extra to install."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_GREENLET], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "callout._worlds.virtual.platform refused",
        "callout.explore refused",
        "VirtualSMP refused",
    ]
