"""What becomes of a forked child that goes on where the loop of its parent would: it ends there.

The child has a copy of the loop that has forked, whichever CPU's that is, but no other thread; and that loop waits on
the very descriptors that its parent waits on. One more step of it would take the parent's events, and ending the run
would take the parent's descriptors out of its epoll, so that the parent stops. So the child may run what has forked to
its end, or call ``os._exit()``, or an exec. A callback, completion or call that returns, a task that comes to an await
or to its end, and the end of the block all end the process, at once and without any of that.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import Final, NoReturn

import trio

_LOOPS: Final[set[int]] = set()  # in a forked child: the thread that has forked, if it was a loop of the parent

_TEXT = (
    "callout: a forked child has {}, and ends here. Its loop is shared with\n"
    "the parent, and would take the parent down. End a forked child with os._exit(), or replace it by an exec.\n"
)
_ON = "gone on past what has forked, on a loop of its parent"
_LEFT = "left the open_callouts() block of its parent"


def forked(*, on_loop: bool) -> None:
    """In a forked child: *on_loop* says whether the thread that has forked was a loop of its parent's systems."""
    _LOOPS.clear()
    if on_loop:
        _LOOPS.add(threading.get_ident())
        with suppress(RuntimeError):  # no trio runs here
            trio.lowlevel.add_instrument(_Guard())


def end_if_forked(left: BaseException | None = None) -> None:
    """End this process if it is a forked child that is about to go on on its parent's loop.

    *left* is what has left the code that has forked. Called wherever the loop goes on after it has run users' code.
    """
    if _LOOPS and threading.get_ident() in _LOOPS:
        _end(left, _ON)


def end_at_exit(left: BaseException | None) -> NoReturn:
    """End this process, a forked child that *left* the block of its parent: by that exception, or normally."""
    _end(left, _LEFT)


class _Guard(trio.abc.Instrument):
    """Lets a loop go no further. Only a forked child has one, so it costs its parent nothing."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Another task would have its turn."""
        end_if_forked()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """The task that has forked has come to an await, or to its end."""
        end_if_forked()

    def before_io_wait(self, timeout: float) -> None:
        """The loop would wait."""
        end_if_forked()


def _end(left: BaseException | None, how: str) -> NoReturn:
    """End this process: with the status of a SystemExit, else with 1."""
    status = 1
    with suppress(BaseException):
        if isinstance(left, SystemExit) and (left.code is None or isinstance(left.code, int)):
            status = left.code or 0
        else:
            if left is not None:
                traceback.print_exception(left)
            sys.stderr.write(_TEXT.format(how))
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status)
