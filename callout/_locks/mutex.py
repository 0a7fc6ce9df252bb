# cython: binding=False
"""Mutexes, with the names of mutex(9): default and spin, recursive or not, and Giant.

Source: kern_mutex.c for names and assertions, not for structure.
"""

from __future__ import annotations

from typing import Final, NoReturn, Self

from .._core.errors import ArgumentValueError, LockClassError, LockError, LockHeldError, LockNotHeldError
from .._core.guard import protect
from .._core.machine import Machine
from .._core.platform import Thread
from .._core.rawlock import RawLock
from .._core.refusal import Refusal
from .._core.rules import LockClass
from .._core.subclass import keep_fields
from .lock import Lock, check_options
from .parking import wake_all

MTX_DEF: Final = 0x0
MTX_SPIN: Final = 0x1
MTX_RECURSE: Final = 0x4
MTX_NOWITNESS: Final = 0x8
MTX_DUPOK: Final = 0x10
_MTX_ALL: Final = MTX_SPIN | MTX_RECURSE | MTX_NOWITNESS | MTX_DUPOK

MA_OWNED: Final = 0x1
MA_NOTOWNED: Final = 0x2
MA_RECURSED: Final = 0x4
MA_NOTRECURSED: Final = 0x8


class MtxRecord(Lock):
    """The fields of a mutex, and what is done with one all the time.

    Of the compiled core this is a structure of C, whose objects keep their class for ever: hence ``Mtx``.
    """

    __slots__ = ("_depth", "_owner", "_recurse")

    _owner: Thread
    _depth: int
    _recurse: bool

    def __enter__(self) -> Self:
        raw = self._raw
        if self._depth and raw._is_owned():
            if not self._recurse:
                if self.machine.dead is not None:
                    self.machine.dead.refuse()
                raise LockHeldError(
                    f"{self.name!r}: this thread holds it already (to acquire it twice make it recursive, MTX_RECURSE)",
                    lock=self,
                )
            self._depth += 1
        else:
            me = self.me()
            try:
                taken = raw.acquire(False)
            except BaseException:
                if raw._is_owned():
                    raw.release()
                raise
            if not taken or self._raw is not raw:
                self._acquire_contended(raw, taken)
            self._owner, self._depth = me, 1
        if self.machine.held is not None:
            try:
                self._note_acquired(self._check_order())
            except BaseException:
                self._undo()
                raise
        return self

    def __exit__(self, kind: object = None, error: object = None, traceback: object = None, /) -> None:
        if MtxRecord.leave(self):
            return
        if self._owner != self.me():
            self._not_held()
        if self.machine.held is not None:
            self._note_released()
        if self._depth > 1:
            self._depth -= 1
            return
        self._owner, self._depth = None, 0
        try:
            self._raw.release()
        finally:
            if self.parked:
                wake_all(self.parked)

    def mine(self) -> bool:
        """Return whether this thread holds it, as its raw lock knows. The short path of ``owned()``."""
        return self._depth > 0 and self._raw._is_owned()

    def leave(self) -> bool:
        """Release it if this thread holds it once, and nobody wants to know; return whether it was so. The short path
        of releasing.
        """
        raw = self._raw
        if self._depth != 1 or self.machine.held is not None or not raw._is_owned():
            return False
        self._owner, self._depth = None, 0
        try:
            raw.release()
        finally:
            if self.parked:
                wake_all(self.parked)
        return True

    def _undo(self) -> None:
        """Release what was acquired, and could not be noted: in a forked child, or for an exception of a handler."""
        try:
            self._note_released()
        finally:
            raw = self._raw
            if self._depth > 1:
                self._depth -= 1
            else:
                self._owner, self._depth = None, 0
                raw.release()
                if self.parked:
                    wake_all(self.parked)

    def _acquire_contended(self, raw: RawLock, taken: bool) -> None:
        """Wait for the raw lock; or release one that was replaced while we acquired it, and find out why."""
        if taken:
            raw.release()
        elif self.machine.held is not None:
            self._check_order()  # now: once this waits, it may be too late
        self._acquire_raw()

    def _not_held(self) -> NoReturn:
        if self.machine.dead is not None:
            self.machine.dead.refuse()
        raw = self._raw
        if isinstance(raw, Refusal):
            raw.refuse()
        raise LockNotHeldError(f"{self.name!r}: this thread does not hold it and cannot release it", lock=self)

    def try_acquire(self, shared: bool) -> bool:
        raw = self._raw
        if self._depth and raw._is_owned():
            return False
        me = self.me()
        try:
            taken = raw.acquire(False)
        except BaseException:
            if raw._is_owned():
                raw.release()
            raise
        if not taken:
            if self.machine.dead is not None:
                self.machine.dead.refuse()  # its holder does not exist in this process
            return False
        if self._raw is not raw:
            self._acquire_contended(raw, taken)
        self._owner, self._depth = me, 1
        if self.machine.held is not None:
            try:
                self._note_acquired()
            except BaseException:
                self._undo()
                raise
        return True


class Mtx(MtxRecord):
    """A mutex: default (``MTX_DEF``), or spin (``MTX_SPIN``); with ``MTX_RECURSE`` its owner may acquire it again.

    ``with m:`` acquires and releases it. Acquiring blocks the thread while another holds it, and with the thread its
    loop, so hold it for a few lines and never across an ``await``. See mutex(9).
    """

    __slots__ = ()

    _unnamed = "mtx"

    def __init_subclass__(cls, **more: object) -> None:
        """Refuse a subclass that has something of its own under the name of a field."""
        super().__init_subclass__(**more)
        keep_fields(cls, Mtx, (*Lock.__slots__[1:], *MtxRecord.__slots__))

    def __init__(
        self,
        name: str = "mtx",
        opts: int = MTX_DEF,
        *,
        type: str | None = None,  # noqa: A002 - the kernel's name
        machine: Machine | None = None,
    ) -> None:
        """Make a mutex of the current system; *opts* are ``MTX_*``. Never blocks.

        *type* says for the order of locks, which checking mode keeps, to which class it belongs; without, its *name*
        does. One that is given neither is a class of its own.

        Raises:
            NoSystemError: no system is open here.
            ArgumentValueError: unknown option.
        """
        words = "MTX_DEF or MTX_SPIN, and MTX_RECURSE, MTX_DUPOK, MTX_NOWITNESS"
        opts = check_options("mtx_init", opts, _MTX_ALL, words)
        super().__init__(
            name,
            LockClass.SPIN if opts & MTX_SPIN else LockClass.MUTEX,
            machine,
            type,
            watched=not opts & MTX_NOWITNESS,
            dup_ok=bool(opts & MTX_DUPOK),
        )
        self._owner, self._depth = None, 0
        self._recurse = bool(opts & MTX_RECURSE)

    def _holder(self) -> str:
        owner = self._owner
        return "" if owner is None else self.machine.platform.name_of(owner)

    def _check_kind(self, call: str, spin: bool) -> None:
        if (self.lock_class is LockClass.SPIN) is not spin:
            instead = call.removesuffix("_spin") if spin else f"{call}_spin"
            raise LockClassError(
                f"{call}: {self.name!r} is {self.lock_class.value}; use {instead}", call=call, lock=self
            )

    def lock(self) -> None:
        """Acquire the mutex; blocks while another thread holds it. See ``mtx_lock(9)``.

        Raises:
            LockHeldError: this thread holds it, and it is not recursive.
            LockOrderError: in checking mode, with what this thread holds, that contradicts the order of locks.
            LockDestroyedError: it was destroyed.
            LockClassError: it is a spin mutex.
        """
        self._check_kind("mtx_lock", spin=False)
        self.__enter__()

    def unlock(self) -> None:
        """Release the mutex. Never blocks. See ``mtx_unlock(9)``.

        Raises:
            LockNotHeldError: this thread does not hold it.
        """
        self._check_kind("mtx_unlock", spin=False)
        self.__exit__()

    def lock_spin(self) -> None:
        """Acquire the spin mutex; blocks while another thread holds it. See ``mtx_lock_spin(9)``."""
        self._check_kind("mtx_lock_spin", spin=True)
        self.__enter__()

    def unlock_spin(self) -> None:
        """Release the spin mutex. Never blocks. See ``mtx_unlock_spin(9)``."""
        self._check_kind("mtx_unlock_spin", spin=True)
        self.__exit__()

    def trylock(self) -> int:
        """Acquire the mutex if that needs no waiting; return 1 if so, else 0. Never blocks. See ``mtx_trylock(9)``."""
        if self._recurse and self._owner == self.me():
            self.__enter__()
            return 1
        return int(self.try_acquire(shared=False))

    def owned(self) -> bool:
        """Return whether this thread holds the mutex. Never blocks. See ``mtx_owned(9)``."""
        return self._owner == self.me()

    def recursed(self) -> bool:
        """Return whether this thread holds it more than once. Never blocks. See ``mtx_recursed(9)``."""
        return self.owned() and self._depth > 1

    def assert_(self, what: int) -> None:
        """Raise unless the mutex is held as *what* (``MA_*``) says. Never blocks. See ``mtx_assert(9)``."""
        known = (MA_OWNED, MA_OWNED | MA_RECURSED, MA_OWNED | MA_NOTRECURSED, MA_NOTOWNED)
        if what not in known:
            raise ArgumentValueError(
                "mtx_assert: give MA_OWNED (with MA_RECURSED or MA_NOTRECURSED) or MA_NOTOWNED", call="mtx_assert"
            )
        owned = self.owned()
        if what == MA_NOTOWNED:
            if owned:
                raise LockHeldError(f"mtx_assert: {self.name!r} is held by this thread", call="mtx_assert", lock=self)
            return
        if not owned:
            raise LockNotHeldError(
                f"mtx_assert: {self.name!r} is not held by this thread", call="mtx_assert", lock=self
            )
        if what & MA_RECURSED and self._depth == 1:
            raise LockError(f"mtx_assert: {self.name!r} is not recursed", call="mtx_assert", lock=self)
        if what & MA_NOTRECURSED and self._depth > 1:
            raise LockError(f"mtx_assert: {self.name!r} is recursed", call="mtx_assert", lock=self)

    def destroy(self) -> None:
        """Make every later use an error. Never blocks. Its owner may destroy it. See ``mtx_destroy(9)``.

        Raises:
            LockError: another thread holds it, or softclock waits for it.
        """
        if self.owned():
            if self._depth > 1:
                raise LockError(f"mtx_destroy: {self.name!r} is recursed", call="mtx_destroy", lock=self)
            if not self.parked:
                self.__exit__()
        self._destroy("mtx_destroy", self._owner is not None and not self.owned())

    def poison(self, refusal: Refusal) -> None:
        # What blocks here is to find out as well, if this thread is the holder: it may think that with the lock's end
        # it need not release it. Where another thread is, its release comes to the refusal.
        raw = self._raw
        Lock.poison(self, refusal)
        if Mtx.owned(self):
            raw.release()

    def release_as(self, shared: bool) -> None:
        self.__exit__()

    def drop_all(self) -> int:
        if not self.owned():
            return 0
        depth = self._depth
        for _ in range(depth):
            self.__exit__()
        return depth


protect(Mtx.__enter__, Mtx.__exit__, Mtx.mine, Mtx.leave, Mtx.try_acquire, Mtx.drop_all)
