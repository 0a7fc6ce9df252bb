"""``async with draining(c, …)``: the form of drain that cannot be got wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from .._core.checks import check_callout, machine_of
from .._core.cpu import DRAIN, NOWHERE
from .._core.drain import wait
from .._core.errors import CalloutError, ClosedError
from .._core.guard import protected
from .._core.machine import current_machine
from .._core.once import AsyncBlock
from .._core.phases import Phase
from .._core.platform import Platform
from .awaitable import refuse_loop
from .callout import Callout


def draining(*callouts: Callout) -> AsyncBlock[None]:
    """Drain the callouts when the block is left, by whatever way; the wait cannot be cancelled, nor can Ctrl-C end it.

    ``async with draining(c, d): …``. Callouts that were never initialised, or whose system is closed, are passed over:
    nothing of theirs can run. All are drained, whatever happens meanwhile. Errors are raised after that: a
    KeyboardInterrupt that came in between, and for each callout that could not be drained the error of
    ``callout_drain()``; several of these in an ``ExceptionGroup``.

    Raises:
        ArgumentTypeError: something is not a callout. Raised by the call.
        LoopError: as for ``callout_drain()``. Raised when the block is entered.
        BusyError: what this has returned was entered before.
    """
    for c in callouts:
        check_callout("draining", c, "every argument")
    return AsyncBlock("draining", partial(_draining, callouts))


@asynccontextmanager
@protected
async def _draining(callouts: tuple[Callout, ...]) -> AsyncIterator[None]:
    _refuse_loop(callouts)
    try:
        yield
    finally:
        await _drain_shielded(callouts, [*{c.c_cpu.machine.platform: None for c in callouts if c.c_cpu.id >= 0}])


@protected
async def _drain_shielded(callouts: tuple[Callout, ...], platforms: list[Platform]) -> None:
    """Drain all, in a block that no cancellation ends on any of *platforms*: it is raised once, and in the end."""
    if platforms:
        with platforms.pop().shield():
            await _drain_shielded(callouts, platforms)
        return
    problems: list[BaseException] = []
    for c in callouts:
        await _drain_surely(c, problems)
    try:
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise BaseExceptionGroup("draining", problems)
    finally:
        del problems  # their tracebacks refer to this frame


def _refuse_loop(callouts: tuple[Callout, ...]) -> None:
    """Raise if this loop could not wait for the callouts when the block is left; fresh ones may have a system then."""
    for c in callouts:
        try:
            machine = c.c_cpu.machine if c.c_cpu.id >= 0 else current_machine("draining")
        except CalloutError:  # no system is open here
            continue
        if machine.phase < Phase.CLOSED:
            refuse_loop("draining", machine, blocking=False)


@protected
async def _drain_surely(c: Callout, problems: list[BaseException]) -> None:
    while c.c_cpu is not NOWHERE and (c.c_cpu.id < 0 or c.c_cpu.machine.phase < Phase.CLOSED):
        try:
            with machine_of(c).platform.shield():  # raises if it was freed
                await wait("callout_drain", c, DRAIN)
        except KeyboardInterrupt as error:
            problems.append(error)  # and wait on
        except ClosedError:
            return  # while this waited, or just before
        except BaseException as error:
            problems.append(error)
            return
        else:
            return


__all__ = ["draining"]
