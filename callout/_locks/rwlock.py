"""Read/write locks and read-mostly locks, with the names of rwlock(9) and rmlock(9).

The raw lock guards the fields for a few instructions and is never held by the user. What has to wait parks: a
thread with a waiter that blocks it, softclock with one of its loop.

Source: kern_rwlock.c and kern_rmlock.c for names and assertions, not for structure.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Self

from .._core.errors import ArgumentValueError, LockError, LockHeldError, LockNotHeldError
from .._core.guard import protected
from .._core.machine import Machine
from .._core.platform import Thread
from .._core.rules import LockClass
from .._core.witness import Spot
from .lock import Lock, check_options
from .parking import add_waiter, remove_waiter, wake_all

RW_DUPOK: Final = 0x1
RW_RECURSE: Final = 0x4
RW_NOWITNESS: Final = 0x8
RM_NOWITNESS: Final = 0x1
RM_RECURSE: Final = 0x2
RM_SLEEPABLE: Final = 0x4
RM_DUPOK: Final = 0x10

RA_LOCKED: Final = 0x1
RA_RLOCKED: Final = 0x2
RA_WLOCKED: Final = 0x4
RA_UNLOCKED: Final = 0x8


class _Reading:
    """What holds the read lock in a ``with`` block: no generator, in whose own code an exception could be raised."""

    __slots__ = ("_lock",)

    def __init__(self, lock: RwLock) -> None:
        self._lock = lock

    @protected
    def __enter__(self) -> None:
        self._lock.rlock()

    @protected
    def __exit__(self, *_: object) -> None:
        self._lock.runlock()


class RwLock(Lock):
    """A read/write lock: many readers, or one writer. ``with rw:`` writes, ``with rw.read():`` reads. See rwlock(9).

    Readers do not wait for waiting writers, so steady readers can keep a writer out.
    """

    __slots__ = ("_depth", "_readers", "_recurse", "_writer")

    _prefix = "rw"
    _unnamed = "rwlock"

    def __init__(self, name: str = "rwlock", opts: int = 0, *, machine: Machine | None = None) -> None:
        """Make a read/write lock of the current system; *opts* are ``RW_*``. Never blocks."""
        opts = check_options(
            "rw_init", opts, RW_RECURSE | RW_DUPOK | RW_NOWITNESS, "RW_RECURSE, RW_DUPOK and RW_NOWITNESS"
        )
        self._setup(
            name, LockClass.EXCLUSIVE, machine, opts & RW_RECURSE, watched=not opts & RW_NOWITNESS, dup=opts & RW_DUPOK
        )

    def _setup(
        self, name: str, lock_class: LockClass, machine: Machine | None, recurse: int, *, watched: bool, dup: int
    ) -> None:
        Lock.__init__(self, name, lock_class, machine, watched=watched, dup_ok=bool(dup))
        self._writer: Thread = None
        self._depth = 0
        self._readers: dict[Thread, int] = {}
        self._recurse = bool(recurse)

    def _holder(self) -> str:
        platform = self.machine.platform
        writer = self._writer
        return ", ".join(map(platform.name_of, self._readers if writer is None else [writer]))

    def _count(self, me: Thread, shared: bool) -> int:
        """Return how often that thread has it in this way."""
        if shared:
            return self._readers.get(me, 0)
        return self._depth if self._writer == me else 0

    @protected
    def _try(self, shared: bool, again: bool, spot: Spot | None = None) -> bool:
        """Acquire it if free; *again*: also if this thread has it already and may have it twice.

        *spot*: where it is waited for, in checking mode.
        """
        me = self.me()
        before = self._count(me, shared)
        try:
            if not self._try_once(me, shared, again):
                return False
            if self.machine.held is not None:
                self._note_acquired(spot)
        except BaseException:  # from a signal handler
            if self._count(me, shared) > before:
                self._unlock(self._prefix, shared)
            raise
        return True

    def _try_once(self, me: Thread, shared: bool, again: bool) -> bool:
        self._acquire_raw()
        try:
            if shared:
                count = self._readers.get(me, 0)
                if self._writer is not None or (count and not again):
                    return False
                self._readers[me] = count + 1
            elif self._writer == me:
                if not (again and self._recurse):
                    return False
                self._depth += 1
            else:
                if self._writer is not None or self._readers:
                    return False
                self._writer = me
                self._depth = 1
        finally:
            self._raw.release()
        return True

    @protected
    def _block(self, call: str, shared: bool) -> None:
        spot = None if self.machine.held is None else self._check_order(call)
        while not self._try(shared, True, spot):
            me = self.me()
            if self._writer == me or (not shared and me in self._readers):
                raise LockHeldError(
                    f"{call}: this thread holds {self.name!r} already, and would wait for itself", call=call, lock=self
                )
            waiter = self.machine.platform.thread_waiter()
            add_waiter(self, waiter)
            if self._try(shared, True, spot):
                try:
                    remove_waiter(self, waiter)
                except BaseException:  # from a signal handler
                    self._unlock(call, shared)
                    raise
                return
            try:
                waiter.wait().send(None)  # a thread_waiter blocks; its coroutine ends at once
            except StopIteration:
                pass

    @protected
    def _unlock(self, call: str, shared: bool) -> None:
        me = self.me()
        free = False
        self._acquire_raw()
        try:
            count = self._count(me, shared)
            if not count:
                raise LockNotHeldError(
                    f"{call}: this thread has no {'read' if shared else 'write'} lock on {self.name!r}",
                    call=call,
                    lock=self,
                )
            self._note_released()
            if not shared:
                self._depth = count - 1
                if count == 1:
                    self._writer = None
            elif count == 1:
                del self._readers[me]
            else:
                self._readers[me] = count - 1
            free = self._writer is None
        finally:
            try:
                self._raw.release()
            finally:
                if free and self.parked:
                    wake_all(self.parked)

    @protected
    def drop_all(self) -> int:
        count = 0
        while self.owned():
            self._unlock(self._prefix, shared=False)
            count += 1
        while self.me() in self._readers:
            self._unlock(self._prefix, shared=True)
            count += 1
        return count

    def wlock(self) -> None:
        """Acquire it for writing; blocks while others have it. Raises LockHeldError if this thread has it, and in
        checking mode LockOrderError, as ``mtx_lock()`` does.
        """
        self._block(f"{self._prefix}_wlock", shared=False)

    def rlock(self) -> None:
        """Acquire it for reading; blocks while another thread writes. Raises LockHeldError if this thread writes, and
        in checking mode LockOrderError, as ``mtx_lock()`` does.
        """
        self._block(f"{self._prefix}_rlock", shared=True)

    def wunlock(self) -> None:
        """Release the write lock. Never blocks. Raises LockNotHeldError if this thread has none."""
        self._unlock(f"{self._prefix}_wunlock", shared=False)

    def runlock(self) -> None:
        """Release a read lock. Never blocks. Raises LockNotHeldError if this thread has none."""
        self._unlock(f"{self._prefix}_runlock", shared=True)

    def unlock(self) -> None:
        """Release whichever lock this thread has. Never blocks. See ``rw_unlock(9)``."""
        self._unlock(f"{self._prefix}_unlock", shared=not self.owned())

    def try_wlock(self) -> int:
        """Acquire it for writing if that needs no waiting; return 1 if so, else 0. Never blocks."""
        return int(self._try(shared=False, again=True))

    def try_rlock(self) -> int:
        """Acquire it for reading if that needs no waiting; return 1 if so, else 0. Never blocks."""
        return int(self._try(shared=True, again=True))

    @protected
    def try_upgrade(self) -> int:
        """Turn this thread's read lock into the write lock if it is the only reader; return 1 if so, else 0."""
        me = self.me()
        self._acquire_raw()
        try:
            if me not in self._readers:
                raise LockNotHeldError(
                    f"rw_try_upgrade: this thread has no read lock on {self.name!r}", call="rw_try_upgrade", lock=self
                )
            if self._readers != {me: 1}:
                return 0
            self._readers.clear()
            self._writer, self._depth = me, 1
        finally:
            self._raw.release()
        return 1

    @protected
    def downgrade(self) -> None:
        """Turn this thread's write lock into a read lock. Never blocks. See ``rw_downgrade(9)``."""
        me = self.me()
        self._acquire_raw()
        try:
            if self._writer != me:
                raise LockNotHeldError(
                    f"rw_downgrade: this thread has no write lock on {self.name!r}", call="rw_downgrade", lock=self
                )
            if self._depth > 1:
                raise LockError(f"rw_downgrade: {self.name!r} is recursed", call="rw_downgrade", lock=self)
            self._writer = None
            self._readers[me] = 1
        finally:
            self._raw.release()
        if self.parked:
            wake_all(self.parked)

    def owned(self) -> bool:
        """Return whether this thread has the write lock. Never blocks. See ``rw_wowned(9)``."""
        return self._writer == self.me()

    def holds(self) -> bool:
        return self.owned() or self.me() in self._readers

    def assert_(self, what: int) -> None:
        """Raise unless the lock is held by this thread as *what* (``RA_*``) says.

        Never blocks. See ``rw_assert(9)``.
        """
        call = f"{self._prefix}_assert"
        if what not in (RA_LOCKED, RA_RLOCKED, RA_WLOCKED, RA_UNLOCKED):
            raise ArgumentValueError(f"{call}: give RA_LOCKED, RA_RLOCKED, RA_WLOCKED or RA_UNLOCKED", call=call)
        if what == RA_UNLOCKED:
            if self.holds():
                raise LockHeldError(f"{call}: {self.name!r} is held by this thread", call=call, lock=self)
        elif not (
            self.owned() if what == RA_WLOCKED else self.me() in self._readers if what == RA_RLOCKED else self.holds()
        ):
            raise LockNotHeldError(
                f"{call}: {self.name!r} is not held by this thread in that way", call=call, lock=self
            )

    def destroy(self) -> None:
        """Make every later use an error. Never blocks. Raises LockError if a thread holds it or waits for it."""
        self._destroy(f"{self._prefix}_destroy", self._writer is not None or bool(self._readers))

    @protected
    def __enter__(self) -> Self:
        self.wlock()
        return self

    @protected
    def __exit__(self, *_: object) -> None:
        self.wunlock()

    def read(self) -> AbstractContextManager[None]:
        """Hold the read lock in a ``with`` block."""
        return _Reading(self)

    def try_acquire(self, shared: bool) -> bool:
        return self._try(shared, again=False)

    def release_as(self, shared: bool) -> None:
        self._unlock("softclock", shared)


class RmLock(RwLock):
    """A read-mostly lock. ``with rm:`` writes, ``with rm.read():`` reads. See rmlock(9).

    A sleepable one (``RM_SLEEPABLE``) may not be a callout's lock, and may be held by a thread that blocks in a drain.
    """

    __slots__ = ()

    _prefix = "rm"
    _unnamed = "rmlock"

    def __init__(self, name: str = "rmlock", opts: int = 0, *, machine: Machine | None = None) -> None:
        """Make a read-mostly lock of the current system; *opts* are ``RM_*``. Never blocks."""
        opts = check_options(
            "rm_init",
            opts,
            RM_RECURSE | RM_SLEEPABLE | RM_DUPOK | RM_NOWITNESS,
            "RM_RECURSE, RM_SLEEPABLE, RM_DUPOK and RM_NOWITNESS",
        )
        lock_class = LockClass.SLEEPABLE if opts & RM_SLEEPABLE else LockClass.EXCLUSIVE
        self._setup(name, lock_class, machine, opts & RM_RECURSE, watched=not opts & RM_NOWITNESS, dup=opts & RM_DUPOK)
