"""What a platform gives as a lock."""

from __future__ import annotations


class RawLock:
    """A recursive mutual exclusion lock, as ``threading.RLock``: what interrupts a thread may acquire it again.

    Of the pure core an RLock is one without being derived from this class. The compiled core has locks of its own, and
    calls what is derived from it without a look at the name.
    """

    __slots__ = ()

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock; without *blocking*, return False if another thread holds it."""
        raise NotImplementedError

    def release(self, /) -> None:
        """Release the lock; only its holder may."""
        raise NotImplementedError

    def _is_owned(self, /) -> bool:
        """Whether this thread holds the lock."""
        raise NotImplementedError
