"""sleep(9) and condvar(9): falling asleep with a mutex released, waking, and what ends a sleep by itself."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
import trio
import trio.testing

from callout import (
    MTX_RECURSE,
    PCATCH,
    PDROP,
    SBT_1MS,
    SBT_1S,
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    Cv,
    LockClassError,
    LockDestroyedError,
    LockError,
    LockNotHeldError,
    LoopThreadError,
    Mtx,
    NoSystemError,
    NotAwaitedError,
    SleepError,
    callout_init,
    callout_reset,
    callout_reset_on,
    cv_broadcast,
    cv_destroy,
    cv_init,
    cv_signal,
    cv_timedwait,
    cv_timedwait_sync,
    cv_wait,
    cv_wait_sync,
    giant,
    msleep,
    msleep_sbt,
    msleep_sbt_sync,
    msleep_spin_sync,
    msleep_sync,
    open_callouts,
    pause,
    pause_sbt,
    pause_sbt_sync,
    pause_sync,
    tsleep,
    tsleep_sync,
    wakeup,
    wakeup_one,
)
from callout.testing import VirtualSMP
from tests.conformance.world import Call, Stage


class Chan:
    """Something to sleep on."""


def asleep(mtx: Mtx, chan: object, timo: int = 0, priority: int = 0) -> tuple[int, bool]:
    """Sleep with *mtx* held; return the result, and whether the mutex was held again."""
    mtx.lock()
    try:
        return msleep_sync(chan, mtx, priority, "test", timo), mtx.owned()
    finally:
        if mtx.owned():
            mtx.unlock()


# -- msleep ----------------------------------------------------------------------------------------------------------


def test_a_sleeper_has_released_the_mutex_and_has_it_again_when_woken(s: Stage) -> None:
    """sleep(9): msleep() releases the mutex while it sleeps, and acquires it before it returns 0 for a wakeup()."""
    mtx, chan = s.mtx(), Chan()
    call = s.t1.begin(asleep, mtx, chan)

    assert call.blocked

    with s.t0.holding(mtx):
        s.t0.do(wakeup, chan)

        assert call.blocked  # it waits for the mutex

    s.t0.do(lambda: None)

    assert call.result() == (0, True)


def test_a_sleep_ends_after_its_time(s: Stage) -> None:
    """sleep(9): after timo ticks, not sooner, it returns EWOULDBLOCK, and the mutex is held."""
    mtx, chan = s.mtx(), Chan()
    call = s.t1.begin(asleep, mtx, chan, 5)
    s.tick(4)

    assert call.blocked

    s.tick(1)

    assert call.result() == (errno.EWOULDBLOCK, True)


def test_a_sleep_that_was_woken_does_not_time_out(s: Stage) -> None:
    """A timeout does not outlive the sleep for which it was set."""
    mtx, chan = s.mtx(), Chan()
    first = s.t1.begin(asleep, mtx, chan, 5)
    s.do(wakeup, chan)

    assert first.result() == (0, True)

    second = s.t1.begin(asleep, mtx, chan, 50)
    s.tick(20)

    assert second.blocked

    s.do(wakeup, chan)

    assert second.result() == (0, True)


def test_wakeup_wakes_all_of_its_channel_and_nobody_else(s: Stage) -> None:
    """sleep(9): wakeup() makes all that sleep on the channel runnable; equal channels are two."""

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    mtx, here, there = s.mtx(), Equal(), Equal()
    calls = [s.t1.begin(asleep, mtx, here), s.t2.begin(asleep, mtx, there)]
    s.do(wakeup, here)

    assert calls[0].result() == (0, True)
    assert calls[1].blocked

    s.do(wakeup, there)

    assert calls[1].result() == (0, True)


def test_wakeup_one_wakes_them_in_order(s: Stage) -> None:
    """wakeup_one() wakes the one that has slept for longest, and passes over one whose time is over."""
    mtx, chan = s.mtx(), Chan()
    first = s.t1.begin(asleep, mtx, chan, 3)
    second = s.t2.begin(asleep, mtx, chan)
    s.tick(4)

    assert first.result() == (errno.EWOULDBLOCK, True)

    first = s.t1.begin(asleep, mtx, chan)
    s.do(wakeup_one, chan)

    assert second.result() == (0, True)
    assert first.blocked

    s.do(wakeup_one, chan)

    assert first.result() == (0, True)

    s.do(wakeup_one, chan)  # nobody sleeps: it is not kept

    third = s.t1.begin(asleep, mtx, chan)

    assert third.blocked

    s.do(wakeup, chan)


def test_pdrop_leaves_the_mutex_released(s: Stage) -> None:
    """sleep(9): with PDROP the mutex is not acquired again; PCATCH and a priority change nothing."""
    mtx, chan = s.mtx(), Chan()
    for priority, held in ((PDROP, False), (PCATCH | 36, True)):
        call = s.t1.begin(asleep, mtx, chan, 0, priority)
        s.do(wakeup, chan)

        assert call.result() == (0, held)


def test_giant_is_released_as_often_as_it_is_held(s: Stage) -> None:
    """A sleep releases Giant, too, however often it is held, and has it as often again; msleep() may be given Giant."""
    mtx, chan, g = s.mtx(), Chan(), s.do(giant)
    depths: list[bool] = []

    def held_twice(mutex: Mtx | None) -> int:
        with g, g:
            if mutex is None:
                result = tsleep_sync(chan, 0, "test", 0)
            elif mutex is g:
                result = msleep_sync(chan, g, 0, "test", 0)
            else:
                with mutex:
                    result = msleep_sync(chan, mutex, 0, "test", 0)
            depths.append(g.recursed())
        return result

    for mutex in (None, g, mtx):
        call = s.t1.begin(held_twice, mutex)

        assert call.blocked

        with s.t0.holding(g):
            s.t0.do(wakeup, chan)

            assert call.blocked
        s.do(lambda: None)

        assert call.result() == 0

    assert depths == [True, True, True]


def test_a_callback_wakes(s: Stage) -> None:
    """wakeup() may be called from a callback, on whichever CPU that runs."""
    mtx, chan = s.mtx(), Chan()
    c = s.callout()
    call = s.t1.begin(asleep, mtx, chan)
    s.do(callout_reset_on, c, 1, wakeup, chan, s.last)
    s.tick(2)

    assert call.result() == (0, True)


def test_a_timeout_is_not_held_up_by_a_callback_that_waits_for_its_lock(s: Stage) -> None:
    """While softclock is parked at a mutex, the time of a sleep is over all the same."""
    mtx, other = s.mtx(), s.mtx()
    c = s.callout(other)
    call = s.t1.begin(asleep, mtx, Chan(), 3)
    with s.t0.holding(other):
        s.t0.do(callout_reset, c, 1, s.seen, "parked")
        s.tick(4)

        assert call.result() == (errno.EWOULDBLOCK, True)
        assert s.ran == []
    s.do(lambda: None)


def test_the_times_of_the_relatives(s: Stage) -> None:
    """msleep_sbt(), msleep_spin() and tsleep() sleep as long as they are told, and are woken like msleep()."""
    mtx, spin, chan = s.mtx(), s.lock("spin"), Chan()
    assert isinstance(spin, Mtx)

    def with_sbt(flags: int = 0) -> int:
        with mtx:
            return msleep_sbt_sync(chan, mtx, 0, "test", 3 * SBT_1MS, 0, flags)

    def with_spin(timo: int) -> int:
        with spin:
            return msleep_spin_sync(chan, spin, "test", timo)

    starts: list[Callable[[], Call[int]]] = [
        lambda: s.t1.begin(with_sbt),
        lambda: s.t1.begin(with_spin, 3),
        lambda: s.t1.begin(tsleep_sync, chan, 0, "test", 3),
    ]
    for start in starts:
        woken = start()
        s.do(wakeup, chan)

        assert woken.result() == 0

        timed = start()
        s.tick(2)

        assert timed.blocked

        s.tick(2)

        assert timed.result() == errno.EWOULDBLOCK


def test_a_pause_lasts_at_least_a_tick_and_ends_by_itself(s: Stage) -> None:
    """sleep(9): pause() and pause_sbt() end with EWOULDBLOCK; a time of 0 counts as a tick."""
    starts: list[tuple[int, Callable[[], Call[int]]]] = [
        (1, lambda: s.t1.begin(pause_sync, "test", 0)),
        (4, lambda: s.t1.begin(pause_sync, "test", 4)),
        (1, lambda: s.t1.begin(pause_sbt_sync, "test", 0, 0)),
        (4, lambda: s.t1.begin(pause_sbt_sync, "test", 4 * SBT_1MS, 0)),
    ]
    for ticks, start in starts:
        call = start()
        s.tick(ticks - 1)

        assert call.blocked

        s.tick(1)

        assert call.result() == errno.EWOULDBLOCK


# -- condition variables ---------------------------------------------------------------------------------------------


def waited(cv: Cv, mtx: Mtx, timo: int | None = None) -> tuple[int | None, bool]:
    """Wait with *mtx* held; return the result, and whether the mutex was held again."""
    with mtx:
        if timo is None:
            cv_wait_sync(cv, mtx)
            return None, mtx.owned()
        return cv_timedwait_sync(cv, mtx, timo), mtx.owned()


def test_a_signal_wakes_one_and_a_broadcast_all(s: Stage) -> None:
    """condvar(9): cv_signal() wakes the first that waits, cv_broadcast() all, and neither is kept."""
    mtx, cv = s.mtx(), s.do(cv_init, "cv")
    s.do(cv_signal, cv)
    calls = [s.t1.begin(waited, cv, mtx), s.t2.begin(waited, cv, mtx)]
    s.do(cv_signal, cv)

    assert calls[0].result() == (None, True)
    assert calls[1].blocked

    calls[0] = s.t1.begin(waited, cv, mtx)
    s.do(cv_broadcast, cv)

    assert [call.result() for call in calls] == [(None, True)] * 2


def test_a_timed_wait_ends_after_its_time(s: Stage) -> None:
    """condvar(9): cv_timedwait() returns EWOULDBLOCK when its time is over, 0 when it was woken."""
    mtx, cv = s.mtx(), s.do(cv_init, "cv")
    call = s.t1.begin(waited, cv, mtx, 3)
    s.tick(2)

    assert call.blocked

    s.tick(1)

    assert call.result() == (errno.EWOULDBLOCK, True)

    call = s.t1.begin(waited, cv, mtx, 3)
    s.do(cv_signal, cv)

    assert call.result() == (0, True)


def test_a_destroyed_condition_variable_is_refused(s: Stage) -> None:
    """cv_destroy() is refused while somebody waits; afterwards every use is."""
    mtx, cv = s.mtx(), s.do(cv_init, "cv")
    call = s.t1.begin(waited, cv, mtx)
    with pytest.raises(BusyError, match="cv_destroy: somebody waits for <Cv 'cv'>"):
        s.do(cv_destroy, cv)
    s.do(cv_broadcast, cv)
    call.result()
    s.do(cv_destroy, cv)
    for use in (cv_signal, cv_broadcast, cv_destroy, lambda cv: waited(cv, mtx)):
        with pytest.raises(LockDestroyedError, match="<Cv 'cv'> was destroyed"):
            s.do(use, cv)


# -- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_tasks_and_threads_sleep_and_wake_each_other() -> None:
    """Tasks of both CPUs and a thread pass a number on to each other, asleep while it is not theirs."""
    rounds, players = 30, 3
    async with open_callouts(cpus=2, checking=True) as system:
        mtx = Mtx("ball")
        ball = [0]

        def mine(me: int) -> bool:
            return ball[0] % players == me

        async def task(me: int) -> None:
            for _ in range(rounds):
                with mtx:
                    while not mine(me):
                        await msleep(ball, mtx, 0, "ball", 0)
                    ball[0] += 1
                    wakeup(ball)

        def thread(me: int) -> None:
            for _ in range(rounds):
                with mtx:
                    while not mine(me):
                        msleep_sync(ball, mtx, 0, "ball", 0)
                    ball[0] += 1
                    wakeup(ball)

        system.cpu(1).start_soon(task, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task, 0)
            nursery.start_soon(trio.to_thread.run_sync, thread, 2)
        # The task of CPU 1 is waited for by the end of the block.
    assert ball[0] == rounds * players


@pytest.mark.trio
async def test_a_cancelled_sleep_has_the_mutex_again() -> None:
    """A cancelled sleep raises Cancelled with the mutex held, so that the `with` block around it is left in order."""
    async with open_callouts(checking=True):
        mtx, chan = Mtx("m"), Chan()
        for sleep in (
            lambda: msleep(chan, mtx, 0, "test", 0),
            lambda: msleep_sbt(chan, mtx, 0, "test", SBT_1S, 0),
            lambda: cv_timedwait(cv_init("cv"), mtx, 1000),
            lambda: cv_wait(cv_init("cv"), mtx),
        ):
            held = []
            with trio.CancelScope() as scope:
                scope.cancel()
                with mtx:
                    try:
                        await sleep()
                    finally:
                        held.append(mtx.owned())

            assert scope.cancelled_caught
            assert held == [True]
            assert not mtx.owned()


@pytest.mark.trio
async def test_a_cancelled_sleeper_passes_its_wake_up_on() -> None:
    """A wakeup_one() that has chosen a sleeper which is cancelled before it runs wakes the next instead."""
    async with open_callouts(checking=True):
        mtx, chan = Mtx("m"), Chan()
        woken: list[str] = []

        async def sleeper(name: str, scope: trio.CancelScope) -> None:
            with scope, mtx:
                await msleep(chan, mtx, 0, name, 0)
                woken.append(name)

        scopes = [trio.CancelScope(), trio.CancelScope()]
        async with trio.open_nursery() as nursery:
            for name, scope in zip(("first", "second"), scopes, strict=True):
                nursery.start_soon(sleeper, name, scope)
                await trio.testing.wait_all_tasks_blocked()
            wakeup_one(chan)  # of the first, which is told by its loop: not before this task awaits
            scopes[0].cancel()

        assert woken == ["second"]
        assert scopes[0].cancelled_caught


@pytest.mark.trio
async def test_sleeping_tasks_do_not_stop_the_loop() -> None:
    """Many sleeps with a timeout, in one loop, end by themselves after their time."""
    async with open_callouts():
        before = time.monotonic()
        results: list[int] = []

        async def one() -> None:
            results.append(await pause("test", 20))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
            nursery.start_soon(pause_sbt, "test", 10 * SBT_1MS, 0)
            nursery.start_soon(tsleep, Chan(), 0, "test", 5)

        assert results == [errno.EWOULDBLOCK] * 100
        assert time.monotonic() - before >= 0.02


@pytest.mark.trio
async def test_blocking_a_loop_is_refused() -> None:
    """The twins that block refuse a thread that runs a loop; the mutex stays held."""
    async with open_callouts(checking=True):
        mtx = Mtx("m")
        with mtx:
            for call in (
                lambda: msleep_sync(mtx, mtx, 0, "test", 0),
                lambda: cv_wait_sync(cv_init("cv"), mtx),
                lambda: pause_sync("test", 1),
            ):
                with pytest.raises(LoopThreadError, match=r"_sync: .*use `await \w+\(\)`"):
                    call()

            assert mtx.owned()


# -- wrong input -----------------------------------------------------------------------------------------------------

WRONG: Final[dict[str, tuple[type[Exception], Callable[[Mtx, Mtx, Mtx], object]]]] = {
    "msleep_sync: a channel is .* not 5": (ArgumentTypeError, lambda m, _, __: msleep_sync(5, m, 0, "t", 0)),
    "msleep_sync: a channel is .* not 'x'": (ArgumentTypeError, lambda m, _, __: msleep_sync("x", m, 0, "t", 0)),
    "msleep_sync: a channel is .* not None": (ArgumentTypeError, lambda m, _, __: msleep_sync(None, m, 0, "t", 0)),
    "msleep_sync: a channel is .* <bound method": (
        ArgumentTypeError,
        lambda m, _, __: msleep_sync(m.lock, m, 0, "t", 0),
    ),
    "wakeup: a channel is": (ArgumentTypeError, lambda *_: wakeup("x")),
    "wakeup_one: a channel is": (ArgumentTypeError, lambda *_: wakeup_one(1)),
    "wmesg must be a str": (ArgumentTypeError, lambda m, _, __: msleep_sync(m, m, 0, 0, 0)),  # type: ignore[arg-type]
    "priority must be an int": (ArgumentTypeError, lambda m, _, __: msleep_sync(m, m, "0", "t", 0)),  # type: ignore[arg-type]
    "unknown flag 0x1000 in priority": (ArgumentValueError, lambda m, _, __: msleep_sync(m, m, 0x1000, "t", 0)),
    "timo must not be negative, got -1": (ArgumentValueError, lambda m, _, __: msleep_sync(m, m, 0, "t", -1)),
    "ticks must be an int": (ArgumentTypeError, lambda m, _, __: msleep_sync(m, m, 0, "t", 1.5)),  # type: ignore[arg-type]
    "ticks must be an int .* not None": (ArgumentTypeError, lambda m, _, __: msleep_sync(m, m, 0, "t", None)),  # type: ignore[arg-type]
    "more than an int of the kernel": (ArgumentValueError, lambda m, _, __: msleep_sync(m, m, 0, "t", 1 << 40)),
    "sbt must not be negative": (ArgumentValueError, lambda m, _, __: msleep_sbt_sync(m, m, 0, "t", -1, 0)),
    "msleep_sbt_sync: unknown flag 0x1$": (ArgumentValueError, lambda m, _, __: msleep_sbt_sync(m, m, 0, "t", 1, 0, 1)),
    "not None; tsleep": (LockClassError, lambda m, _, __: msleep_sync(m, None, 0, "t", 0)),  # type: ignore[arg-type]
    "a callout.Mtx.* not <object": (LockClassError, lambda m, _, __: msleep_sync(m, object(), 0, "t", 0)),  # type: ignore[arg-type]
    "a spin mutex: use msleep_spin": (LockClassError, lambda m, spin, __: msleep_sync(m, spin, 0, "t", 0)),
    "not a spin mutex: use msleep": (LockClassError, lambda m, _, __: msleep_spin_sync(m, m, "t", 0)),
    "acquire <Mtx 'free'": (LockNotHeldError, lambda m, _, free: msleep_sync(m, free, 0, "t", 0)),
    "must be a Cv, not <Mtx": (ArgumentTypeError, lambda m, _, __: cv_wait_sync(m, m)),  # type: ignore[arg-type]
    "cv_signal: .*must be a Cv": (ArgumentTypeError, lambda m, _, __: cv_signal(m)),  # type: ignore[arg-type]
    "cv_timedwait_sync: ticks must be": (ArgumentTypeError, lambda m, _, __: cv_timedwait_sync(Cv(), m, "1")),  # type: ignore[arg-type]
    "cv_wait_sync: give the mutex": (LockClassError, lambda m, _, __: cv_wait_sync(Cv(), None)),  # type: ignore[arg-type]
    "cv_init: desc must be a str": (ArgumentTypeError, lambda *_: cv_init(5)),  # type: ignore[arg-type]
    "Cv: name must be a str": (ArgumentTypeError, lambda *_: Cv(5)),  # type: ignore[arg-type]
    "pause_sync: timo must not be negative": (ArgumentValueError, lambda *_: pause_sync("t", -1)),
    "pause_sync: release .*<Mtx 'held'": (SleepError, lambda *_: pause_sync("t", 1)),
    "tsleep_sync: release .*<Mtx 'held'": (SleepError, lambda *_: tsleep_sync(Chan(), 0, "t", 1)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_refused_before_anything_changes(message: str) -> None:
    """Each wrong argument is one error that names the call, and the mutex is held as before."""
    error, call = WRONG[message]
    with VirtualSMP(1, free_clock=False):
        mtx, spin, free = Mtx("held"), Mtx("spin", 1), Mtx("free")
        with mtx:
            with pytest.raises(error, match=message):
                call(mtx, spin, free)

            assert mtx.owned()


def test_a_recursed_mutex_is_refused() -> None:
    """A mutex that is held twice could not be released by one unlock: refused, unless it is Giant."""
    with VirtualSMP(1, free_clock=False):
        mtx = Mtx("m", MTX_RECURSE)
        with mtx, mtx, pytest.raises(LockError, match=r"msleep_sync: <Mtx 'm' held by .*> is recursed"):
            msleep_sync(mtx, mtx, 0, "test", 0)


def test_a_second_lock_is_refused() -> None:
    """In checking mode, sleeping with another mutex held than the one that is released is an error."""
    with VirtualSMP(1, free_clock=False):
        mtx, other = Mtx("m"), Mtx("other")
        with other, mtx, pytest.raises(SleepError, match=r"msleep_sync: release <Mtx 'other' held by .*> first"):
            msleep_sync(mtx, mtx, 0, "test", 0)


def test_another_systems_mutex_or_condition_variable_is_refused() -> None:
    """What belongs to another system than the current one is refused; without a system everything is."""
    with VirtualSMP(1, free_clock=False):
        mtx, cv = Mtx("m"), cv_init("cv")
        with VirtualSMP(1, free_clock=False), mtx:
            own = Mtx("own")
            with pytest.raises(ArgumentValueError, match=r"<Mtx 'm'.*> belongs to another"):
                msleep_sync(mtx, mtx, 0, "test", 0)
            with own, pytest.raises(ArgumentValueError, match="<Cv 'cv'> belongs to another"):
                cv_wait_sync(cv, own)
            with pytest.raises(ArgumentValueError, match="<Cv 'cv'> belongs to another"):
                cv_signal(cv)
    for call in (lambda: wakeup(mtx), lambda: wakeup_one(mtx), lambda: cv_init("cv"), lambda: pause_sync("test", 1)):
        with pytest.raises(NoSystemError):
            call()


def test_what_has_changed_since_the_call_is_seen_by_the_await() -> None:
    """A mutex that was released between the call and its await is an error then, and nothing is released twice."""
    with VirtualSMP(1, free_clock=False) as vm:
        mtx = Mtx("m")
        with mtx:
            waiting = msleep(mtx, mtx, 0, "test", 0)
        with pytest.raises(LockNotHeldError, match="msleep: acquire <Mtx 'm'>"):
            vm.run(lambda: waiting)


CALLS: Final[dict[str, Callable[[Mtx], Any]]] = {  # Any: what each is awaited for
    "msleep": lambda m: msleep(m, m, 0, "test", 1),
    "msleep_sbt": lambda m: msleep_sbt(m, m, 0, "test", 1, 0),
    "cv_wait": lambda m: cv_wait(cv_init("cv"), m),
    "cv_timedwait": lambda m: cv_timedwait(cv_init("cv"), m, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_await(name: str) -> None:
    """`if (msleep(...))` without an await raises."""
    with VirtualSMP(1, free_clock=False):
        mtx = Mtx("m")
        with mtx:
            waiting = CALLS[name](mtx)
            for use in (bool, lambda it: it == 0):
                with pytest.raises(NotAwaitedError, match=f"`await {name}"):
                    use(waiting)
            waiting.close()


def test_a_wait_leaves_nothing_behind(s: Stage) -> None:
    """After sleeps of every ending the queues are empty: a channel that nobody sleeps on costs nothing."""
    from callout._api.sleepqueue import queues_of

    mtx, chan = s.mtx(), Chan()
    call = s.t1.begin(asleep, mtx, chan)
    s.do(wakeup, chan)
    call.result()
    s.t1.begin(asleep, mtx, chan, 1)
    s.tick(2)
    queues = queues_of(s.world.machine)

    assert queues._queues == {}


def test_the_direct_timeout_of_a_sleep_needs_no_callout_of_the_users(s: Stage) -> None:
    """A sleep with a timeout does not disturb callouts of the same tick."""
    c = Callout()
    s.do(callout_init, c, 1)
    s.do(callout_reset, c, 2, s.seen, "callout")
    call = s.t1.begin(pause_sync, "test", 2)
    s.tick(2)

    assert call.result() == errno.EWOULDBLOCK
    assert s.ran == ["callout"]
