"""The parking lot: where a task waits for a lock that it cannot have yet, without blocking a loop.

Threads block on a lock; softclock never does. It tries, and if another thread holds the lock, its task *parks* here
until the lock is released, then tries again. A task that is parked at a free lock gets it as soon as its own loop runs:
all that are parked are woken, since one that was chosen alone might be on a loop that is busy for long. Ownership is
never handed over: handed to a parked task, a lock would look owned to every other task of that loop.

No wake-up is lost: a parking task adds its waiter first and tries once more then; a releasing thread makes the lock
free first and looks for waiters then. Appending to a deque and popping from it are atomic. Nobody ever parks at most
locks, so a lot is made for the first that does, and until then ``NOBODY`` stands there, which costs no lock any memory.

Prior art: trio's ParkingLot; the turnstiles of FreeBSD, turnstile_broadcast(); barging as in the WTF::Lock of WebKit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from .._core.guard import protect
from .._core.platform import Waiter

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .._core.machine import Machine

_UNWATCHED: Final = nullcontext()


Waiters = deque[Waiter] | tuple[()]
NOBODY: Final[Waiters] = ()  # stands where nobody has parked yet


class Parkable(Protocol):
    """A lock at which one can park."""

    parked: Waiters
    machine: Machine

    def try_acquire(self, shared: bool) -> bool:
        """Acquire the lock if it is free."""
        ...


def add_waiter(lock: Parkable, waiter: Waiter) -> None:
    """Park *waiter* at *lock*. Try the lock again afterwards."""
    parked = lock.parked
    if not isinstance(parked, deque):
        parked = _lot(lock)
    parked.append(waiter)


def _lot(lock: Parkable) -> deque[Waiter]:
    """Return the parking lot of *lock*, which is made here for the first that parks."""
    making = lock.machine.making
    try:
        making.acquire()
        parked = lock.parked
        if not isinstance(parked, deque):
            parked = lock.parked = lock.machine.platform.shared(deque(), parked)
        return parked
    finally:
        if making._is_owned():
            making.release()


def remove_waiter(lock: Parkable, waiter: Waiter) -> None:
    """Have *waiter* leave, unless it was woken, or is about to be."""
    parked = lock.parked
    assert isinstance(parked, deque), "it has parked"
    try:
        parked.remove(waiter)
    except ValueError:
        pass


def wake_all(parked: Waiters) -> None:
    """Wake all that are parked now. The lock is free, or will never be again."""
    while parked:
        assert isinstance(parked, deque), "nobody has parked here"
        try:
            waiter = parked.popleft()
        except IndexError:  # another thread was faster
            return
        waiter.set()


async def acquire_parked(
    lock: Parkable, shared: bool, new_waiter: Callable[[], Waiter], c: Callout | None = None
) -> None:
    """Acquire *lock*, parking while it is held. With a ``thread_waiter`` this blocks and never yields.

    *c* is whose run needs the lock: that wait is watched.
    """
    if not lock.try_acquire(shared):
        await park(lock, shared, new_waiter, c)


async def park(lock: Parkable, shared: bool, new_waiter: Callable[[], Waiter], c: Callout | None = None) -> None:
    """Acquire *lock*, which was held a moment ago, as ``acquire_parked()`` does."""
    while True:
        waiter = new_waiter()
        add_waiter(lock, waiter)
        if lock.try_acquire(shared):
            remove_waiter(lock, waiter)
            return
        try:
            with _UNWATCHED if c is None else lock.machine.waits("lock", c):
                await waiter.wait()
        except BaseException:
            remove_waiter(lock, waiter)
            raise
        if lock.try_acquire(shared):
            return


protect(add_waiter, _lot, remove_waiter, wake_all, acquire_parked, park)
