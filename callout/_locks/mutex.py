"""Mutexes, read/write locks and read-mostly locks that know their owner, with the names of mutex(9), rwlock(9) and
rmlock(9).

A lock is owned by a thread. It is held for a few lines of plain code, never across an ``await``. Threads block on it;
softclock never does: it tries, and if the lock is taken it *parks* (``take_parked``) until the lock is let go, then
tries again. Ownership is never handed over: handed to a parked task, a lock would look owned to every other task of
that loop.

The wake-up cannot be lost: who parks first puts its waiter on ``parked`` and then tries once more; who lets go first
makes the lock free and then looks at ``parked``. Appending to and taking from a deque are atomic.

Misuse is an error, raised before anything changes, where the kernel panics: taking what one holds, giving up what one
does not hold, using what was destroyed.

Source: kern_mutex.c, kern_rwlock.c, kern_rmlock.c for names and assertions, not for structure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Self

from .._core.cpu import Machine, current_machine
from .._core.errors import (
    ArgumentValueError,
    LockClassError,
    LockDestroyedError,
    LockError,
    LockHeldError,
    LockNotHeldError,
)
from .._core.guard import check_reentry, guarded, protected
from .._core.platform import RawLock, Thread, Waiter
from .._core.rules import LockClass
from .._core.state import Refusal

if TYPE_CHECKING:
    from .._core.state import Callout

_UNWATCHED: Final = nullcontext()
MTX_DEF: Final = 0x0
MTX_SPIN: Final = 0x1
MTX_RECURSE: Final = 0x4
RW_RECURSE: Final = 0x4
RM_RECURSE: Final = 0x2
RM_SLEEPABLE: Final = 0x4

MA_OWNED: Final = 0x1
MA_NOTOWNED: Final = 0x2
MA_RECURSED: Final = 0x4
MA_NOTRECURSED: Final = 0x8
RA_LOCKED: Final = 0x1
RA_RLOCKED: Final = 0x2
RA_WLOCKED: Final = 0x4
RA_UNLOCKED: Final = 0x8


class Lock:
    """What all locks have in common: a name, the machine they belong to, and the softclocks parked at them."""

    __slots__ = ("__weakref__", "_raw", "lock_class", "machine", "me", "name", "parked")

    def __init__(self, name: str, lock_class: LockClass, machine: Machine | None) -> None:
        """Make a lock of the current system. Never blocks."""
        if machine is None:
            machine = current_machine(type(self).__name__)
        self.name = name
        self.lock_class = lock_class
        self.machine = machine
        self.me: Callable[[], Thread] = machine.platform.current_thread
        self.parked: deque[Waiter] = deque()
        self._raw: RawLock = machine.platform.raw_lock(name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    # -- what softclock and drains need ------------------------------------------------------------------------

    def try_take(self, shared: bool) -> bool:
        """Take the lock if it is free; a lock that this very thread holds counts as refused. Never blocks."""
        raise NotImplementedError

    def give(self, shared: bool) -> None:
        """Give up what ``try_take`` took."""
        raise NotImplementedError

    def owned(self) -> bool:
        """Whether this thread holds the lock exclusively."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether this thread holds the lock in any way."""
        return self.owned()

    def poison(self, refusal: Refusal) -> None:
        """Make every later use raise; who is parked here is woken to find out. For a ``Slab`` and for ``destroy()``."""
        self._raw = refusal
        self._wake(everybody=True)

    def _contended(self) -> None:
        """Take the raw lock, which turned out to be taken."""
        check_reentry()
        if self.machine.dead is not None:
            self.machine.dead.acquire()
        self._raw.acquire()

    @protected
    def _wake(self, everybody: bool) -> None:
        """Wake one that is parked here, or all."""
        while self.parked:
            try:
                waiter = self.parked.popleft()
            except IndexError:  # another thread was faster
                return
            waiter.set()
            if not everybody:
                return

    # -- checking mode: which locks each thread holds, oldest first ---------------------------------------------

    def _note_taken(self) -> None:
        if (held := self.machine.held) is not None:
            me = self.me()
            mine = held.setdefault(me, [])
            mine.append(self)
            held[me] = mine  # what interrupted this, and took and gave up a lock, has deleted the list if it was empty

    def _note_given(self) -> None:
        if (held := self.machine.held) is not None:
            me = self.me()
            mine = held[me]
            mine.reverse()
            mine.remove(self)  # the last taken first
            mine.reverse()
            if not mine:
                held.pop(me, None)  # unless what interrupted this has done it

    def _destroy(self, call: str, held_elsewhere: bool) -> None:
        if isinstance(self._raw, Refusal):
            self._raw.acquire()
        if held_elsewhere:
            raise LockError(f"{call}: {self.name!r} is still held; destroy a lock only when nobody has it")
        if self.parked:
            raise LockError(f"{call}: softclock waits for {self.name!r}; drain the callouts that use it first")
        self.poison(Refusal(LockDestroyedError, f"lock {self.name!r} was destroyed"))


async def take_parked(lock: Lock, shared: bool, new_waiter: Callable[[], Waiter], c: Callout | None = None) -> None:
    """Take *lock*, parking while it is taken. With a ``thread_waiter`` this blocks and never yields.

    *c* is whose run needs the lock: that wait is watched.
    """
    while not lock.try_take(shared):
        waiter = new_waiter()
        lock.parked.append(waiter)
        if lock.try_take(shared):
            _unpark(lock, waiter)
            return
        try:
            with _UNWATCHED if c is None else lock.machine.waits("lock", c):
                await waiter.wait()
        except BaseException:
            if not _unpark(lock, waiter):
                lock._wake(everybody=False)  # it was woken and does not want it: the next one's turn
            raise


protected(take_parked)


@protected
def _unpark(lock: Lock, waiter: Waiter) -> bool:
    try:
        lock.parked.remove(waiter)
    except ValueError:
        return False
    return True


class Mtx(Lock):
    """A mutex: default (``MTX_DEF``), or spin (``MTX_SPIN``); with ``MTX_RECURSE`` its owner may take it again.

    ``with m:`` takes and releases it. Taking it blocks the thread while another holds it, and with the thread its
    loop, so hold it for a few lines and never across an ``await``. See mutex(9).
    """

    __slots__ = ("_depth", "_owner", "_recurse")

    def __init__(self, name: str = "mtx", opts: int = MTX_DEF, *, machine: Machine | None = None) -> None:
        """Make a mutex of the current system; *opts* are ``MTX_*``. Never blocks.

        Raises:
            NoSystemError: no system is open here.
            ArgumentValueError: unknown option.
        """
        if opts & ~(MTX_SPIN | MTX_RECURSE):
            raise ArgumentValueError(f"mtx_init: unknown option {opts:#x}; use MTX_DEF or MTX_SPIN, and MTX_RECURSE")
        super().__init__(name, LockClass.SPIN if opts & MTX_SPIN else LockClass.MUTEX, machine)
        self._owner: Thread = None
        self._depth = 0
        self._recurse = bool(opts & MTX_RECURSE)

    @guarded
    def __enter__(self) -> Self:
        me = self.me()
        if self._owner == me:
            if not self._recurse:
                raise LockHeldError(
                    f"{self.name!r}: this thread holds it already (make it with MTX_RECURSE to take it twice)"
                )
        elif not self._raw.acquire(False):
            self._contended()
        if self.machine.held is not None:
            self._note_taken()
        self._owner = me
        self._depth += 1
        return self

    @guarded
    def __exit__(self, *_: object) -> None:
        if self._owner != self.me() or self._owner is None:
            if isinstance(self._raw, Refusal):
                self._raw.acquire()
            raise LockNotHeldError(f"{self.name!r}: this thread does not hold it and cannot give it up")
        if self.machine.held is not None:
            self._note_given()
        self._depth -= 1
        if self._depth:
            return
        self._owner = None
        self._raw.release()
        if self.parked:
            self._wake(everybody=False)

    def _check_kind(self, call: str, spin: bool) -> None:
        if (self.lock_class is LockClass.SPIN) is not spin:
            raise LockClassError(
                f"{call}: {self.name!r} is {self.lock_class.value}; use {'mtx_lock' if spin else 'mtx_lock_spin'}"
            )

    def lock(self) -> None:
        """Take the mutex; blocks while another thread holds it. See ``mtx_lock(9)``.

        Raises:
            LockHeldError: this thread holds it, and it is not recursive.
            LockDestroyedError: it was destroyed.
            LockClassError: it is a spin mutex.
        """
        self._check_kind("mtx_lock", spin=False)
        self.__enter__()

    def unlock(self) -> None:
        """Give the mutex up. Never blocks. See ``mtx_unlock(9)``.

        Raises:
            LockNotHeldError: this thread does not hold it.
        """
        self._check_kind("mtx_unlock", spin=False)
        self.__exit__()

    def lock_spin(self) -> None:
        """Take the spin mutex; blocks while another thread holds it. See ``mtx_lock_spin(9)``."""
        self._check_kind("mtx_lock_spin", spin=True)
        self.__enter__()

    def unlock_spin(self) -> None:
        """Give the spin mutex up. Never blocks. See ``mtx_unlock_spin(9)``."""
        self._check_kind("mtx_unlock_spin", spin=True)
        self.__exit__()

    @guarded
    def trylock(self) -> int:
        """Take the mutex if that needs no waiting; return 1 if taken, else 0. Never blocks. See ``mtx_trylock(9)``."""
        me = self.me()
        if self._owner == me:
            if not self._recurse:
                return 0
        elif not self._raw.acquire(False):
            return 0
        self._note_taken()
        self._owner = me
        self._depth += 1
        return 1

    def owned(self) -> bool:
        """Return whether this thread holds the mutex. Never blocks. See ``mtx_owned(9)``."""
        return self._owner == self.me() and self._owner is not None

    def recursed(self) -> bool:
        """Return whether this thread holds it more than once. Never blocks. See ``mtx_recursed(9)``."""
        return self.owned() and self._depth > 1

    def assert_(self, what: int) -> None:
        """Raise unless the mutex is held as *what* (``MA_*``) says. Never blocks. See ``mtx_assert(9)``."""
        known = (MA_OWNED, MA_OWNED | MA_RECURSED, MA_OWNED | MA_NOTRECURSED, MA_NOTOWNED)
        if what not in known:
            raise ArgumentValueError("mtx_assert: give MA_OWNED (with MA_RECURSED or MA_NOTRECURSED) or MA_NOTOWNED")
        owned = self.owned()
        if what == MA_NOTOWNED:
            if owned:
                raise LockHeldError(f"mtx_assert: {self.name!r} is held by this thread")
            return
        if not owned:
            raise LockNotHeldError(f"mtx_assert: {self.name!r} is not held by this thread")
        if what & MA_RECURSED and self._depth == 1:
            raise LockError(f"mtx_assert: {self.name!r} is not recursed")
        if what & MA_NOTRECURSED and self._depth > 1:
            raise LockError(f"mtx_assert: {self.name!r} is recursed")

    def destroy(self) -> None:
        """Make every later use an error. Never blocks. Whoever holds it may destroy it. See ``mtx_destroy(9)``.

        Raises:
            LockError: another thread holds it, or softclock waits for it.
        """
        if self.owned():
            if self._depth > 1:
                raise LockError(f"mtx_destroy: {self.name!r} is recursed")
            if not self.parked:
                self.__exit__()
        self._destroy("mtx_destroy", self._owner is not None and not self.owned())

    def initialized(self) -> bool:
        """Return whether it was not destroyed. Never blocks. See ``mtx_initialized(9)``."""
        return not isinstance(self._raw, Refusal)

    @guarded
    def try_take(self, shared: bool) -> bool:
        me = self.me()
        if self._owner == me or not self._raw.acquire(False):
            return False
        self._owner = me
        self._depth = 1
        if self.machine.held is not None:
            self._note_taken()
        return True

    def give(self, shared: bool) -> None:
        self.__exit__()

    @guarded
    def drop_all(self) -> int:
        """Give it up however often it is held, and return how often that was; 0 if this thread does not hold it."""
        if not self.owned():
            return 0
        depth = self._depth
        for _ in range(depth):
            self.__exit__()
        return depth


class RwLock(Lock):
    """A read/write lock: many readers, or one writer. ``with rw:`` writes, ``with rw.read():`` reads. See rwlock(9).

    Readers do not wait for waiting writers, so steady readers can keep a writer out.
    """

    __slots__ = ("_depth", "_readers", "_recurse", "_writer")

    _prefix = "rw"

    def __init__(self, name: str = "rwlock", opts: int = 0, *, machine: Machine | None = None) -> None:
        """Make a read/write lock of the current system; *opts* may be ``RW_RECURSE``. Never blocks."""
        if opts & ~RW_RECURSE:
            raise ArgumentValueError(f"rw_init: unknown option {opts:#x}; only RW_RECURSE is known")
        self._setup(name, LockClass.EXCLUSIVE, bool(opts & RW_RECURSE), machine)

    def _setup(self, name: str, lock_class: LockClass, recurse: bool, machine: Machine | None) -> None:
        Lock.__init__(self, name, lock_class, machine)
        self._writer: Thread = None
        self._depth = 0
        self._readers: dict[Thread, int] = {}
        self._recurse = recurse

    def _enter(self) -> None:
        """Take the raw lock that guards this lock's own fields, for a few instructions."""
        if not self._raw.acquire(False):
            self._contended()

    @guarded
    def _try(self, shared: bool, again: bool) -> bool:
        """Take it if free; *again*: also if this thread has it already and may have it twice."""
        me = self.me()
        self._enter()
        try:
            if shared:
                if self._writer is not None or (not again and me in self._readers):
                    return False
                self._readers[me] = self._readers.get(me, 0) + 1
            elif self._writer == me and self._writer is not None:
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
        self._note_taken()
        return True

    @guarded
    def _block(self, call: str, shared: bool) -> None:
        while not self._try(shared, again=True):
            me = self.me()
            if self._writer == me or (not shared and me in self._readers):
                raise LockHeldError(f"{call}: this thread holds {self.name!r} already, and would wait for itself")
            waiter = self.machine.platform.thread_waiter()
            self.parked.append(waiter)
            if self._try(shared, again=True):
                _unpark(self, waiter)
                return
            check_reentry()
            try:
                waiter.wait().send(None)  # a thread_waiter blocks; its coroutine ends at once
            except StopIteration:
                pass

    @guarded
    def _unlock(self, call: str, shared: bool) -> None:
        me = self.me()
        self._enter()
        try:
            if shared:
                count = self._readers.get(me, 0)
                if not count:
                    raise LockNotHeldError(f"{call}: this thread has no read lock on {self.name!r}")
                if count == 1:
                    del self._readers[me]
                else:
                    self._readers[me] = count - 1
            else:
                if self._writer != me or self._writer is None:
                    raise LockNotHeldError(f"{call}: this thread has no write lock on {self.name!r}")
                self._depth -= 1
                if not self._depth:
                    self._writer = None
            free = self._writer is None
        finally:
            self._raw.release()
        self._note_given()
        if free and self.parked:
            self._wake(everybody=True)

    def wlock(self) -> None:
        """Take it for writing; blocks while others have it. Raises LockHeldError if this thread has it."""
        self._block(f"{self._prefix}_wlock", shared=False)

    def rlock(self) -> None:
        """Take it for reading; blocks while another thread writes. Raises LockHeldError if this thread writes."""
        self._block(f"{self._prefix}_rlock", shared=True)

    def wunlock(self) -> None:
        """Give up the write lock. Never blocks. Raises LockNotHeldError if this thread has none."""
        self._unlock(f"{self._prefix}_wunlock", shared=False)

    def runlock(self) -> None:
        """Give up a read lock. Never blocks. Raises LockNotHeldError if this thread has none."""
        self._unlock(f"{self._prefix}_runlock", shared=True)

    def unlock(self) -> None:
        """Give up whichever lock this thread has. Never blocks. See ``rw_unlock(9)``."""
        self._unlock(f"{self._prefix}_unlock", shared=not self.owned())

    def try_wlock(self) -> int:
        """Take it for writing if that needs no waiting; return 1 if taken, else 0. Never blocks."""
        return int(self._try(shared=False, again=True))

    def try_rlock(self) -> int:
        """Take it for reading if that needs no waiting; return 1 if taken, else 0. Never blocks."""
        return int(self._try(shared=True, again=True))

    @guarded
    def try_upgrade(self) -> int:
        """Turn this thread's read lock into the write lock if it is the only reader; return 1 if so, else 0."""
        me = self.me()
        self._enter()
        try:
            if me not in self._readers:
                raise LockNotHeldError(f"rw_try_upgrade: this thread has no read lock on {self.name!r}")
            if self._readers != {me: 1}:
                return 0
            self._readers.clear()
            self._writer, self._depth = me, 1
        finally:
            self._raw.release()
        return 1

    @guarded
    def downgrade(self) -> None:
        """Turn this thread's write lock into a read lock. Never blocks. See ``rw_downgrade(9)``."""
        me = self.me()
        self._enter()
        try:
            if self._writer != me or self._writer is None:
                raise LockNotHeldError(f"rw_downgrade: this thread has no write lock on {self.name!r}")
            if self._depth > 1:
                raise LockError(f"rw_downgrade: {self.name!r} is recursed")
            self._writer, self._depth = None, 0
            self._readers[me] = 1
        finally:
            self._raw.release()
        self._wake(everybody=True)

    def owned(self) -> bool:
        """Return whether this thread has the write lock. Never blocks. See ``rw_wowned(9)``."""
        return self._writer == self.me() and self._writer is not None

    def holds(self) -> bool:
        return self.owned() or self.me() in self._readers

    def assert_(self, what: int) -> None:
        """Raise unless the lock is held by this thread as *what* (``RA_*``) says.

        Never blocks. See ``rw_assert(9)``.
        """
        call = f"{self._prefix}_assert"
        if what not in (RA_LOCKED, RA_RLOCKED, RA_WLOCKED, RA_UNLOCKED):
            raise ArgumentValueError(f"{call}: give RA_LOCKED, RA_RLOCKED, RA_WLOCKED or RA_UNLOCKED")
        if what == RA_UNLOCKED:
            if self.holds():
                raise LockHeldError(f"{call}: {self.name!r} is held by this thread")
        elif not (
            self.owned() if what == RA_WLOCKED else self.me() in self._readers if what == RA_RLOCKED else self.holds()
        ):
            raise LockNotHeldError(f"{call}: {self.name!r} is not held by this thread in that way")

    def destroy(self) -> None:
        """Make every later use an error. Never blocks. Raises LockError if anybody holds it or waits for it."""
        self._destroy(f"{self._prefix}_destroy", self._writer is not None or bool(self._readers))

    def initialized(self) -> bool:
        """Return whether it was not destroyed. Never blocks. See ``rw_initialized(9)``."""
        return not isinstance(self._raw, Refusal)

    def __enter__(self) -> Self:
        self.wlock()
        return self

    def __exit__(self, *_: object) -> None:
        self.wunlock()

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the read lock in a ``with`` block."""
        self.rlock()
        try:
            yield
        finally:
            self.runlock()

    def try_take(self, shared: bool) -> bool:
        return self._try(shared, again=False)

    def give(self, shared: bool) -> None:
        self._unlock("softclock", shared)


class RmLock(RwLock):
    """A read-mostly lock. ``with rm:`` writes, ``with rm.read():`` reads. See rmlock(9).

    A sleepable one (``RM_SLEEPABLE``) may not be a callout's lock.
    """

    __slots__ = ()

    _prefix = "rm"

    def __init__(self, name: str = "rmlock", opts: int = 0, *, machine: Machine | None = None) -> None:
        """Make a read-mostly lock of the current system; *opts* are ``RM_*``. Never blocks."""
        if opts & ~(RM_RECURSE | RM_SLEEPABLE):
            raise ArgumentValueError(f"rm_init: unknown option {opts:#x}; RM_RECURSE and RM_SLEEPABLE are known")
        lock_class = LockClass.SLEEPABLE if opts & RM_SLEEPABLE else LockClass.EXCLUSIVE
        self._setup(name, lock_class, bool(opts & RM_RECURSE), machine)
