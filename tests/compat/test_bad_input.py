"""Bad input of callout_linux: one clear error, before anything changes, where the kernel warns, crashes or hangs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    CalloutError,
    CalloutSystem,
    ClosedError,
    LockHeldError,
    LoopThreadError,
    Mtx,
    NoSystemError,
    NotAwaitedError,
    NotInitializedError,
    SelfDrainError,
    open_callouts,
)
from callout.testing import VirtualSMP
from callout_linux import smp, timer, v2_3
from callout_linux._base import TimerBase
from callout_linux.smp import on_each_cpu, smp_call_function, smp_call_function_many, smp_call_function_single
from callout_linux.timer import (
    DEFINE_TIMER,
    add_timer,
    add_timer_global,
    add_timer_local,
    add_timer_on,
    destroy_all,
    destroy_all_blocking,
    destroy_timer_on_stack,
    jiffies,
    mod_timer,
    mod_timer_pending,
    msecs_to_jiffies,
    schedule_timeout,
    timer_delete,
    timer_delete_sync,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_reduce,
    timer_setup,
    timer_shutdown,
    timer_shutdown_sync,
    timer_shutdown_sync_blocking,
    try_to_del_timer_sync,
)
from tests.conformance.world import Stage


def ignore(_: object) -> None:
    """Be a function."""


def made(s: Stage, function: Callable[[timer_list], object] = ignore) -> timer_list:
    """Return a timer that was set up."""
    return s.do(DEFINE_TIMER, function)


WITHOUT_A_SYSTEM: dict[str, Callable[[], object]] = {
    "timer_setup": lambda: timer_setup(timer_list(), ignore, 0),
    "init_timer": lambda: v2_3.init_timer(v2_3.timer_list()),
    "jiffies": lambda: timer.jiffies + 1,
    "HZ": lambda: timer.HZ > 3,
    "get_jiffies_64": timer.get_jiffies_64,
    **{f"{unit}_to_jiffies": partial(getattr(timer, f"{unit}_to_jiffies"), 3) for unit in ("msecs", "usecs", "nsecs")},
    "secs_to_jiffies": lambda: timer.secs_to_jiffies(3),
    **{f"jiffies_to_{unit}": partial(getattr(timer, f"jiffies_to_{unit}"), 3) for unit in ("msecs", "usecs", "nsecs")},
    **{name: partial(getattr(timer, name), 3) for name in timer.__all__ if name.startswith("round_jiffies")},
    "schedule_timeout": lambda: trio.run(schedule_timeout, 3),
    "schedule_timeout_blocking": lambda: timer.schedule_timeout_blocking(3),
    "smp_processor_id": smp.smp_processor_id,
    "num_online_cpus": smp.num_online_cpus,
    "for_each_online_cpu": smp.for_each_online_cpu,
    "smp_call_function": lambda: smp_call_function(ignore, 0, wait=False),
    "smp_call_function_single": lambda: smp_call_function_single(0, ignore, 0, wait=False),
    "smp_call_function_single_async": lambda: smp.smp_call_function_single_async(0, smp.call_single_data_t(ignore, 0)),
    "smp_call_function_any": lambda: smp.smp_call_function_any([0], ignore, 0, wait=False),
    "smp_call_function_many": lambda: smp_call_function_many([0], ignore, 0, wait=False),
    "on_each_cpu": lambda: on_each_cpu(ignore, 0, wait=False),
    "on_each_cpu_mask": lambda: smp.on_each_cpu_mask([0], ignore, 0, wait=False),
    "on_each_cpu_cond": lambda: smp.on_each_cpu_cond(lambda _cpu, _info: True, ignore, 0, wait=False),
    "on_each_cpu_cond_mask": lambda: smp.on_each_cpu_cond_mask(None, ignore, 0, wait=False, cpus=[0]),
}


@pytest.mark.parametrize("call", WITHOUT_A_SYSTEM)
def test_without_a_system(call: str) -> None:
    """Where no system is open the error says what to open, and names the call of Linux, not what that is made of."""
    with pytest.raises(NoSystemError, match=f"^{call}: .*open_callouts") as caught:
        WITHOUT_A_SYSTEM[call]()

    assert caught.value.call == call


CALLS: list[Callable[[timer_list], object]] = [
    add_timer,
    add_timer_local,
    add_timer_global,
    lambda t: add_timer_on(t, 0),
    lambda t: mod_timer(t, 1),
    lambda t: mod_timer_pending(t, 1),
    lambda t: timer_reduce(t, 1),
    timer_pending,
    timer_delete,
    try_to_del_timer_sync,
    timer_shutdown,
    timer_delete_sync,
    timer_delete_sync_blocking,
    timer_shutdown_sync,
    timer_shutdown_sync_blocking,
]


@pytest.mark.parametrize("call", CALLS)
def test_a_timer_that_was_never_set_up(s: Stage, call: Callable[[timer_list], object]) -> None:
    """Every call with a timer that was never set up names timer_setup()."""
    with pytest.raises(NotInitializedError, match=r"timer_setup\(\)"):
        s.do(call, timer_list())


OLD_CALLS: list[Callable[[Any], object]] = [
    v2_3.add_timer,
    lambda t: v2_3.mod_timer(t, 1),
    v2_3.timer_pending,
    v2_3.del_timer,
    v2_3.del_timer_sync,
    v2_3.del_timer_sync_blocking,
    v2_3.timer_is_running,
    v2_3.timer_synchronize,
    v2_3.timer_synchronize_blocking,
]
NEW_CALLS: list[Callable[[Any], object]] = [*CALLS, lambda t: timer_setup(t, ignore, 0), destroy_timer_on_stack]


class Unshown:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise ZeroDivisionError


class Owner:
    """What has a timer, or rather its callout, under the name that a timer has for it."""

    def __init__(self) -> None:
        self.entry = Callout()


@pytest.mark.parametrize("wrong", [None, 5, "timer", Callout(), timer_list, Unshown(), 10**5000, Owner()], ids=type)
def test_what_is_no_timer(s: Stage, wrong: object) -> None:
    """Every call with what is no timer says so by its own name, in both APIs."""
    for call in (*NEW_CALLS, v2_3.init_timer, *OLD_CALLS):
        with pytest.raises(ArgumentTypeError, match=r"^\w+: the first argument must be a timer"):
            s.do(call, wrong)


def test_a_timer_that_was_never_made(s: Stage) -> None:
    """Every call with a timer whose class forgot timer_list.__init__() says so, in both APIs; its repr does, too."""

    class New(timer_list):
        def __init__(self) -> None:
            """Forget the base class."""

    class Old(v2_3.timer_list):
        def __init__(self) -> None:
            """Forget the base class."""

    cases: list[tuple[list[Callable[[Any], object]], TimerBase]] = [
        (NEW_CALLS, New()),
        ([v2_3.init_timer, *OLD_CALLS], Old()),
    ]
    for calls, unmade in cases:
        assert "never made" in repr(unmade)
        for call in calls:
            with pytest.raises(NotInitializedError, match=r"^\w+: this .*(New|Old) was never made"):
                s.do(call, unmade)


def test_a_cross_cpu_call_that_was_never_made(s: Stage) -> None:
    """One whose class forgot the base class's __init__() says so."""

    class Unmade(smp.call_single_data_t[int]):
        def __init__(self) -> None:
            """Forget the base class."""

    with pytest.raises(NotInitializedError, match="never made"):
        s.do(smp.smp_call_function_single_async, 0, Unmade())
    with pytest.raises(NotInitializedError, match="never made"):
        s.do(smp.INIT_CSD, Unmade(), ignore, 0)


def test_the_timers_of_the_two_apis_do_not_mix(s: Stage) -> None:
    """A timer of one is neither set up nor started by a call of the other, and is as it was."""
    old, new = v2_3.timer_list(), made(s)
    setups: list[tuple[Callable[..., object], TimerBase]] = [
        (lambda t: timer_setup(t, ignore, 0), old),
        (timer.add_timer, old),
        (lambda t: mod_timer(t, 5), old),
        (lambda t: mod_timer_pending(t, 5), old),
        (v2_3.init_timer, new),
        (v2_3.add_timer, new),
        (lambda t: v2_3.mod_timer(t, 5), new),
    ]
    for call, other in setups:
        before = repr(other)
        with pytest.raises(ArgumentTypeError, match="do not mix"):
            s.do(call, other)
        assert repr(other) == before


@pytest.mark.parametrize("old", [False, True])
def test_a_refused_mod_leaves_the_time_that_was_written(old: bool) -> None:
    """What was written to ``expires`` is there after a mod_timer() that its closed system has refused."""

    async def main() -> None:
        async with open_callouts():
            one: TimerBase
            if old:
                one = v2_3.timer_list()
                v2_3.init_timer(one)
                one.function = ignore
            else:
                one = DEFINE_TIMER(ignore)
            one.expires = 5
        call: Callable[..., object] = v2_3.mod_timer if old else mod_timer
        with pytest.raises(ClosedError, match=r"^mod_timer: "):
            call(one, 777)
        assert one.expires == 5

    trio.run(main)


def test_a_sleep_that_cannot_be_is_refused_by_the_call(s: Stage) -> None:
    """schedule_timeout() with a lock held, or blocking a loop, is refused by its own name, before it is awaited."""
    mtx = s.mtx()

    def sleeps() -> None:
        with mtx, pytest.raises(CalloutError, match=r"^schedule_timeout: "):
            schedule_timeout(5).close()
        with mtx, pytest.raises(CalloutError, match=r"^schedule_timeout_blocking: "):
            timer.schedule_timeout_blocking(5)

    s.do(sleeps)

    async def main() -> None:
        async with open_callouts():
            with pytest.raises(LoopThreadError, match=r"^schedule_timeout_blocking: "):
                timer.schedule_timeout_blocking(5)

    trio.run(main)


def test_after_the_close_the_errors_name_the_calls_of_linux() -> None:
    """In a thread that is still bound the calls that take no timer are ClosedErrors by their own names."""
    closed, bound = threading.Event(), threading.Event()
    told: dict[str, str] = {}

    def thread(system: CalloutSystem) -> None:
        with system.bound():
            bound.set()
            closed.wait()
            for name, call in WITHOUT_A_SYSTEM.items():
                if name not in {"timer_setup", "init_timer", "schedule_timeout"}:
                    with pytest.raises(ClosedError) as caught:
                        call()
                    told[name] = str(caught.value).partition(":")[0]
            told["str"] = str(timer.jiffies)

    async def main() -> threading.Thread:
        async with open_callouts() as system:
            one = threading.Thread(target=thread, args=(system,))
            one.start()
            await trio.to_thread.run_sync(bound.wait)
            return one

    one = trio.run(main)
    closed.set()
    one.join()

    assert "jiffies" in told.pop("str")
    assert len(told) >= 20
    assert all(name == said for name, said in told.items())


def test_an_old_timer_that_was_never_initialised_or_has_no_function(s: Stage) -> None:
    """Every call of the API of 2000 with such a timer names init_timer(); so does adding one without a function."""
    for call in OLD_CALLS:
        with pytest.raises(NotInitializedError, match=r"init_timer\(\)"):
            s.do(call, v2_3.timer_list())
    timer = v2_3.timer_list()
    s.do(v2_3.init_timer, timer)
    with pytest.raises(NotInitializedError):
        s.do(v2_3.add_timer, timer)


def test_a_coroutine_function_as_function(s: Stage) -> None:
    """A handler that is a coroutine function is refused wherever one can be given, and the timer is as it was."""

    async def handler(_: object) -> None:
        """Would never run."""

    timer = timer_list()
    with pytest.raises(ArgumentTypeError, match="coroutine"):
        s.do(timer_setup, timer, handler, 0)
    with pytest.raises(NotInitializedError):
        s.do(timer_pending, timer)
    with pytest.raises(ArgumentTypeError, match="coroutine"):
        made(s).function = handler
    with pytest.raises(ArgumentTypeError, match="coroutine"):
        v2_3.timer_list().function = handler
    with pytest.raises(ArgumentTypeError, match="coroutine"):
        s.do(lambda: smp_call_function(handler, None, False))
    with pytest.raises(ArgumentTypeError, match="coroutine"):
        s.do(lambda: on_each_cpu(handler, None, False))


@pytest.mark.parametrize("expires", [1.5, float("nan"), "1", None])
def test_expires_that_is_not_an_int(s: Stage, expires: int) -> None:
    """A time that is not an int is refused by assignment and by every mod; a pending timer keeps its time."""
    timer = made(s)
    s.do(mod_timer, timer, 5)
    with pytest.raises(ArgumentTypeError, match="jiffies"):
        timer.expires = expires
    for mod in (mod_timer, mod_timer_pending, timer_reduce):
        with pytest.raises(ArgumentTypeError, match="jiffies"):
            s.do(mod, timer, expires)
    old = v2_3.timer_list()
    with pytest.raises(ArgumentTypeError, match="jiffies"):
        s.do(v2_3.mod_timer, old, expires)
    with pytest.raises(ArgumentTypeError):
        s.do(msecs_to_jiffies, expires)

    assert timer.expires == 5


def test_jiffies_itself_is_a_time(s: Stage) -> None:
    """``mod_timer(timer, jiffies)`` takes the time as it is at the moment of the call."""
    seen: list[timer_list] = []
    timer = made(s, seen.append)
    s.tick(2)
    s.do(mod_timer, timer, jiffies)

    assert timer.expires == 2

    s.tick()

    assert seen == [timer]


@pytest.mark.parametrize(
    ("cpu", "error"), [(9, ArgumentValueError), (-1, ArgumentValueError), ("0", ArgumentTypeError)]
)
def test_a_cpu_that_is_not_there(s: Stage, cpu: int, error: type[Exception]) -> None:
    """add_timer_on() and the cross-CPU calls name the CPU that is not there; nothing is armed, nothing is called."""
    timer = made(s)
    with pytest.raises(error, match="cpu"):
        s.do(add_timer_on, timer, cpu)
    with pytest.raises(error, match="cpu"):
        s.do(smp_call_function_single, cpu, s.ran.append, 0, wait=False)
    with pytest.raises(error, match="cpu"):
        s.do(smp_call_function_many, [0, cpu], s.ran.append, 0, wait=False)

    assert s.do(timer_pending, timer) == 0
    assert s.ran == []


def in_use() -> timer_list:
    """Return a timer that is pending."""
    timer = DEFINE_TIMER(ignore)
    mod_timer(timer, 5)
    return timer


def without_function() -> v2_3.timer_list:
    """Return a timer of 2000 that was initialised, and has no function."""
    timer = v2_3.timer_list()
    v2_3.init_timer(timer)
    return timer


# What is done, the error, and the words of it after the name of the call that was made.
MISUSE: dict[str, tuple[Callable[[], object], type[CalloutError], str]] = {
    "add_timer_on": (lambda: add_timer_on(DEFINE_TIMER(ignore), 5), ArgumentValueError, "there is no cpu 5"),
    "add_timer_on.": (lambda: add_timer_on(DEFINE_TIMER(ignore), "0"), ArgumentTypeError, "cpu must be an int"),  # type: ignore[arg-type]  # the mistake
    "timer_setup": (lambda: timer_setup(in_use(), ignore, 0), BusyError, "<timer_list ignore on cpu 0: "),
    "add_timer": (
        lambda: v2_3.add_timer(without_function()),
        NotInitializedError,
        "<timer_list on cpu 0: idle> has no function",
    ),
    "mod_timer": (
        lambda: v2_3.mod_timer(without_function(), 1),
        NotInitializedError,
        "<timer_list on cpu 0: idle> has no function",
    ),
    "timer_delete": (lambda: timer_delete(timer_list()), NotInitializedError, "<timer_list: not set up>"),
    "timer_pending": (lambda: timer_pending(None), ArgumentTypeError, "the first argument must be a timer"),  # type: ignore[arg-type]  # the mistake
    "smp_call_function_many": (
        lambda: smp_call_function_many([10**5000], ignore, 0, wait=False),
        ArgumentValueError,
        "there is no cpu an int of 16610 bits",
    ),
    "schedule_timeout": (lambda: schedule_timeout(10**5000), ArgumentValueError, "timeout must be from 0"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_an_error_names_the_call_that_was_made(s: Stage, name: str) -> None:
    """Text and attributes of an error name the function of Linux and its timer, and no function of callout(9)."""
    misuse, kind, words = MISUSE[name]
    call = name.removesuffix(".")
    with pytest.raises(kind) as caught:
        s.do(misuse)

    assert re.sub(r" at 0x[0-9a-f]+", "", str(caught.value)).startswith(f"{call}: {words}")
    assert caught.value.call == call
    assert "callout_" not in str(caught.value)
    assert not isinstance(caught.value.callout, Callout)


def test_a_timer_without_a_function_is_told_what_it_lacks(s: Stage) -> None:
    """A timer of 2000 that was initialised is not said to have never been; it lacks its function."""
    with pytest.raises(NotInitializedError, match=r"has no function: assign timer\.function first"):
        s.do(lambda: v2_3.add_timer(without_function()))


def test_cpus_that_are_no_collection(s: Stage) -> None:
    """smp_call_function_many() of one number says that it wants a collection."""
    with pytest.raises(ArgumentTypeError, match="collection"):
        s.do(lambda: smp_call_function_many(0, s.ran.append, 0, False))  # type: ignore[call-overload]  # the wrong type


@pytest.mark.parametrize(("flags", "error"), [(1, ArgumentValueError), ("PINNED", ArgumentTypeError)])
def test_unknown_flags(s: Stage, flags: int, error: type[Exception]) -> None:
    """timer_setup() refuses flags that are not TIMER_*."""
    with pytest.raises(error, match="flag"):
        s.do(timer_setup, timer_list(), ignore, flags)


@pytest.mark.parametrize("add", [add_timer, add_timer_local, add_timer_global, lambda t: add_timer_on(t, 0)])
def test_adding_a_pending_timer(s: Stage, add: Callable[[timer_list], None]) -> None:
    """Adding a pending timer names mod_timer(), and leaves the timer pending for the time it had."""
    seen: list[timer_list] = []
    timer = made(s, seen.append)
    s.do(mod_timer, timer, 3)
    flags = timer.flags
    timer.expires = 1
    with pytest.raises(BusyError, match=r"mod_timer\(\)"):
        s.do(add, timer)
    s.tick(3)

    assert timer.flags == flags
    assert seen == []

    s.tick()

    assert seen == [timer]


def test_setting_up_a_timer_that_is_pending_or_running(s: Stage) -> None:
    """timer_setup() and init_timer() of a timer that is in use are refused, and it goes on."""
    timer = timer_list()
    refused: list[BaseException] = []

    def function(t: timer_list) -> None:
        try:
            timer_setup(t, ignore, 0)
        except BusyError as error:
            refused.append(error)

    s.do(timer_setup, timer, function, 0)
    s.do(mod_timer, timer, 1)
    with pytest.raises(BusyError):
        s.do(timer_setup, timer, ignore, 0)
    s.tick(2)

    assert len(refused) == 1


@pytest.mark.parametrize(
    "wait", [timer_delete_sync, timer_delete_sync_blocking, timer_shutdown_sync, timer_shutdown_sync_blocking]
)
def test_waiting_for_itself(s: Stage, wait: Callable[[timer_list], object]) -> None:
    """A function that waits for its own timer is refused at once, awaited or not, and its timer is as it was."""
    timer = timer_list()
    refused: list[BaseException] = []

    def function(t: timer_list) -> None:
        mod_timer(t, jiffies + 1)
        try:
            wait(t)
        except SelfDrainError as error:
            refused.append(error)

    s.do(timer_setup, timer, function, 0)
    s.do(mod_timer, timer, 0)
    s.tick()

    assert len(refused) == 1
    assert s.do(timer_pending, timer) == 1
    assert s.do(timer_delete, timer) == 1


def test_an_old_function_that_waits_for_itself(s: Stage) -> None:
    """del_timer_sync() of 2.3, timer_synchronize() and wait_on_timers() in a timer's function are refused."""
    timer = v2_3.timer_list()
    refused: list[BaseException] = []

    def function(_: object) -> None:
        for wait in (v2_3.del_timer_sync_blocking, v2_3.timer_synchronize_blocking):
            with pytest.raises(SelfDrainError) as caught:
                wait(timer)
            refused.append(caught.value)
        with pytest.raises(SelfDrainError):
            v2_3.wait_on_timers_blocking()

    s.do(v2_3.init_timer, timer)
    timer.function = function
    s.do(v2_3.add_timer, timer)
    s.tick()

    assert len(refused) == 2
    assert s.errors == []


@pytest.mark.parametrize("wait", [timer_delete_sync_blocking, timer_shutdown_sync_blocking])
def test_waiting_with_a_lock_held(s: Stage, wait: Callable[[timer_list], object]) -> None:
    """In checking mode, waiting with a lock held names the lock, whether the function needs it or not."""
    timer = made(s)
    lock = s.mtx()
    s.do(mod_timer, timer, 5)
    with s.t0.holding(lock), pytest.raises(LockHeldError, match="mtx"):
        s.t0.do(wait, timer)

    assert s.do(timer_pending, timer) == 1
    assert s.do(timer_delete, timer) == 1


def test_destroying_elements_of_which_one_was_never_set_up(s: Stage) -> None:
    """destroy_all() refuses before it has destroyed the first."""
    good, bad = made(s), timer_list()
    elements = [good, bad]
    destroyed: list[object] = []
    with pytest.raises(NotInitializedError, match="timer_setup"):
        s.do(destroy_all_blocking, elements, s.mtx(), destroyed.append, lambda timer: timer)

    assert elements == [good, bad]
    assert destroyed == []


def test_another_systems_timer() -> None:
    """A timer is waited for where its system is current: elsewhere that is refused, and the timer stays pending."""
    with VirtualSMP(1):
        timer = DEFINE_TIMER(ignore)
        mod_timer(timer, 5)
        with VirtualSMP(1):
            for wait in (timer_delete_sync_blocking, timer_shutdown_sync_blocking, timer_delete_sync):
                with pytest.raises(ArgumentValueError, match="another"):
                    wait(timer)

        assert timer_pending(timer)


@pytest.mark.trio
async def test_blocking_a_loop() -> None:
    """What blocks the thread is refused on a thread that runs a loop."""
    async with open_callouts():
        timer = DEFINE_TIMER(ignore)
        with pytest.raises(LoopThreadError):
            timer_delete_sync_blocking(timer)
        with pytest.raises(LoopThreadError):
            timer_shutdown_sync_blocking(timer)
        with pytest.raises(LoopThreadError):
            v2_3.wait_on_timers_blocking()
        with pytest.raises(LoopThreadError):
            destroy_all_blocking([], Mtx("list"), ignore)
        with pytest.raises(LoopThreadError):
            smp_call_function_single(0, ignore, 0, True).wait_blocking()
        await trio.lowlevel.checkpoint()


@pytest.mark.trio
async def test_an_old_delete_that_would_block_a_loop_has_deleted_nothing() -> None:
    """v2_3.del_timer_sync_blocking() and its relatives on a loop's thread leave a pending timer pending."""
    async with open_callouts():
        timer = v2_3.timer_list()
        v2_3.init_timer(timer)
        timer.function = ignore
        v2_3.mod_timer(timer, jiffies + 1000)
        for wait in (v2_3.del_timer_sync_blocking, v2_3.timer_synchronize_blocking):
            with pytest.raises(LoopThreadError, match=f"{wait.__name__}: .*`await {wait.__name__[:-9]}"):
                wait(timer)

        assert v2_3.timer_pending(timer) == 1


@pytest.mark.parametrize(
    "call",
    [
        timer_delete_sync,
        timer_shutdown_sync,
        v2_3.del_timer_sync,
        v2_3.timer_synchronize,
        lambda _: v2_3.wait_on_timers(),
        lambda t: destroy_all([t], Mtx("list"), ignore, lambda timer: timer),
    ],
)
def test_a_missing_await(call: Callable[[Any], Coroutine[Any, Any, object]]) -> None:  # Any: timers of both ages
    """`if del_timer_sync(t):` without an await raises, and deletes nothing."""
    with VirtualSMP(1, free_clock=False) as vm:
        timer = DEFINE_TIMER(ignore)
        mod_timer(timer, 5)
        waiting = call(timer)
        for use in (bool, lambda it: it == 1, lambda it: it > 0):
            with pytest.raises(NotAwaitedError, match=r"`await \w+\(\.\.\.\)`, or, .*_blocking\(\)"):
                use(waiting)

        assert timer_pending(timer) == 1

        vm.run(lambda: waiting)
