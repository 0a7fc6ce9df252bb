"""How the Python spelling is typed, as a user would use it: checked by mypy, never run.

A callback and its arguments must agree, whatever their number, and none may be asynchronous. Every wrong call carries
an ignore, and mypy reports an ignore that is not needed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Never, assert_type

from callout import (
    Callout,
    CalloutSystem,
    Mtx,
    Periodic,
    ResetResult,
    StopResult,
    aclose_all,
    callout_drain_all,
    callout_drain_all_async,
    callout_init,
    close_all_soon,
    current_system,
    drain_all,
)


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
