"""``async with draining(c, …)``: the form of drain that cannot be got wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .._core.checks import machine_of
from .._core.cpu import DRAIN
from .._core.drain import wait
from .._core.errors import ClosedError
from .._core.guard import protected
from .._core.phases import Phase
from .._core.state import NOWHERE, Callout


@asynccontextmanager
@protected
async def draining(*callouts: Callout) -> AsyncIterator[None]:
    """Drain the callouts when the block is left, by whatever way; the wait cannot be cancelled, nor can Ctrl-C end it.

    ``async with draining(c, d): …``. Callouts that were never initialised, or whose system is closed, are passed over:
    nothing of theirs can run. All are drained, whatever happens meanwhile. Errors are raised after that: a
    KeyboardInterrupt that came in between, and for each callout that could not be drained the error of
    ``callout_drain()``; several of these in an ``ExceptionGroup``.
    """
    try:
        yield
    finally:
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


@protected
async def _drain_surely(c: Callout, problems: list[BaseException]) -> None:
    while c.cpu is not NOWHERE and (c.cpu.id < 0 or c.cpu.machine.phase < Phase.CLOSED):
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
