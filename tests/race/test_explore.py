"""explore() itself: what must not be certified, what must not hang, and what a schedule says."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

import greenlet
import pytest
import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    CalloutError,
    ClosedError,
    DeadlockError,
    Event,
    LivelockError,
    LockError,
    LockNotHeldError,
    LoopThreadError,
    Mtx,
    NoSystemError,
    UseAfterFree,
    callout_drain,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_stop,
    tsleep_sync,
    wakeup,
)
from callout._core.state import CAREFUL
from callout.explore import NondeterminismError, NotModelledError, Violation, explore, replay
from callout.explore._run import MAX_STEPS
from callout.explore._schedule import name_of
from callout.testing import Slab, VirtualSMP

Scenario = Callable[[VirtualSMP], object]
T = TypeVar("T")


def found(scenario: Scenario, *, cpus: int = 2, bound: int = 1) -> BaseException:
    """Explore and find something; return what it was."""
    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=cpus, bound=bound, schedules=5000, shrink=False)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


def nothing(_: object) -> None:
    """Be a callback."""


def armed(callback: Callable[[Any], object] = nothing) -> Callout:
    """Return a callout that is armed."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, callback, None)
    return c


# -- waiting for what never comes ------------------------------------------------------------------------------------


def waits_in_a_thread(vm: VirtualSMP) -> None:
    """A thread."""
    vm.spawn(Event().wait_sync, name="forlorn")
    vm.settle()


def waits_in_a_task(vm: VirtualSMP) -> None:
    """A task."""
    vm.spawn(Event().wait, name="forlorn", cpu=1)
    vm.settle()


def waits_crosswise(vm: VirtualSMP) -> None:
    """Two tasks, each for what the other does afterwards."""
    one, other = Event(), Event()

    async def task(mine: Event, yours: Event) -> None:
        await mine.wait()
        yours.set()

    vm.spawn(task, one, other, name="forlorn", cpu=0)
    vm.spawn(task, other, one, cpu=1)


def waits_at_a_lock(vm: VirtualSMP) -> None:
    """A thread, at the lock that another has left held."""
    lock = Mtx("kept")
    lock.lock()
    vm.spawn(lock.lock, name="forlorn")


def parks_for_ever(vm: VirtualSMP) -> None:
    """Softclock, at a callout's lock that is never released."""
    lock = Mtx("kept")
    c = Callout()
    callout_init_mtx(c, lock)
    with lock:
        callout_reset(c, 1, nothing, None)
    lock.lock()


def loop_is_blocked(vm: VirtualSMP) -> None:
    """A whole CPU, behind a callback that blocks its loop."""
    lock = Mtx("kept")
    lock.lock()

    def callback(_: object) -> None:
        with lock:
            pass

    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, callback, None)


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (waits_in_a_thread, "forlorn waits for a wake-up, at .*in Event|forlorn waits for a wake-up"),
        (waits_in_a_task, "forlorn waits for a wake-up"),
        (waits_crosswise, "forlorn waits for a wake-up, at .*task"),
        (waits_at_a_lock, "forlorn waits for the lock 'kept', which main holds"),
        (parks_for_ever, "cpu0 waits for a wake-up"),
        (loop_is_blocked, "cpu0 waits for the lock 'kept', which main holds, at .*callback"),
    ],
)
def test_a_wait_for_ever_is_a_deadlock(scenario: Scenario, says: str) -> None:
    """A thread, a task or a softclock that waits for what never comes is reported, with what it waits for."""
    error = found(scenario)

    assert isinstance(error, DeadlockError)
    assert re.search(says, str(error)), str(error)


def test_idle_softclocks_and_interrupts_may_wait_for_ever() -> None:
    """A system with nothing to do is no deadlock."""
    assert explore(lambda vm: None, cpus=3, bound=1).exhausted


@pytest.mark.parametrize("cpu", [None, 1])
def test_a_lock_that_was_never_released_is_a_violation(cpu: int | None) -> None:
    """A thread or task that ends with a lock held is reported, though nobody waits for it."""

    def scenario(vm: VirtualSMP) -> None:
        vm.spawn(Mtx("kept").lock, name="forgetful", cpu=cpu)

    error = found(scenario)
    assert isinstance(error, LockError)
    assert not isinstance(error, LockNotHeldError)
    assert "still holds" in str(error)


# -- what a slab reported ----------------------------------------------------------------------------------------------


class Thing:
    """Something to free."""

    def use(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("where", ["thread", "callback"])
def test_a_report_that_was_swallowed_is_a_violation(where: str) -> None:
    """A use after free goes into no certificate, wherever the error was caught."""

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Thing] = Slab("thing")
        thing = slab.alloc(Thing)
        slab.free(thing)

        def use(_: object = None) -> None:
            try:
                thing.use()
            except Exception:  # noqa: S110 - what user code does
                pass

        if where == "callback":
            armed(use)
        else:
            vm.spawn(use)
        vm.settle()

    assert isinstance(found(scenario), UseAfterFree)


# -- what survives a schedule ------------------------------------------------------------------------------------------


def test_what_survives_from_an_earlier_schedule_is_told_at_once() -> None:
    """A lock, callout or event in a lazy global is refused in the next schedule, with an error that says why."""
    kept: dict[str, Any] = {}

    def lazily(name: str, make: Callable[[], T]) -> T:
        if name not in kept:
            kept[name] = make()
        it: T = kept[name]
        return it

    def lock(vm: VirtualSMP) -> None:
        it = lazily("lock", lambda: Mtx("lazy"))

        def use() -> None:
            with it:
                pass

        vm.spawn(use)
        vm.spawn(it.owned)

    def callout(vm: VirtualSMP) -> None:
        c = lazily("callout", armed)
        for _ in range(2):
            vm.spawn(callout_stop, c)

    def event(vm: VirtualSMP) -> None:
        it = lazily("event", Event)
        vm.spawn(it.wait_sync)
        vm.spawn(it.set)

    left = "this virtual callout system was left"
    for scenario in (lock, callout):
        with pytest.raises(NondeterminismError, match=left):
            explore(scenario, bound=1)
        kept.clear()
        replay(scenario, f"v4,{name_of(scenario)},cpus=1,hz=1000,paths=short:,choices=0")
        with pytest.raises(ClosedError, match=left):
            replay(scenario, f"v4,{name_of(scenario)},cpus=1,hz=1000,paths=short:,choices=0")
    with pytest.raises(NondeterminismError, match="does it keep anything"):  # it was set, and stays so after the close
        explore(event, bound=1)


# -- determinism -------------------------------------------------------------------------------------------------------


def test_a_run_that_ends_before_its_prefix_is_used_up_is_nondeterminism() -> None:
    """A singleton that the first run makes is noticed in the second."""
    made: list[int] = []

    def get(lock: Mtx) -> None:
        if not made:
            with lock:
                made.append(1)

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("cache")
        for name in "ab":
            vm.spawn(get, lock, name=name)

    with pytest.raises(NondeterminismError, match="does it keep anything"):
        explore(scenario, bound=2)


@pytest.mark.parametrize("differs", ["names", "more", "fewer", "later"])
def test_a_run_with_other_options_is_nondeterminism(differs: str) -> None:
    """At each choice that is repeated the same contexts can run, after as many switch points."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        first = len(runs) == 1
        name = "a" if first or differs != "names" else "b"
        for _ in range({"more": 1 if first else 2, "fewer": 2 if first else 1}.get(differs, 1)):
            vm.spawn(vm.platform.point, name=name)
        if differs == "later" and not first:
            vm.platform.steps += 1
        vm.platform.point()

    with pytest.raises(NondeterminismError, match="not deterministic"):
        explore(scenario, bound=2)


def test_what_the_first_run_leaves_behind_is_noticed_though_it_is_the_only_one() -> None:
    """The first schedule is run again at the end."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        if not runs:
            vm.platform.point()
        runs.append(1)

    with pytest.raises(NondeterminismError, match="schedule 1, run again"):
        explore(scenario, bound=0)
    assert len(runs) == 2


# -- scenarios that would run nothing ----------------------------------------------------------------------------------


async def coroutine_scenario(vm: VirtualSMP) -> None:
    """Await two things, and be wrong in one schedule."""
    c = armed()
    event = Event()
    vm.spawn(event.set)
    await event.wait()
    if await callout_drain(c) == 1:
        raise AssertionError("it was drained before it ran")


def test_a_coroutine_function_is_a_scenario() -> None:
    """Its awaits are callout's own, and what goes wrong in it is found."""
    assert "drained before" in str(found(coroutine_scenario))


@pytest.mark.parametrize("cpu", [None, 1])
def test_a_coroutine_function_is_spawned(cpu: int | None) -> None:
    """As a thread that runs a loop of its own, or as a task."""

    async def body() -> None:
        await callout_drain(armed())
        raise AssertionError("here")

    assert "here" in str(found(lambda vm: vm.spawn(body, cpu=cpu)))


async def awaits_something_else(vm: VirtualSMP) -> None:
    """Await what is not callout's."""
    await asyncio.sleep(0)


def test_awaiting_anything_else_is_an_error() -> None:
    """An await of asyncio's, or trio's, is told what can be awaited."""
    with pytest.raises(NotModelledError, match="only callout's own awaitables"):
        explore(awaits_something_else)
    with pytest.raises(CalloutError, match="only callout's own awaitables"):  # by what it waits for, not by its name
        replay(awaits_something_else, "v4,awaits_something_else,cpus=1,hz=1000,paths=short:,choices=0")

    async def inside_trio() -> None:
        with pytest.raises(NotModelledError, match="only callout's own awaitables"):
            explore(lambda vm: vm.spawn(trio.sleep, 0))

    trio.run(inside_trio)


def generator_scenario(vm: VirtualSMP) -> Iterator[None]:
    """Yield."""
    raise AssertionError("never run")
    yield


async def async_generator_scenario(vm: VirtualSMP) -> AsyncIterator[None]:
    """Yield, too."""
    raise AssertionError("never run")
    yield


@pytest.mark.parametrize("scenario", [generator_scenario, async_generator_scenario, None, 3, "scenario"])
def test_what_would_run_nothing_is_refused(scenario: Scenario) -> None:
    """A generator function, or what cannot be called, is no scenario and no thread."""
    with VirtualSMP() as vm:
        for call in (
            lambda: explore(scenario),
            lambda: replay(scenario, f"v4,{name_of(scenario)},cpus=1,hz=1000,paths=short:,choices=0"),
            lambda: vm.spawn(scenario),
        ):
            with pytest.raises(ArgumentTypeError):
                call()


def test_a_coroutine_is_refused() -> None:
    """A coroutine can be run once only, so it is neither a scenario nor a thread."""
    with VirtualSMP() as vm:
        with pytest.raises(ArgumentTypeError, match="the coroutine function"):
            explore(coroutine_scenario(vm))  # type: ignore[arg-type]  # that is the point
        with pytest.raises(ArgumentTypeError, match="the coroutine function"):
            vm.spawn(coroutine_scenario(vm))  # type: ignore[arg-type]  # as above
        with pytest.raises(ArgumentTypeError, match=r"vm\.run"):
            vm.run(coroutine_scenario(vm))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("scenario", [lambda vm: coroutine_scenario(vm), lambda vm: generator_scenario(vm)])
def test_a_function_that_returns_what_nobody_runs_is_a_violation(scenario: Scenario) -> None:
    """A lambda hides what a generator or coroutine function is, until it is called."""
    assert isinstance(found(scenario), ArgumentTypeError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_real_thread_in_a_scenario_is_refused() -> None:
    """A thread that vm.spawn() did not start cannot use the system, and does not go unheard."""

    def scenario(vm: VirtualSMP) -> None:
        thread = threading.Thread(target=callout_stop, args=(armed(),))
        thread.start()
        thread.join()
        vm.settle()

    with pytest.raises(NoSystemError):
        replay(scenario, f"v4,{name_of(scenario)},cpus=1,hz=1000,paths=short:,choices=0")  # explore() refuses it before


def test_awaiting_in_a_callback_is_refused() -> None:
    """A callback is a plain function of its loop: on a real one it could not await either."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        callout_init(c, 1)
        armed(lambda _: vm.run(lambda: callout_drain(c)))

    assert isinstance(found(scenario), LoopThreadError)


# -- what ends a run ---------------------------------------------------------------------------------------------------

WHERE: Final = ("main", "thread", "task", "callback", "direct", "vm.run", "vm.call")


def raises(error: BaseException, where: str) -> Scenario:
    """Return a scenario in which *error* is raised there."""

    def throw(*_: object) -> None:
        raise error

    async def await_it() -> None:
        throw()

    def scenario(vm: VirtualSMP) -> None:
        match where:
            case "main":
                throw()
            case "thread":
                vm.spawn(throw)
            case "task":
                vm.spawn(throw, cpu=1)
            case "callback" | "direct":
                armed(throw)
            case "vm.run":
                vm.run(await_it)
            case _:
                vm.call(1, throw)
        vm.settle()

    return scenario


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "error",
    [
        ValueError("it"),
        SystemExit(3),
        GeneratorExit("it"),
        asyncio.CancelledError("it"),
        greenlet.GreenletExit("it"),
        BaseExceptionGroup("it", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_leaves_a_thread_or_callback_is_a_violation(error: BaseException, where: str) -> None:
    """It has a schedule, and that raises it again."""
    with pytest.raises(Violation) as caught:
        explore(raises(error, where))
    assert caught.value.__cause__ is error
    with pytest.raises(type(error)):
        replay(raises(error, where), caught.value.schedule)


@pytest.mark.parametrize("where", [where for where in WHERE if where != "vm.run"])
def test_stop_iteration_is_a_violation(where: str) -> None:
    """It is an error like any other, not the end of a coroutine."""
    assert isinstance(found(raises(StopIteration(7), where)), StopIteration)


def test_stop_iteration_of_what_makes_the_coroutine_is_no_result() -> None:
    """``vm.run(make)`` tells an error of *make* from the end of the coroutine."""
    empty: Iterator[Any] = iter(())
    with VirtualSMP() as vm, pytest.raises(StopIteration):
        vm.run(lambda: next(empty))
    with VirtualSMP() as vm, pytest.raises(ArgumentTypeError, match="no coroutine"):
        vm.run(lambda: None)  # type: ignore[arg-type, return-value]  # that is the point


@pytest.mark.parametrize("where", WHERE)
def test_ctrl_c_passes(where: str) -> None:
    """A KeyboardInterrupt ends the search, wherever it arrives, and no schedule after it is run."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        raises(KeyboardInterrupt(), where)(vm)

    with pytest.raises(KeyboardInterrupt):
        explore(scenario)
    assert runs == [1]


def test_the_signal_passes() -> None:
    """SIGINT in the middle of a scenario ends the search."""
    with pytest.raises(KeyboardInterrupt):
        explore(lambda vm: signal.raise_signal(signal.SIGINT))


def test_threads_begin_with_as_much_of_the_stack_as_the_first() -> None:
    """Many that are each started while the one before it blocks do not use it up."""

    def scenario(vm: VirtualSMP) -> None:
        event = Event()

        def body(more: int) -> None:
            if not more:
                event.set()
            else:
                vm.spawn(body, more - 1)
                event.wait_sync()

        body(300)

    assert explore(scenario, bound=0, schedules=1).schedules == 1


def test_threads_that_spawn_threads_for_ever_are_a_livelock() -> None:
    """Also if none of them ever comes to a switch point."""

    def again(vm: VirtualSMP) -> None:
        vm.spawn(again, vm)

    assert isinstance(found(again), LivelockError)


@pytest.mark.parametrize("caught", [CalloutError, Exception, BaseException])
def test_a_livelock_is_ended_whatever_the_loop_catches(caught: type[BaseException]) -> None:
    """A retry loop that catches everything is ended from outside, where it cannot catch it."""

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("m")
        turns = 0

        def retry() -> None:
            nonlocal turns
            while True:
                try:
                    with lock:
                        turns += 1
                    assert turns < 100_000, "it was not ended"
                except caught:
                    continue

        vm.spawn(retry)

    assert isinstance(found(scenario), LivelockError)


STUBBORN: Final = """
from callout import DeadlockError, Mtx
from callout.explore import Violation, explore

def scenario(vm):
    lock = Mtx("m")
    lock.lock()
    def stubborn():
        while True:
            try:
                lock.lock()
                return
            except BaseException:
                pass
    vm.spawn(stubborn)

try:
    explore(scenario)
except Violation as violation:
    assert isinstance(violation.__cause__, DeadlockError)
    print(violation.__cause__.__notes__)
"""


def test_a_thread_that_cannot_be_ended_is_named_and_left_behind() -> None:
    """A deadlocked thread that catches its own end hangs neither the search nor the interpreter's exit."""
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, check=True, timeout=60)

    assert "stubborn cannot be ended" in done.stdout


# -- memory ------------------------------------------------------------------------------------------------------------


def test_classes_of_a_scenario_go_with_it() -> None:
    """Of the classes that a scenario defines none is left, however many schedules there were."""

    def scenario(vm: VirtualSMP) -> None:
        class Local:
            def __init__(self) -> None:
                self.c = Mine()

        class Mine(Callout):
            __slots__ = ()

        slab: Slab[Local] = Slab("local")
        local = slab.alloc(Local)
        callout_init(local.c, 1)
        callout_reset(local.c, 1, nothing, None)

        def end() -> None:
            callout_drain_sync(local.c)
            slab.free(local)

        vm.spawn(end)
        vm.settle()

    def left(schedules: int) -> int:
        assert explore(scenario, reduce=False, schedules=schedules).schedules == schedules
        while gc.collect():
            pass
        return sum(isinstance(it, type) and it.__name__.endswith(("Local", "Mine")) for it in gc.get_objects())

    before = left(5)
    assert left(40) <= before + 4  # of the last schedule some may still be referred to


# -- arguments, and what a schedule says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"schedules": 0}, ArgumentValueError),
        ({"schedules": -1}, ArgumentValueError),
        ({"schedules": 1.0}, ArgumentTypeError),
        ({"bound": -1}, ArgumentValueError),
        ({"bound": 1.5}, ArgumentTypeError),
        ({"bound": True}, ArgumentTypeError),
        ({"cpus": 0}, ArgumentValueError),
        ({"cpus": "2"}, ArgumentTypeError),
        ({"hz": 0}, ArgumentValueError),
        ({"hz": None}, ArgumentTypeError),
        ({"short_paths": 1}, ArgumentTypeError),
        ({"reduce": 1}, ArgumentTypeError),
        ({"cells_only": None}, ArgumentTypeError),
        ({"seconds": "9"}, ArgumentTypeError),
        ({"seconds": 0}, ArgumentValueError),
        ({"seconds": float("nan")}, ArgumentValueError),
        ({"seconds": float("inf")}, ArgumentValueError),
        ({"seconds": 10**400}, ArgumentValueError),
        ({"seconds": 10**5000}, ArgumentValueError),
        ({"steps": 0}, ArgumentValueError),
    ],
)
def test_wrong_numbers_are_refused_before_anything_runs(wrong: dict[str, Any], error: type[CalloutError]) -> None:
    """A search that would look at nothing is no search."""
    runs: list[int] = []
    with pytest.raises(error, match=next(iter(wrong))):
        explore(lambda vm: runs.append(1), **wrong)
    assert runs == []


def wrong_in_one_schedule(vm: VirtualSMP) -> None:
    """Go wrong if the callout fires before it is stopped, on three CPUs with a tick of 10 ms."""
    assert len(vm.machine.cpus) == 3
    assert vm.machine.tick == 10_000_000
    c = Callout()
    callout_init(c, 1)
    callout_reset_on(c, 1, nothing, None, 2)
    assert callout_stop(c) == 1, "it ran before"


def test_a_schedule_names_all_that_it_needs() -> None:
    """Replaying takes the string and nothing else, whatever explore() was told."""
    with pytest.raises(Violation) as caught:
        explore(wrong_in_one_schedule, cpus=3, hz=100, bound=2, short_paths=False)

    assert caught.value.schedule.startswith("v4,wrong_in_one_schedule,cpus=3,hz=100,paths=long:")
    with pytest.raises(AssertionError, match="it ran before"):
        replay(wrong_in_one_schedule, caught.value.schedule)


def test_a_violation_can_be_sent_from_another_process() -> None:
    """Pickled and unpickled it says the same."""
    violation = Violation("v4,teardown,cpus=1,hz=1000,paths=short:,choices=0", 7, ["main", "cpu0"])
    again = pickle.loads(pickle.dumps(violation))  # noqa: S301 - it is our own

    assert (str(again), again.schedule) == (str(violation), violation.schedule)


SCENARIO: Final = "test_what_is_no_schedule_or_that_of_another_scenario_is_refused.<locals>.scenario"
GOOD: Final = f"v4,{SCENARIO},cpus=1,hz=1000,paths=short:"
ARABIC: Final = "\N{ARABIC-INDIC DIGIT ONE}"


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        ":",
        "2:0.0.1",
        "-5:",
        f"v5,{SCENARIO},cpus=1,hz=1000,paths=short:1,choices=1",
        f"v4,{SCENARIO},cpus=1,hz=1000:1,choices=1",
        "v4,cpus=1,hz=1000,paths=short:1,choices=1",
        "v4,another,cpus=1,hz=1000,paths=short:1,choices=1",
        f"v4,{SCENARIO},cpus=0,hz=1000,paths=short:1,choices=1",
        f"v4,{SCENARIO},cpus=99999,hz=1000,paths=short:1,choices=1",
        f"v4,{SCENARIO},cpus=-1,hz=1000,paths=short:1,choices=1",
        f"{GOOD}1",
        f"{GOOD}1,choices=",
        f"{GOOD}1,choices=0",
        f"{GOOD}1,choices=2",
        f"{GOOD}1,choices=-1",
        f"{GOOD},choices=1",
        f"{GOOD}-1,choices=1",
        f"{GOOD}0.-1,choices=2",
        f"{GOOD}1.,choices=2",
        f"{GOOD}.1,choices=2",
        f"{GOOD}1..1,choices=3",
        f"{GOOD}1 ,choices=1",
        f"{GOOD}1,choices=1 ",
        f"{GOOD}1,choices=1\n",
        f"{GOOD}1.0,choices=2",
        f"{GOOD}0,choices=1",
        f"{GOOD}{ARABIC},choices=1",
        f"{GOOD}1,choices={ARABIC}",
        f"{GOOD}{'9' * 5000},choices=1",
        f"{GOOD}{'0.' * 60}1,choices=61",
        f"{GOOD}7,choices=1",
        f"{GOOD}0*,choices=1",
        f"{GOOD}*3.1,choices=4",
        f"{GOOD}0*3*3.1,choices=10",
        f"{GOOD}0*999999999.1,choices=999999999",
        f"{GOOD}{'0.' * 100_000}1,choices=100001",
    ],
)
def test_what_is_no_schedule_or_that_of_another_scenario_is_refused(schedule: str) -> None:
    """Malformed, negative, cut off, left over, or too large a choice: one error each."""

    def scenario(vm: VirtualSMP) -> None:
        callout_stop(armed())

    with pytest.raises(ArgumentValueError, match="replay"):
        replay(scenario, schedule)


def test_no_part_of_a_schedule_can_be_cut_off() -> None:
    """No beginning of a schedule is one, though a run with fewer choices would go well."""
    with pytest.raises(Violation) as caught:
        explore(wrong_in_one_schedule, cpus=3, hz=100, bound=2)
    whole = caught.value.schedule

    for length in range(len(whole)):
        with pytest.raises(ArgumentValueError, match=r"is not a schedule; give the string .*, whole|says that it has"):
            replay(wrong_in_one_schedule, whole[:length])


@pytest.mark.parametrize(
    "schedule", ["v3,cpus=1,hz=1000,bound=2,paths=short:1,choices=1", "v1,cpus=1,hz=1000,bound=2:1"]
)
def test_a_schedule_of_an_older_version_is_called_that(schedule: str) -> None:
    """A string from before is not taken for one that was cut off."""
    with pytest.raises(ArgumentValueError, match="of an older version"):
        replay(wrong_in_one_schedule, schedule)


def test_a_schedule_of_a_newer_version_is_called_that() -> None:
    """A string from another installation says so."""
    with pytest.raises(ArgumentValueError, match="of a newer version than this one"):
        replay(wrong_in_one_schedule, "v999,wrong_in_one_schedule,cpus=1,hz=1000,paths=short:,choices=0")


@pytest.mark.parametrize("schedule", [None, 3, b"v2", ["v2"]])
def test_what_is_no_string_is_no_schedule(schedule: str) -> None:
    """Only the string is taken."""
    with pytest.raises(ArgumentTypeError, match="replay"):
        replay(nothing, schedule)


def test_a_long_run_is_replayed_with_as_many_steps() -> None:
    """What goes wrong after more steps than a run may have unless told otherwise; fewer are a livelock."""

    def scenario(vm: VirtualSMP) -> None:
        for _ in range(MAX_STEPS):
            vm.point()
        raise ValueError("at the end")

    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=1, bound=0, steps=2 * MAX_STEPS, shrink=False)
    schedule = caught.value.schedule

    with pytest.raises(ValueError, match="at the end"):
        replay(scenario, schedule, steps=2 * MAX_STEPS)
    with pytest.raises(LivelockError):
        replay(scenario, schedule)
    with pytest.raises(ArgumentValueError, match="steps"):
        replay(scenario, schedule, steps=0)


@pytest.mark.parametrize("act", ["acquire", "arm", "look", "set", "wake"])
def test_the_same_steps_with_other_objects_are_nondeterminism(act: str) -> None:
    """Runs in which as many threads make as many steps differ if a thread uses its locks, callouts or waits in another
    order.
    """
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        locks = Mtx("m"), Mtx("m")
        callouts = Callout(), Callout()
        events = Event(), Event()
        channels: tuple[list[int], list[int]] = [], []
        for c, event, channel in zip(callouts, events, channels, strict=True):
            callout_init(c, 1)
            if act == "set":
                vm.spawn(event.wait_sync)
            if act == "wake":
                vm.spawn(tsleep_sync, channel, 0, "test", 0)
        order = (0, 1) if len(runs) % 2 else (1, 0)

        def thread() -> None:
            for which in order:
                if act == "acquire":
                    with locks[which]:
                        pass
                elif act == "arm":
                    callout_reset(callouts[which], 1, nothing, None)
                elif act == "look":
                    callout_pending(callouts[which])
                elif act == "set":
                    events[which].set()
                else:
                    wakeup(channels[which])

        vm.spawn(thread)

    with pytest.raises(NondeterminismError, match="not deterministic"):
        explore(scenario, cpus=1, bound=0)
    assert len(runs) == 2


def test_between_a_look_at_an_event_and_its_setting_others_run() -> None:
    """``if not event.is_set(): event.set()`` in two threads is seen to be no test-and-set."""

    def scenario(vm: VirtualSMP) -> None:
        event, went = Event(), list[str]()

        def once(name: str) -> None:
            if not event.is_set():
                event.set()
                went.append(name)

        for name in "ab":
            vm.spawn(once, name, name=name)
        vm.settle()
        assert len(went) == 1, "it went twice"

    assert "it went twice" in str(found(scenario))


def test_a_schedule_that_goes_well_once_is_nondeterminism() -> None:
    """What goes wrong only when the same schedule is run again is no violation: replaying it would find nothing."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        assert len(runs) != 2, "it failed once"

    with pytest.raises(NondeterminismError, match=r"went well, and run again it ended in .*it failed once"):
        explore(scenario, bound=0)


def test_names_that_a_counter_makes_are_no_difference() -> None:
    """A lock may have another name in each run: it is known by its place in the order in which they were made."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        with Mtx(f"connection {len(runs)}"):
            pass

    assert explore(scenario, bound=1).exhausted
    assert len(runs) > 2


def test_callouts_that_come_and_go_are_no_difference() -> None:
    """A callout that has got the memory of one that died is another one, in every run."""
    kept: list[object] = []

    def scenario(vm: VirtualSMP) -> None:
        for _ in range(3):
            c = Callout()
            callout_init(c, 1)
            callout_pending(c)
            if len(kept) % 2:
                kept.append(object())
        kept.append(object())

    assert explore(scenario, bound=1).exhausted


def test_a_task_may_be_what_the_package_gives_to_be_awaited() -> None:
    """A function of the package that has to be awaited can be spawned like a coroutine function."""
    done: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        event, c = Event(), armed()
        vm.spawn(event.wait, cpu=0)
        vm.spawn(callout_drain, c)
        event.set()
        vm.settle()
        done.append(callout_pending(c))

    explore(scenario, cpus=1, bound=0)

    assert set(done) == {False}


# -- names, paths ------------------------------------------------------------------------------------------------------


def test_a_lock_called_cpu_is_no_lock_of_a_cpu() -> None:
    """What a mutex is called decides nothing: reading a callout's state with it held is a switch point."""

    def scenario(vm: VirtualSMP) -> None:
        c = armed()
        with Mtx("cpu session"):
            before = c.state
            after = c.state
            assert before == after, "it fired between"

    assert "it fired between" in str(found(scenario))


def test_two_threads_of_one_function_are_two_threads() -> None:
    """They do not own each other's locks."""

    def scenario(vm: VirtualSMP) -> None:
        lock = Mtx("m")

        def hold() -> None:
            with lock:
                vm.platform.point()

        vm.spawn(hold)
        vm.spawn(hold)

    assert explore(scenario, bound=2).schedules >= 8


@pytest.mark.parametrize("short_paths", [True, False])
def test_both_ways_are_explored(*, short_paths: bool) -> None:
    """The short paths are taken, in checking mode too, unless they are switched off."""
    states: set[int] = set()

    def scenario(vm: VirtualSMP) -> None:
        assert vm.machine.held is not None
        states.add(armed().state & CAREFUL)

    explore(scenario, bound=0, short_paths=short_paths)
    assert states == ({0} if short_paths else {CAREFUL})


# -- where it runs -----------------------------------------------------------------------------------------------------


def test_explore_within_explore() -> None:
    """A search inside a scenario is a search of its own, and may find something."""

    def outer(vm: VirtualSMP) -> None:
        armed()
        assert explore(lambda inner: armed(), bound=1).exhausted
        assert isinstance(found(lambda inner: Mtx("m").unlock()), LockNotHeldError)

    assert explore(outer, cpus=1, bound=0).exhausted


def test_one_system_in_the_scenario_of_another_is_refused() -> None:
    """A callout belongs to its own system: a context of another may not switch that one's contexts."""

    def outer(vm: VirtualSMP) -> None:
        c = armed()
        with VirtualSMP(1) as inner:
            inner.spawn(callout_stop, c)
            inner.settle()

    assert isinstance(found(outer), NoSystemError)
