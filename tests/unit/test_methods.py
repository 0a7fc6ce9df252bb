"""The Python spelling: what the methods of a callout do, return and refuse, on real loops and under a mock clock."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, Final

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    CalloutError,
    CalloutSystem,
    ClosedError,
    LockClassError,
    LockHeldError,
    LockNotHeldError,
    LoopThreadError,
    Mtx,
    NeverArmedError,
    NoSystemError,
    NotAwaitedError,
    NotInitializedError,
    ResetResult,
    RmLock,
    RwLock,
    SelfDrainError,
    StopResult,
    callout_init,
    callout_pending,
    callout_reset,
    callout_schedule,
    callout_stop,
    curcpu,
    current_system,
    open_callouts,
)
from callout._core.args import Args, packed
from callout._core.describe import name_of
from callout._core.methods import in_ns
from callout._core.seconds import to_ns
from callout._core.units import NS_PER_S
from callout.testing import VirtualSMP


def ignore(*args: object) -> None:
    """Do nothing."""


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


# -- arming ------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_an_hour_under_a_mock_clock_is_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    """call_later() fires when its seconds are over, by trio's clock, and not before."""
    async with open_callouts() as system:
        fired = trio.Event()
        c = system.call_later(3600, fired.set)

        assert c.deadline == system.current_time() + 3600 == trio.current_time() + 3600
        assert c.remaining() == 3600

        await fired.wait()

        assert trio.current_time() == 3600
        assert c.deadline == c.remaining() == math.inf


@pytest.mark.trio
async def test_a_callout_gets_the_arguments_that_it_was_given(autojump_clock: trio.testing.MockClock) -> None:
    """None, one, several, and one that looks like several."""
    async with open_callouts() as system:
        got: list[tuple[object, ...]] = []

        def note(*args: object) -> None:
            got.append(args)

        for args in ((), (1,), (1, 2), ((1, 2),), (None,), (Args((1, 2)),)):
            system.call_later(1, note, *args)
            system.callout(note, *args).reset(1)
            system.callout().reset(1, note, *args)
            await trio.sleep(2)

            assert got == [args] * 3
            got.clear()


@pytest.mark.trio
async def test_reset_keeps_or_replaces_what_is_called(autojump_clock: trio.testing.MockClock) -> None:
    """Without a function a callout keeps its own, with its arguments; with one it has that from then on."""
    async with open_callouts() as system:
        got: list[object] = []
        c = system.call_later(1, got.append, "a")
        await trio.sleep(2)
        assert c.reset(1) is ResetResult.ARMED
        await trio.sleep(2)
        assert c.reset(1, got.extend, ["b", "c"]) is ResetResult.ARMED
        assert c.reset_at(trio.current_time() + 3) is ResetResult.REARMED
        await trio.sleep(2)

        assert got == ["a", "a"]

        await trio.sleep(2)

        assert got == ["a", "a", "b", "c"]


@pytest.mark.trio
async def test_both_spellings_are_of_one_callout(autojump_clock: trio.testing.MockClock) -> None:
    """callout_schedule(c, 5) and c.reset(0.005) do the same at 1000 Hz, and each keeps what the other has set."""
    async with open_callouts(hz=1000) as system:
        got: list[tuple[object, ...]] = []

        def note(*args: object) -> None:
            got.append(args)

        c = system.call_later(1, note, 1, 2)
        assert callout_schedule(c, 5) == 1
        by_c = c.deadline
        assert c.reset(0.005) is ResetResult.REARMED
        assert c.deadline == by_c
        await trio.sleep(1)
        assert callout_reset(c, 5, note, 3) == 0
        assert c.reset(0.006) is ResetResult.REARMED
        await trio.sleep(1)

        assert got == [(1, 2), (3,)]
        assert (callout_pending(c), callout_stop(c), c.stop()) == (0, -1, StopResult.IDLE)


@pytest.mark.trio
async def test_zero_seconds_is_soon_and_never_inside_the_call(autojump_clock: trio.testing.MockClock) -> None:
    """A delay of 0 and a deadline that is past run when the loop comes round."""
    async with open_callouts() as system:
        got: list[str] = []
        system.call_later(0, got.append, "later")
        system.call_at(system.current_time() - 5, got.append, "at")
        c = system.callout(got.append, "reset")
        c.reset_at(-1e9)

        assert got == []

        await trio.sleep(0.001)

        assert sorted(got) == ["at", "later", "reset"]


@pytest.mark.trio
async def test_a_callback_is_never_early_by_the_systems_clock() -> None:
    """On real loops of two CPUs, current_time() in a callback is not less than the deadline that was asked for."""
    async with open_callouts(cpus=2) as system:
        early: list[tuple[float, ...]] = []
        left = threading.Semaphore(0)

        def look(deadline: float) -> None:
            now = system.current_time(), trio.current_time()
            if min(now) < deadline:
                early.append((*now, deadline))
            left.release()

        for n in range(200):
            deadline = trio.current_time() + n / 40_000
            c = system.call_at(deadline, look, deadline, cpu=n % 2)
            assert c.cpu == n % 2
        await trio.to_thread.run_sync(lambda: [left.acquire() for _ in range(200)])

        assert early == []


@pytest.mark.trio
async def test_a_callout_runs_where_it_was_made() -> None:
    """By default on the CPU whose loop makes it, in a thread on the CPU it is bound to, else on CPU 0."""
    async with open_callouts(cpus=2) as system:
        made: list[Callout] = []

        def make() -> None:
            made.append(system.call_later(100, ignore))
            made.append(system.callout())

        def bound() -> None:
            with system.bound(1):
                make()

        there = trio.Event()
        token = trio.lowlevel.current_trio_token()
        system.cpu(1).call(make)
        system.cpu(1).call(token.run_sync_soon, there.set)
        await there.wait()
        await trio.to_thread.run_sync(bound)
        await trio.to_thread.run_sync(make)
        make()
        giant = system.call_later(100, ignore, lock=system.giant, cpu=1)

        assert sorted(c.cpu for c in made) == [0] * 4 + [1] * 4
        assert giant.cpu == 0


@given(st.floats(0, 1 << 31) | st.integers(0, 1 << 31) | st.timedeltas(timedelta(0), timedelta(days=20_000)))
def test_seconds_are_rounded_up(seconds: float | timedelta) -> None:
    """To whole nanoseconds, never down; the quick way and the careful one agree."""
    exact = Fraction(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds) * NS_PER_S
    ns = to_ns("f", seconds)

    assert in_ns("f", seconds) == ns
    assert exact - 256 <= ns <= exact + 257  # a float of so many seconds is no finer
    if exact <= 1 << 52:
        assert exact - 1 < ns < exact + 2


# -- results -----------------------------------------------------------------------------------------------------------


def test_true_means_that_it_worked() -> None:
    """The truth value of each result is what the table of the manual says."""
    assert [bool(result) for result in StopResult] == [False, True, False, True]
    assert [result.name for result in StopResult] == ["IDLE", "REMOVED", "RUNNING", "BOTH"]
    assert {result.name: bool(result) for result in ResetResult} == {"ARMED": True, "REARMED": True, "REFUSED": False}


def test_stop_tells_a_run_in_progress_from_a_scheduled_one() -> None:
    """All four results, each in its state."""
    with VirtualSMP() as vm:
        got: list[StopResult] = []

        def running() -> None:
            got.append(c.stop())
            c.reset(5)
            got.append(c.stop())

        c = vm.callout(running)
        got.append(c.stop())
        c.reset(1)
        got.append(c.stop())
        c.reset(0.001)
        vm.settle()

        assert got == [StopResult.IDLE, StopResult.REMOVED, StopResult.RUNNING, StopResult.BOTH]
        assert not c.pending


@pytest.mark.trio
async def test_what_was_closed_is_refused() -> None:
    """reset() of a closed callout is false, and raises nothing; a closed system raises."""
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        await c.aclose()

        assert (c.closed, c.pending, c.reset(1), c.reset_at(5)) == (
            True,
            False,
            ResetResult.REFUSED,
            ResetResult.REFUSED,
        )

        d = system.call_later(100, ignore)
    with pytest.raises(ClosedError, match=r"^reset: the callout system was closed"):
        d.reset(1)
    with pytest.raises(ClosedError, match=r"^call_later: "):
        system.call_later(1, ignore)
    with pytest.raises(ClosedError, match=r"^callout: "):
        system.callout()
    with pytest.raises(ClosedError, match=r"^call_at: "):
        system.call_at(1, ignore)
    with pytest.raises(ClosedError, match=r"^every: "):
        system.every(1, ignore)
    with pytest.raises(ClosedError, match=r"^mutex: "):
        system.mutex()

    assert (d.pending, d.running, d.closed, d.cpu, d.deadline, d.remaining()) == (
        False,
        False,
        False,
        0,
        math.inf,
        math.inf,
    )


@pytest.mark.trio
async def test_a_drain_refuses_until_it_is_over() -> None:
    """While a drain waits for a run reset() is REFUSED; afterwards it arms again."""
    entered, go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow() -> None:
        token.run_sync_soon(entered.set)
        go.wait()

    async with open_callouts(cpus=2) as system:
        c = system.call_later(0, slow, cpu=1)
        await entered.wait()
        refused: list[ResetResult] = []

        async def drain() -> None:
            assert await c.drain() is False
            refused.append(c.reset(100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            refused.append(c.reset(100))
            assert c.running
            go.set()

        assert refused == [ResetResult.REFUSED, ResetResult.ARMED]
        assert await c.drain() is True


# -- closing -----------------------------------------------------------------------------------------------------------


async def leave(c: Callout, d: Callout) -> None:
    """Leave the blocks of two callouts by an exception."""
    async with c, d:
        assert c.pending
        raise KeyError


@pytest.mark.trio
async def test_a_block_closes_its_callout(autojump_clock: trio.testing.MockClock) -> None:
    """After `async with` it neither runs nor will run, by whatever way the block was left; entering it again raises."""
    async with open_callouts() as system:
        got: list[int] = []
        c, d = (system.call_later(5, got.append, n) for n in range(2))
        with pytest.raises(KeyError):
            await leave(c, d)
        await trio.sleep(10)

        assert got == []
        assert c.closed
        assert d.closed
        with pytest.raises(ClosedError, match=r"async with: .*was closed"):
            async with c:
                pytest.fail("entered")


@pytest.mark.trio
async def test_closing_drops_what_it_refers_to() -> None:
    """Once nothing runs, a closed callout keeps neither function nor arguments alive; a stopped one keeps them."""
    async with open_callouts() as system:

        class Thing:
            def called(self, other: object) -> None:
                """Be a callback."""

        for close in ("aclose", "close_soon", "stop"):
            thing, arg = Thing(), Thing()
            refs = weakref.ref(thing), weakref.ref(arg)
            c = system.call_later(100, thing.called, arg)
            del thing, arg
            if close == "aclose":
                await c.aclose()
            elif close == "close_soon":
                done = trio.Event()
                assert c.close_soon(done.set)
                await done.wait()
            else:
                c.stop()
            gc.collect()

            assert [ref() is None for ref in refs] == [close != "stop"] * 2


@pytest.mark.trio
async def test_closing_soon_calls_once_on_its_cpu() -> None:
    """close_soon() is True once; then its function is called on the callout's CPU, also if nothing runs."""
    async with open_callouts(cpus=2) as system:
        where: list[int] = []
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def closed(who: str) -> None:
            where.append(curcpu())
            assert who == "first"
            token.run_sync_soon(done.set)

        c = system.call_later(100, ignore, cpu=1)

        assert c.close_soon(closed, "first") is True
        assert c.closed
        assert c.close_soon(closed, "second") is False

        await done.wait()

        assert where == [1]
        assert c.reset(1) is ResetResult.REFUSED


def test_closing_soon_in_its_own_callback() -> None:
    """The function is called when the callback has returned."""
    with VirtualSMP() as vm:
        log: list[str] = []

        def called() -> None:
            assert c.close_soon(log.append, "freed")
            log.append("returns")

        c = vm.call_later(0.001, called)
        vm.settle()

        assert log == ["returns", "freed"]
        assert c.closed
        assert c.func is None
        assert c.arg is None


@pytest.mark.trio
async def test_what_a_completion_raises_is_reported() -> None:
    """With the callout, to on_error, as what a callback raises."""
    told: list[tuple[str, object]] = []
    async with open_callouts(on_error=lambda error, c: told.append((str(error), c))) as system:

        def bad(what: str) -> None:
            raise ValueError(what)

        c = system.callout()
        c.close_soon(bad, "closed")
    assert told == [("closed", c)]


@pytest.mark.trio
async def test_callout_init_opens_a_closed_one_and_forgets_its_name() -> None:
    """As it does with one that callout_terminate() has closed."""
    async with open_callouts() as system:
        c = system.call_later(5, ignore, name="session", tolerance=1)
        await c.aclose()
        assert c.name == "session"
        callout_init(c, 1)

        assert c.name is None
        assert not c.closed
        assert c.reset(5, ignore) is ResetResult.ARMED
        assert c.stop()


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_drain_is_a_checkpoint_and_close_is_none() -> None:
    """drain() always yields, and Cancelled out of it means stopped; aclose() yields only if it must wait."""
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        with trio.testing.assert_checkpoints():
            assert await c.drain()
        with trio.testing.assert_no_checkpoints():
            await c.aclose()
        with trio.testing.assert_no_checkpoints():
            async with system.call_later(100, ignore):
                pass
        d = system.call_later(100, ignore)
        with trio.CancelScope() as scope:
            scope.cancel()
            await d.drain()

        assert scope.cancelled_caught
        assert not d.pending
        with trio.CancelScope() as scope:
            scope.cancel()
            await d.aclose()

        assert not scope.cancelled_caught


@pytest.mark.trio
async def test_closing_waits_though_it_was_cancelled() -> None:
    """aclose() in a cancelled scope returns when the run in progress has ended."""
    entered, go, over = trio.Event(), threading.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow() -> None:
        token.run_sync_soon(entered.set)
        go.wait()
        over.set()

    async with open_callouts(cpus=2) as system:
        c = system.call_later(0, slow, cpu=1)
        await entered.wait()

        async def close() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await c.aclose()
            assert over.is_set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await trio.testing.wait_all_tasks_blocked()
            go.set()


@pytest.mark.trio
async def test_threads_without_a_loop_have_their_own_calls() -> None:
    """drain_sync() and close_sync() block the thread, and are refused where a loop runs."""
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        for call, text in (
            (c.drain_sync, r"^drain_sync: .*`await c\.drain\(\)`"),
            (c.close_sync, r"^close_sync: .*`await c\.aclose\(\)`"),
        ):
            with pytest.raises(LoopThreadError, match=text):
                call()
        assert c.pending
        assert await trio.to_thread.run_sync(c.drain_sync) is True
        assert await trio.to_thread.run_sync(c.drain_sync) is False
        await trio.to_thread.run_sync(c.close_sync)

        assert c.closed


@pytest.mark.trio
async def test_a_forgotten_await_is_said() -> None:
    """What drain() and aclose() return has no truth value; dropped, it warns."""
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        for waiting in (c.drain(), c.aclose()):
            with pytest.raises(NotAwaitedError, match="`await` is missing"):
                bool(waiting)
            waiting.close()
        with pytest.warns(RuntimeWarning, match=r"drain.*was never awaited"):
            c.drain()  # type: ignore[unused-coroutine]  # that is the mistake

        assert c.pending


@pytest.mark.trio
async def test_a_wait_that_could_not_end_is_refused() -> None:
    """In its own callback, and with its lock held; before anything is stopped."""
    caught: list[str] = []
    async with open_callouts() as system:
        lock = system.mutex("m")
        d = system.call_later(100, ignore, lock=lock)
        with lock, pytest.raises(LockHeldError, match=r"^drain: release"):
            d.drain()  # type: ignore[unused-coroutine]  # that is the mistake
        with lock, pytest.raises(LockHeldError, match=r"^aclose: release"):
            d.aclose()  # type: ignore[unused-coroutine]  # that is the mistake
        assert d.pending
        done = trio.Event()

        def inside() -> None:
            for call in (c.drain, c.aclose):
                try:
                    call()
                except SelfDrainError as error:
                    caught.append(str(error))
            done.set()

        c = system.call_later(0, inside)
        await done.wait()

    assert [text.partition(":")[0] for text in caught] == ["drain", "aclose"]
    assert all("close_soon()" in text for text in caught)


@pytest.mark.trio
async def test_a_stop_on_its_own_loop_is_certain() -> None:
    """Softclock begins no run that it cannot call at once: no task of a callout's loop ever finds one without a lock
    running, though other threads arm it all the time and it takes its turns with tasks.
    """
    async with open_callouts() as system:
        over = threading.Event()
        c = system.callout(ignore)

        def feed() -> None:
            while not over.is_set():
                c.reset(0)

        found: set[StopResult] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, feed)
            for _ in range(2000):
                assert not c.running
                found.add(c.stop())
                await trio.lowlevel.checkpoint()
            over.set()

        assert found <= {StopResult.IDLE, StopResult.REMOVED}


# -- looking -----------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_the_properties_say_what_it_is() -> None:
    """pending, running, closed, cpu, name, deadline: for an idle one, an armed one, one that runs."""
    async with open_callouts() as system:
        seen: list[tuple[object, ...]] = []
        done = trio.Event()

        def look() -> None:
            seen.append((c.pending, c.running, c.closed, c.name))
            done.set()

        c = system.callout(look, name="idle")
        seen.append((c.pending, c.running, c.closed, c.name))
        c.reset(0)
        seen.append((c.pending, c.running, c.closed, c.name))
        await done.wait()

        assert seen == [(False, False, False, "idle"), (True, False, False, "idle"), (False, True, False, "idle")]
        assert system.callout().name is None
        assert Callout().cpu == -1
        assert c == c  # noqa: PLR0124 - that it is itself is what is asked
        assert c != system.callout()
        assert len({c, c}) == 1
        with pytest.raises(ArgumentTypeError):
            copy.copy(c)
        for name in ("pending", "running", "closed", "cpu", "name", "deadline"):
            with pytest.raises(AttributeError):
                setattr(c, name, 1)


@pytest.mark.trio
async def test_the_current_system_is_found() -> None:
    """In a task that inherits it, in a request handler of its loop, in a bound thread; not outside."""
    with pytest.raises(NoSystemError, match=r"^current_system: "):
        current_system()
    async with open_callouts() as system:
        assert current_system() is system

        def bound() -> CalloutSystem:
            with system.bound():
                return current_system()

        assert await trio.to_thread.run_sync(bound) is system
    with VirtualSMP(), pytest.raises(NoSystemError, match="VirtualSMP"):
        current_system()


@pytest.mark.trio
async def test_a_tolerance_lets_wake_ups_be_shared() -> None:
    """A callout with a tolerance is armed for a time within it that others share, and never earlier."""
    async with open_callouts() as system:
        when = system.current_time() + 100
        c = system.call_at(when, ignore, tolerance=2)
        d = system.call_at(when + 0.1, ignore, tolerance=timedelta(seconds=2))

        assert when <= c.deadline <= when + 2.001
        assert when + 0.1 <= d.deadline
        assert d.deadline == c.deadline or abs(d.deadline - c.deadline) <= 2.2

        c.reset_at(when)

        assert c.deadline > when
        assert system.call_at(when, ignore).deadline == pytest.approx(when, abs=1e-6)


# -- mistakes ----------------------------------------------------------------------------------------------------------


async def nothing() -> None:
    """Be asynchronous."""


def generator() -> Iterator[None]:
    """Be a generator."""
    yield


WRONG_SECONDS: Final[list[tuple[object, type[CalloutError]]]] = [
    ("1", ArgumentTypeError),
    (b"1", ArgumentTypeError),
    (True, ArgumentTypeError),
    (None, ArgumentTypeError),
    (Decimal(1), ArgumentTypeError),
    (Fraction(1, 2), ArgumentTypeError),
    (1j, ArgumentTypeError),
    ([1], ArgumentTypeError),
    (math.nan, ArgumentValueError),
    (math.inf, ArgumentValueError),
    (-math.inf, ArgumentValueError),
    (-1, ArgumentValueError),
    (-1e-9, ArgumentValueError),
    (timedelta(seconds=-1), ArgumentValueError),
    ((1 << 31) + 1, ArgumentValueError),
    (1 << 400, ArgumentValueError),
    (timedelta.max, ArgumentValueError),
]


@pytest.mark.trio
@pytest.mark.parametrize(("wrong", "error"), WRONG_SECONDS, ids=lambda value: str(value)[:12])
async def test_wrong_seconds(wrong: object, error: type[CalloutError]) -> None:
    """Each is one clear error, in the name of the call, and changes nothing."""
    seconds: Any = wrong
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        before = c.deadline
        for call, make in (
            ("reset", lambda: c.reset(seconds)),
            ("call_later", lambda: system.call_later(seconds, ignore)),
            ("every", lambda: system.every(seconds, ignore)),
            ("callout", lambda: system.callout(tolerance=seconds)),
        ):
            with pytest.raises(error, match=f"^{call}: (seconds|tolerance)") as caught:
                make()
            assert caught.value.call == call
        if not isinstance(seconds, int | float | timedelta) or seconds != seconds or abs(seconds) == math.inf:  # noqa: PLR0124
            for call, make in (
                ("reset_at", lambda: c.reset_at(seconds)),
                ("call_at", lambda: system.call_at(seconds, ignore)),
            ):
                with pytest.raises(error, match=f"^{call}: deadline"):
                    make()
        if seconds is not None:
            with pytest.raises(error, match=r"^every: first"):
                system.every(1, ignore, first=seconds)

        assert c.deadline == before


@pytest.mark.trio
async def test_a_deadline_is_no_length_of_time() -> None:
    """A timedelta as deadline is refused, with what to write; so is one more than 68 years ahead."""
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match=r"call_at: deadline must be a time of system\.current_time\(\)"):
            system.call_at(timedelta(1), ignore)  # type: ignore[call-overload]  # that is the mistake
        with pytest.raises(ArgumentValueError, match="call_at: deadline is more than 68 years ahead"):
            system.call_at(system.current_time() + (1 << 31) + 5, ignore)
        for far in (1e300, 10**400):
            with pytest.raises(ArgumentValueError, match=r"^call_at: deadline is more than 68 years ahead"):
                system.call_at(far, ignore)
        for past in (-1e300, -(10**400)):
            assert system.call_at(past, ignore).remaining() == 0


@pytest.mark.trio
@pytest.mark.parametrize("wrong", [nothing, generator, partial(nothing), 5, None, "print"], ids=name_of)
async def test_wrong_functions(wrong: object) -> None:
    """What is asynchronous, a generator function or no function is refused by every call, which changes nothing."""
    fn: Any = wrong
    async with open_callouts() as system:
        c = system.call_later(100, ignore)
        for call, make in (
            ("reset", lambda: c.reset(1, fn)),
            ("reset_at", lambda: c.reset_at(1, fn)),
            ("call_later", lambda: system.call_later(1, fn)),
            ("call_later", lambda: system.call_later(1, fn, name="x")),
            ("call_at", lambda: system.call_at(1, fn)),
            ("every", lambda: system.every(1, fn)),
            ("callout", lambda: system.callout(fn)),
            ("close_soon", lambda: c.close_soon(fn)),
        ):
            with pytest.raises(ArgumentTypeError, match=f"^{call}: ") as caught:
                make()  # type: ignore[no-untyped-call]  # that is the mistake
            assert caught.value.call == call

        assert c.remaining() > 50
        assert not c.closed


@pytest.mark.trio
async def test_wrong_locks() -> None:
    """Each kind of lock that softclock cannot wait for is refused with its own text."""
    async with open_callouts() as system:
        wrong: list[tuple[Any, str]] = [
            (trio.Lock(), "held across an await"),
            (asyncio.Lock(), "held across an await"),
            (threading.Lock(), "knows no owner"),
            (threading.RLock(), "knows no owner"),
            ("m", "has to know its owner"),
        ]
        for lock, text in wrong:
            with pytest.raises(LockClassError, match=rf"^call_later: lock must be a .*{text}.*system\.mutex\(\)"):
                system.call_later(1, ignore, lock=lock)
        async with open_callouts() as other:
            with pytest.raises(ArgumentValueError, match="belongs to another callout system"):
                system.call_later(1, ignore, lock=other.mutex())
        for good in (
            system.mutex(),
            system.giant,
            Mtx("m"),
            RwLock("rw"),
            RmLock("rm"),
            system.mutex("r", recursive=True),
        ):
            assert system.call_later(100, ignore, lock=good).pending


@pytest.mark.trio
async def test_other_wrong_arguments() -> None:
    """A name that is no str, a CPU that is not there, a stop without the lock, a function that was never given."""
    five: Any = 5
    text: Any = "0"
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match="call_later: name must be a str, not 5"):
            system.call_later(1, ignore, name=five)
        with pytest.raises(ArgumentTypeError, match="mutex: name must be a str, not 5"):
            system.mutex(five)
        for cpu in (1, -1):
            with pytest.raises(ArgumentValueError, match=f"call_later: there is no cpu {cpu}"):
                system.call_later(1, ignore, cpu=cpu)
        with pytest.raises(ArgumentTypeError, match="call_later: cpu must be an int"):
            system.call_later(1, ignore, cpu=text)
        lock = system.mutex("m")
        c = system.call_later(100, ignore, lock=lock)
        for call in (c.stop, lambda: c.close_soon(ignore)):
            with pytest.raises(LockNotHeldError, match=r"(stop|close_soon): acquire .*'m'"):
                call()
        with pytest.raises(NeverArmedError, match=r"^reset: this callout was never given a function"):
            system.callout().reset(1)
        with pytest.raises(TypeError):
            c.reset()  # type: ignore[call-overload]  # as above

        assert c.pending


LOOKS: Final[dict[str, Callable[[Callout], object]]] = {
    "reset": lambda c: c.reset(1, ignore),
    "reset_at": lambda c: c.reset_at(1, ignore),
    "stop": lambda c: c.stop(),
    "drain": lambda c: c.drain(),
    "aclose": lambda c: c.aclose(),
    "close_soon": lambda c: c.close_soon(ignore),
    "drain_sync": lambda c: c.drain_sync(),
    "close_sync": lambda c: c.close_sync(),
    "remaining": lambda c: c.remaining(),
    "pending": lambda c: c.pending,
    "running": lambda c: c.running,
    "closed": lambda c: c.closed,
    "deadline": lambda c: c.deadline,
    "name": lambda c: c.name,
}


@pytest.mark.parametrize("call", LOOKS)
def test_a_blank_record_says_how_to_get_one(call: str) -> None:
    """Every method of a bare Callout() names callout_init() and system.callout()."""
    with pytest.raises(NotInitializedError, match=r"callout_init\(c, 1\).*system\.callout\(\)"):
        LOOKS[call](Callout())


def test_one_argument_is_kept_as_it_is() -> None:
    """As in C; only of none or several something is made."""
    thing = object()

    assert packed((thing,)) is thing
    assert packed(()) is packed(())
    assert packed((1, 2)) == (1, 2)
    assert packed((Args((1,)),)) == (Args((1,)),)
