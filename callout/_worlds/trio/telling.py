"""Tells ``callout top`` what the system does: at a Unix-domain socket, to processes of the same user.

Whatever connects gets ``stats()`` and the first of ``callouts()``, one line of JSON, and the connection is closed.
Nothing is read: there are no commands.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from ..._core.describe import shown
from ..._core.errors import ArgumentTypeError, ArgumentValueError, CalloutError
from ...top._sockets import AVAILABLE, CALLOUTS, MOST, is_mine, listen, remove
from .log import tell

if TYPE_CHECKING:
    from .system import CalloutSystem

Top = bool | str | os.PathLike[str]

_AT_ONCE: Final = 8  # connections


def check_top(top: object) -> None:
    """Raise unless *top* says whether, or where, a system can be looked at."""
    if not isinstance(top, bool | str | os.PathLike):
        raise ArgumentTypeError(
            f"open_callouts: top must be True, False or the path of a socket, not {shown(top)}", call="open_callouts"
        )
    if not isinstance(top, bool) and (not (path := os.fsdecode(top)) or "\0" in path or len(os.fsencode(path)) > MOST):
        raise ArgumentValueError(
            f"open_callouts: top must be the path of a socket, of 1 to {MOST} bytes, not {shown(path)}; True makes one "
            "where callout top finds it",
            call="open_callouts",
        )


class Teller:
    """Listens for one system."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._scope = trio.CancelScope(shield=True)

    @trio.lowlevel.enable_ki_protection
    async def run(self, system: CalloutSystem) -> None:
        """Tell whatever connects, until stopped."""
        listener = trio.socket.from_stdlib_socket(self._listener)
        limit = trio.CapacityLimiter(_AT_ONCE)
        with self._scope:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, _ = await listener.accept()
                    except OSError as error:  # too many open files, for instance
                        tell("warning", "callout.top_failed", error)
                        return
                    nursery.start_soon(self._tell, system, trio.SocketStream(connection), limit)

    @trio.lowlevel.enable_ki_protection
    async def _tell(self, system: CalloutSystem, stream: trio.SocketStream, limit: trio.CapacityLimiter) -> None:
        async with stream, limit:
            try:
                if is_mine(stream.socket):  # type: ignore[arg-type]  # it has getsockopt()
                    await stream.send_all(told(system))
            except (OSError, trio.BrokenResourceError, CalloutError):
                pass  # it has gone, or the system was closed
            except Exception as error:  # a bug of ours: it must not end the system
                tell("warning", "callout.top_failed", error)

    def stop(self) -> None:
        """Tell nobody any more. On CPU 0's loop."""
        self._scope.cancel()


def told(system: CalloutSystem) -> bytes:
    """Return what there is to tell, as a line of JSON."""
    stats, callouts = system.stats().to_dict(), [info.to_dict() for info in system.callouts(CALLOUTS)]
    return json.dumps({"stats": stats, "callouts": callouts}, allow_nan=False).encode("ascii") + b"\n"


@contextmanager
def teller(top: Top) -> Iterator[Teller | None]:
    """Listen, in a ``with`` block, if *top* wants that. Raises OSError; then nothing has changed."""
    if top is False:
        yield None
        return
    if not AVAILABLE:
        raise OSError("open_callouts: top needs Unix-domain sockets, which this system has not")
    listener, path = listen(None if top is True else top)
    owner = os.getpid()
    try:
        listener.setblocking(False)
        yield Teller(listener)
    finally:
        if os.getpid() == owner:  # a forked child does not remove what is its parent's
            remove(path, listener)


__all__ = ["Teller", "Top", "check_top", "teller"]
