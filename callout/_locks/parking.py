"""The parking lot: where a task waits for a lock that it cannot have yet, without blocking a loop.

Threads block on a lock; softclock never does. It tries, and if another thread holds the lock, its task *parks* here
until the lock is released, then tries again. A task that is parked at a free lock gets it as soon as its own loop runs:
all that are parked are woken, since one that was chosen alone might be on a loop that is busy for long. Ownership is
never handed over: handed to a parked task, a lock would look owned to every other task of that loop.

No wake-up is lost: a parking task appends its waiter first and tries once more then; a releasing thread makes the lock
free first and looks for waiters then. Appending to a deque and popping from it are atomic.

Prior art: trio's ParkingLot; the turnstiles of FreeBSD, turnstile_broadcast(); barging as in the WTF::Lock of WebKit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from .._core.guard import protected
from .._core.platform import Waiter

if TYPE_CHECKING:
    from .._core.machine import Machine
    from .._core.state import Callout

_UNWATCHED: Final = nullcontext()


class Parked:
    """The waiters that are parked at one lock."""

    __slots__ = ("_waiters",)

    def __init__(self, waiters: deque[Waiter]) -> None:
        self._waiters = waiters

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Park. Try the lock again afterwards."""
        self._waiters.append(waiter)

    @protected
    def remove(self, waiter: Waiter) -> bool:
        """Leave; return False if *waiter* was woken, or is about to be."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    @protected
    def wake_all(self) -> None:
        """Wake all that are parked now. The lock is free, or will never be again."""
        waiters = self._waiters
        while waiters:
            try:
                waiter = waiters.popleft()
            except IndexError:  # another thread was faster
                return
            waiter.set()


class Parkable(Protocol):
    """A lock at which one can park."""

    parked: Parked
    machine: Machine

    def try_acquire(self, shared: bool) -> bool:
        """Acquire the lock if it is free."""
        ...


async def acquire_parked(
    lock: Parkable, shared: bool, new_waiter: Callable[[], Waiter], c: Callout | None = None
) -> None:
    """Acquire *lock*, parking while it is held. With a ``thread_waiter`` this blocks and never yields.

    *c* is whose run needs the lock: that wait is watched.
    """
    while not lock.try_acquire(shared):
        waiter = new_waiter()
        lock.parked.add(waiter)
        if lock.try_acquire(shared):
            lock.parked.remove(waiter)
            return
        try:
            with _UNWATCHED if c is None else lock.machine.waits("lock", c):
                await waiter.wait()
        except BaseException:
            lock.parked.remove(waiter)
            raise


protected(acquire_parked)
