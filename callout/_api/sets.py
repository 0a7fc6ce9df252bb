"""Several callouts at once: all are stopped before the first is waited for, and one completion is for all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from .._core.args import packed
from .._core.checks import check_callout, check_func
from .._core.cpu import CLOSE, DRAIN
from .._core.describe import shown
from .._core.errors import ArgumentTypeError
from .._core.guard import protected
from .._core.sets import drain_all_async, one_machine, wait_all
from . import shapes
from .awaitable import must_await, refuse_wait
from .callout import Callout, passed

T = TypeVar("T")


def drain_all(callouts: Iterable[Callout], /) -> Coroutine[Any, Any, int]:
    """Stop all *callouts*, and wait until none of them runs. They may be armed again then.

    ``await drain_all([a, b])``. All are stopped before the first is waited for. Always a checkpoint, after that; if
    it is cancelled they are stopped, but may still be running. Hold no lock but Giant, which is released while waiting.

    Returns how many scheduled runs were removed.

    Raises:
        ArgumentTypeError: something is no callout.
        LockHeldError, SelfDrainError, LoopError, ClosedError: as ``Callout.drain()``; then nothing was stopped.
    """
    return must_await("drain_all", _drain_all(_to_wait_for("drain_all", callouts)), "c.drain_sync")


def aclose_all(callouts: Iterable[Callout], /) -> Coroutine[Any, Any, None]:
    """Stop all *callouts* for good, and wait until none of them runs. The wait cannot be cancelled, and this yields
    only if it must wait. Raises as ``drain_all()``.
    """
    return must_await("aclose_all", _aclose_all(_to_wait_for("aclose_all", callouts)), "c.close_sync")


@shapes.close_all_soon
def close_all_soon(callouts: Iterable[Callout], fn: Callable[..., object], /, *args: object) -> bool:
    r"""Stop all *callouts* for good, and have *fn(\*args)* called once, when none of them runs any more. Never
    blocks. Hold the locks of all.

    From anywhere, their own callbacks included. Returns True if any of them was open: then *fn* is called exactly
    once, on the CPU of one of them, with no lock held; a caller on another CPU or thread may still hold theirs then.
    False if all were closed before, or there are none: it will not be called. What it raises is reported for no
    callout.

    Raises:
        LockNotHeldError: one has a lock, other than Giant, and the caller does not hold it. Then nothing was
            closed, as after every error.
        ArgumentTypeError: *fn* is no plain function, or something is no callout.
        ArgumentValueError: they belong to more than one system.
        ClosedError: the system is closed.
    """
    check_func("close_all_soon", fn, "what is called at the end must be a function")
    each = _of_one("close_all_soon", callouts)
    return bool(each) and drain_all_async("close_all_soon", each, fn, packed(args), close=True)


def callout_drain_all(callouts: Iterable[Callout], /) -> Coroutine[Any, Any, int]:
    """Do as ``callout_drain()`` with each of *callouts*, all of which are stopped before the first is waited for.

    Returns how many scheduled runs were removed. Raises as ``drain_all()``.
    """
    return must_await(
        "callout_drain_all",
        _wait_all("callout_drain_all", _to_wait_for("callout_drain_all", callouts)),
        "callout_drain_sync",
    )


def callout_drain_all_async(callouts: Iterable[Callout], func: Callable[[T], object], arg: T, /) -> int:
    """Stop each of *callouts* as ``callout_stop()`` does, and have ``func(arg)`` called once, when softclock uses none
    of them any more. Never blocks. Hold the locks of all.

    Returns 1 if something is still outstanding: *func* **will** be called, exactly once, on the CPU that ran the last,
    with no lock held. 0 if nothing is: *func* will not be called, and the caller may free them at once.

    Raises as ``close_all_soon()``. See ``callout_drain_async()``.
    """
    check_func("callout_drain_all_async", func)
    each = _of_one("callout_drain_all_async", callouts)
    return int(bool(each) and drain_all_async("callout_drain_all_async", each, func, arg, close=False))


def _each(call: str, callouts: Iterable[Callout]) -> tuple[Callout, ...]:
    """Return each of *callouts* once, in their order."""
    if not isinstance(callouts, Iterable):
        raise ArgumentTypeError(f"{call}: give the callouts in a list, not {shown(callouts)}", call=call)
    each: dict[int, Callout] = {}
    for c in callouts:
        check_callout(call, c, "each of the callouts")
        each[id(c)] = c
    return tuple(each.values())


def _of_one(call: str, callouts: Iterable[Callout]) -> tuple[Callout, ...]:
    """Return each of *callouts* once; raise unless they are of one system, which is open."""
    each = _each(call, callouts)
    one_machine(call, each)
    return each


def _to_wait_for(call: str, callouts: Iterable[Callout]) -> tuple[Callout, ...]:
    """Return each of *callouts* once, or raise what a wait for one of them would raise here."""
    each = _each(call, callouts)
    for c in each:
        refuse_wait(call, c)
    return each


async def _wait_all(call: str, callouts: tuple[Callout, ...]) -> int:
    return await wait_all(call, callouts, DRAIN)


async def _drain_all(callouts: tuple[Callout, ...]) -> int:
    removed = await _wait_all("drain_all", callouts)
    if callouts:
        await passed(callouts[0])
    return removed


@protected
async def _aclose_all(callouts: tuple[Callout, ...]) -> None:
    interrupt: KeyboardInterrupt | None = None
    while callouts:
        try:
            with callouts[0].c_cpu.machine.platform.shield():
                await wait_all("aclose_all", callouts, CLOSE)
            break
        except KeyboardInterrupt as error:  # it waits until this is over
            interrupt = error
    if interrupt is not None:
        raise interrupt


__all__ = ["aclose_all", "callout_drain_all", "callout_drain_all_async", "close_all_soon", "drain_all"]
