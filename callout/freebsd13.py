"""``callout_async_drain()`` of FreeBSD 11 to 13, in a module of its own: its result has the opposite sense of ours.

Source: kern_timeout.c of FreeBSD 13, _callout_stop_safe() with a drain function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._api.callout import Callout
from ._core.checks import check_callout
from ._core.drain import async_drain
from ._core.results import STOP_RESULT

__all__ = ["callout_async_drain"]


def callout_async_drain(c: Callout, func: Callable[[Any], object], /) -> int:
    """Stop *c*; if it is running, have *func* called with the run's own argument when it has ended. Never blocks.

    Hold the callout's lock. A run that waits for that lock is **not** cancelled: it takes place first.

    Returns 1 if it was stopped and -1 if nothing was scheduled or running: *func* will **not** be called, the caller
    must do its work. 0 if *func* will be called. ``callout_drain_async()`` has the opposite sense: there 0 says that
    it will not.

    Raises:
        LockNotHeldError: *c* has a lock, other than Giant, and the caller does not hold it.
        ArgumentTypeError: *func* is not a plain function.
    """
    check_callout("callout_async_drain", c)
    return STOP_RESULT[async_drain("callout_async_drain", c, func)]
