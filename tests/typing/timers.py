"""How the Python spelling is typed, as a user would use it: checked by mypy, never run.

A callback and its arguments must agree, whatever their number, and none may be asynchronous. Every wrong call carries
an ignore, and mypy reports an ignore that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Never, TypeVarTuple, assert_type

from callout import (
    Callout,
    CalloutSystem,
    Mtx,
    Periodic,
    ResetResult,
    StopResult,
    TimedNursery,
    TimeoutTask,
    aclose_all,
    callout_drain_all,
    callout_drain_all_async,
    callout_init,
    close_all_soon,
    current_system,
    drain_all,
)
from callout.abc import Timer, Timers
from callout.testing import ManualTimers, VirtualSMP

Ts = TypeVarTuple("Ts")


def nothing() -> None:
    """Be a callback without arguments."""


def one(n: int) -> str:
    """Be a callback with one; what it returns is nobody's business."""
    return str(n)


def two(n: int, word: str) -> None:
    """Be a callback with two."""


def fails(n: int) -> Never:
    """Be a callback that always raises: that is in order."""
    raise ValueError(n)


async def asynchronous(n: int) -> None:
    """Be what may not be a callback."""


def arming(c: Callout, entries: dict[str, int]) -> None:
    """Seconds are numbers or timedeltas; with a function come its arguments."""
    assert_type(c.reset(1), ResetResult)
    assert_type(c.reset(0.5), ResetResult)
    assert_type(c.reset(timedelta(seconds=1)), ResetResult)
    assert_type(c.reset(1, nothing), ResetResult)
    assert_type(c.reset(1, one, 1), ResetResult)
    assert_type(c.reset(1, two, 1, "word"), ResetResult)
    assert_type(c.reset(1, fails, 1), ResetResult)
    assert_type(c.reset(1, entries.pop, "key", None), ResetResult)
    assert_type(c.reset_at(1.5), ResetResult)
    assert_type(c.reset_at(1.5, two, 1, "word"), ResetResult)
    assert_type(c.stop(), StopResult)
    if c.stop() and c.reset(1):
        assert_type(c.deadline, float)

    c.reset("1")  # type: ignore[call-overload]  # no number
    c.reset(1, one)  # type: ignore[arg-type,call-arg]  # the argument is missing
    c.reset(1, one, "1")  # type: ignore[arg-type]  # no int
    c.reset(1, two, 1)  # type: ignore[arg-type]  # one is missing
    c.reset(1, asynchronous, 1)  # type: ignore[unused-coroutine]  # it would run nothing
    c.reset_at(timedelta(1))  # type: ignore[call-overload]  # no time
    c.reset(seconds=1)  # type: ignore[call-overload]  # by position only


async def closing(c: Callout) -> None:
    """What waits must be awaited."""
    assert_type(await c.drain(), bool)
    assert_type(c.drain_sync(), bool)
    await c.aclose()
    c.close_sync()
    assert_type(c.close_soon(nothing), bool)
    assert_type(c.close_soon(two, 1, "word"), bool)
    async with c as same:
        assert_type(same, Callout)
    assert_type(await drain_all([c]), int)
    await aclose_all({c})
    assert_type(close_all_soon([c], one, 1), bool)
    assert_type(await callout_drain_all([c]), int)
    assert_type(callout_drain_all_async([c], one, 1), int)

    c.drain()  # type: ignore[unused-coroutine]  # not awaited
    c.aclose()  # type: ignore[unused-coroutine]  # not awaited
    drain_all([c])  # type: ignore[unused-coroutine]  # not awaited
    c.close_soon(asynchronous, 1)  # type: ignore[unused-coroutine]  # it would run nothing
    close_all_soon([c], one)  # type: ignore[arg-type,call-arg]  # the argument is missing
    with c:  # type: ignore[attr-defined]  # a blocking exit would be a bug
        pass


def looking(c: Callout) -> None:
    """What is looked at cannot be set."""
    assert_type((c.pending, c.running, c.closed), tuple[bool, bool, bool])
    assert_type(c.cpu, int)
    assert_type(c.name, str | None)
    assert_type(c.remaining(), float)
    c.pending = True  # type: ignore[misc]  # read-only
    c.name = "x"  # type: ignore[misc]  # read-only


def making(system: CalloutSystem, lock: Mtx) -> None:
    """Options are keywords, and each has its type."""
    assert_type(system.callout(), Callout)
    assert_type(system.callout(one, 1, lock=lock, name="x", cpu=0, tolerance=0.5), Callout)
    assert_type(system.call_later(1, two, 1, "word"), Callout)
    assert_type(system.call_later(timedelta(1), nothing, lock=system.giant), Callout)
    assert_type(system.call_at(system.current_time() + 1, one, 1), Callout)
    assert_type(system.every(1, one, 1, first=0, name="poll"), Periodic)
    assert_type(system.every(1, one, 1).missed, int)
    assert_type(system.mutex("m", recursive=True), Mtx)
    assert_type(current_system(), CalloutSystem)
    callout_init(system.callout(), 1)

    anything: Any = system.call_later(1, asynchronous, 1)
    assert_type(anything, Any)
    system.call_later(1, asynchronous, 1)  # type: ignore[unused-coroutine]  # it would run nothing
    system.every(1, one)  # type: ignore[arg-type,call-arg]  # the argument is missing


async def later(n: int, word: str) -> bytes:
    """Be what a timer starts."""
    return word.encode() * n


async def starting(system: CalloutSystem) -> None:
    """An async function and its arguments agree; a plain one is no task."""
    async with system.open_nursery() as nursery:
        assert_type(nursery, TimedNursery)
        assert_type(nursery.start_later(1, later, 1, "word"), TimeoutTask)
        assert_type(nursery.start_at(system.current_time(), later, 1, "word", name="x"), TimeoutTask)
        assert_type(nursery.start_every(timedelta(1), later, 1, "word", first=0, name="x"), TimeoutTask)
        t = assert_type(nursery.task(later, 1, "word"), TimeoutTask)
        nursery.start_soon(later, 1, "word", name="x")
        nursery.start_soon(t.aclose)
        nursery.cancel()

        nursery.start_later(1, later, 1)  # type: ignore[arg-type]  # one is missing
        nursery.start_every(1, later, "word", 1)  # type: ignore[arg-type]  # the wrong way round
        nursery.start_soon(one, 1)  # type: ignore[arg-type]  # plain
        nursery.task(nothing)  # type: ignore[arg-type]  # plain
        nursery.start_later(1, later, 1, "word", first=1)  # type: ignore[call-arg]  # that is for start_every()

    assert_type(t.reset(1), ResetResult)
    assert_type(t.reset_at(1.5), ResetResult)
    assert_type((t.stop(), t.cancel()), tuple[StopResult, StopResult])
    assert_type(await t.drain(), bool)
    assert_type((t.pending, t.running, t.closed), tuple[bool, bool, bool])
    assert_type((t.deadline, t.remaining(), t.missed), tuple[float, float, int])
    async with t as same:
        assert_type(same, TimeoutTask)

    t.reset(1, later, 1, "word")  # type: ignore[call-arg]  # it keeps its function
    t.drain()  # type: ignore[unused-coroutine]  # not awaited
    t.aclose()  # type: ignore[unused-coroutine]  # not awaited


class Mine:
    """Timers of a user's own."""

    def __init__(self, timer: Timer) -> None:
        """Have one timer."""
        self.timer = timer

    def call_later(self, seconds: object, fn: Callable[[*Ts], object], /, *args: *Ts) -> Timer:
        """Make none."""
        return self.timer

    call_at = call_later

    def current_time(self) -> float:
        """Return no time."""
        return 0


def injected(timers: Timers) -> None:
    """Function and arguments agree here as well, and what is asynchronous gives no timer."""
    timer = assert_type(timers.call_later(1, two, 1, "word"), Timer)
    assert_type(timers.call_at(timers.current_time(), fails, 1), Timer)
    assert_type(
        (timer.reset(1), timer.reset(1, one, 1), timer.reset_at(1)), tuple[ResetResult, ResetResult, ResetResult]
    )
    assert_type((timer.stop(), timer.pending, timer.deadline), tuple[StopResult, bool, float])

    timers.call_later(1, two, 1)  # type: ignore[arg-type]  # one is missing
    timers.call_later(1, one, 1, name="x")  # type: ignore[call-overload]  # no keywords
    timers.call_later(1, asynchronous, 1).stop()  # type: ignore[attr-defined]  # it would run nothing


def who_injects(system: CalloutSystem, vm: VirtualSMP, manual: ManualTimers, c: Callout) -> None:
    """All of these are Timers, and a callout is a Timer."""
    timer: Timer = c
    for timers in (system, vm, manual, Mine(timer)):
        injected(timers)
    everything: list[Timers] = [system, vm, manual, Mine(timer)]
    assert_type(everything, list[Timers])
    manual.advance(timedelta(1))
    with ManualTimers(start=5) as again:
        assert_type(again, ManualTimers)
