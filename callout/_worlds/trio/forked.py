"""What becomes of a forked child that leaves the block of its parent's system.

It cannot be left: the child's loop waits on the very epoll descriptor that its parent waits on. Ending the tasks of the
block would run that loop, and ending the run would take the parent's descriptors out of it, so that the parent stops.
So the child ends there, at once, and without any of that.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

_TEXT = (
    "callout: a forked child has left the open_callouts() block of its parent, and ends here. Its loop is shared with\n"
    "the parent, and would take the parent down. End a forked child with os._exit(), or replace it by an exec.\n"
)


def end_child(left: BaseException | None) -> NoReturn:
    """End this process: with the status of a SystemExit that leaves the block, else with 1."""
    status = 1
    with suppress(BaseException):
        if isinstance(left, SystemExit) and (left.code is None or isinstance(left.code, int)):
            status = left.code or 0
        else:
            if left is not None:
                traceback.print_exception(left)
            sys.stderr.write(_TEXT)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(status)
