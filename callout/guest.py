"""Callouts in a loop of asyncio, uvloop's included: ``async with callout.guest.open_callouts() as system:``.

What runs on CPU 0 is asyncio code: callbacks, the tasks of ``start_soon()``, and all that waits.
"""

from __future__ import annotations

from ._core.once import AsyncBlock
from ._worlds.guest.opening import opened
from ._worlds.trio.reporting import OnError
from ._worlds.trio.system import CalloutSystem
from ._worlds.trio.telling import Top


def open_callouts(
    cpus: int = 1,
    hz: int = 1000,
    *,
    alloweddeviation: int = 0,
    checking: bool | None = None,
    on_error: OnError | None = None,
    expensive: float = 0.1,
    top: Top = False,
) -> AsyncBlock[CalloutSystem]:
    """Open a callout system in the running loop of asyncio, uvloop included, for an ``async with`` block.

    The options are those of ``callout.open_callouts()``. CPU 0 is this loop: its callbacks run in the loop's thread as
    callbacks of the loop, so that they may use its futures, tasks and transports; ``system.cpu(0).start_soon()`` and
    ``system.open_nursery()`` start tasks of asyncio. Other CPUs are threads with a trio loop of their own. Underneath,
    trio runs as a guest of this loop. Tasks of this loop can await all that a task of trio can: drains, ``draining()``,
    ``Event.wait()``, ``msleep()``.

    Leaving it normally waits for the tasks that were started while it was open; leaving it by an exception or a
    cancellation cancels them. It may be left in another task than it was entered in. Opening and leaving go on under
    any number of cancellations, and raise one ``CancelledError`` then. A callback that fails, without
    *on_error*, cancels the task that has entered, and leaves the block in an ``ExceptionGroup``, as in a ``TaskGroup``.

    If the loop is closed before the block was left, the log is told (``callout.abandoned``), and the system is closed.

    Raises:
        ArgumentTypeError, ArgumentValueError: an option is wrong.
        GuestError: this is no task of asyncio; or this loop has a system, or trio as a guest, already.
        BusyError: what this has returned was entered before: one call for each block.
        OSError, RuntimeError: there is no descriptor or thread left; then nothing was opened.
    """
    return opened(cpus, hz, alloweddeviation, checking, on_error, expensive, top)


__all__ = ["open_callouts"]
