"""What the locks have in common: a name, an owner, a machine, a parking lot.

A lock is owned by a thread. It is held for a few lines of plain code, never across an ``await``.

Misuse is an error, raised before anything changes, where the kernel panics: acquiring what one holds, releasing what
one does not hold, using what was destroyed.

The raw lock is recursive (``threading.RLock``), so that what interrupts a thread (a finalizer, a signal handler) and
uses the same lock does not wait for its own thread for ever: it finds the owner, and is told. The fields change by
plain stores with no call between, so an exception from a signal handler finds them whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NoReturn, SupportsIndex

from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, LockDestroyedError, LockError
from .._core.machine import Machine, current_machine
from .._core.platform import RawLock, Thread
from .._core.refusal import Refusal
from .._core.rules import LockClass
from .._core.units import exact_int
from .parking import Parked


def check_options(call: str, opts: object, known: int, words: str) -> int:
    """Return *opts* if it is an int with no bit but those of *known*, which are called *words*."""
    exact = exact_int(opts)
    if exact is None:
        raise ArgumentTypeError(f"{call}: opts must be an int, {words}, not {shown(opts)}", call=call)
    if exact & ~known:
        raise ArgumentValueError(f"{call}: unknown option {exact:#x}; use {words}", call=call)
    return exact


class Lock:
    """What all locks have in common."""

    __slots__ = ("__weakref__", "_raw", "lock_class", "machine", "me", "name", "parked")

    def __init__(self, name: str, lock_class: LockClass, machine: Machine | None) -> None:
        """Make a lock of the current system. Never blocks."""
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"{type(self).__name__}: name must be a str, not {shown(name)}", call=type(self).__name__
            )
        if machine is None:
            machine = current_machine(type(self).__name__)
        self.name = name
        self.lock_class = lock_class
        self.machine = machine
        self.me: Callable[[], Thread] = machine.platform.current_thread
        self.parked = Parked(machine.platform.shared(deque()))
        self._raw: RawLock = machine.platform.raw_lock(name)

    def __repr__(self) -> str:
        try:
            holder = self._holder()
        except Exception:  # another thread is at it, or it was freed
            holder = ""
        return f"<{type(self).__name__} {self.name!r}{f' held by {holder}' if holder else ''}>"

    def _holder(self) -> str:
        """Return the names of the threads that hold it; "" if none does."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied or pickled: a twin would be held by nobody."""
        raise ArgumentTypeError(f"{self!r} cannot be copied or pickled; make a new one", lock=self)

    # -- what softclock and drains need --------------------------------------------------------------------------

    def try_acquire(self, shared: bool) -> bool:
        """Acquire the lock if it is free; a lock that this very thread holds counts as refused. Never blocks."""
        raise NotImplementedError

    def release_as(self, shared: bool) -> None:
        """Release what ``try_acquire`` has acquired."""
        raise NotImplementedError

    def drop_all(self) -> int:
        """Release it however often this thread holds it, in whatever way; return how often that was. Never blocks."""
        raise NotImplementedError

    def owned(self) -> bool:
        """Return whether this thread holds the lock exclusively."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Return whether this thread holds the lock in any way."""
        return self.owned()

    def poison(self, refusal: Refusal) -> None:
        """Make every later use raise; what is parked here is woken to find out. For a ``Slab`` and ``destroy()``."""
        self._raw = refusal
        self.parked.wake_all()

    # -- the raw lock ----------------------------------------------------------------------------------------------

    def _acquire_raw(self) -> None:
        """Acquire the raw lock; raise if it was replaced, meanwhile too, because the lock was destroyed or freed."""
        while True:
            raw = self._raw
            if self.machine.dead is not None:
                self.machine.dead.refuse()  # its holder may not exist in this process
            try:
                raw.acquire()
            except BaseException:
                if raw._is_owned():
                    raw.release()
                raise
            if self._raw is raw:
                return
            raw.release()

    # -- checking mode: which locks each thread holds, oldest first -------------------------------------------------

    def _note_acquired(self) -> None:
        if (held := self.machine.held) is not None:
            me = self.me()
            mine = held.setdefault(me, [])
            mine.append(self)
            held[me] = mine  # what interrupted this, and held a lock, has deleted the list if it was empty

    def _note_released(self) -> None:
        if (held := self.machine.held) is not None:
            me = self.me()
            mine = held.get(me, [])
            for at in range(len(mine) - 1, -1, -1):  # the one acquired last first
                if mine[at] is self:
                    del mine[at]
                    break
            if not mine:
                held.pop(me, None)  # unless what interrupted this has done it

    # -- the end ----------------------------------------------------------------------------------------------------

    def initialized(self) -> bool:
        """Return whether it was not destroyed. Never blocks. See ``mtx_initialized(9)``."""
        return not isinstance(self._raw, Refusal)

    def check_usable(self, call: str) -> None:
        """Raise, in the name of *call*, if it was destroyed or freed."""
        raw = self._raw
        if isinstance(raw, Refusal):
            raw.refuse(call)

    def _destroy(self, call: str, held_elsewhere: bool) -> None:
        raw = self._raw
        if isinstance(raw, Refusal):
            raw.refuse()
        if held_elsewhere:
            raise LockError(
                f"{call}: {self.name!r} is still held; destroy a lock only when nobody has it", call=call, lock=self
            )
        if self.parked:
            raise LockError(
                f"{call}: softclock waits for {self.name!r}; drain the callouts that use it first", call=call, lock=self
            )
        self.poison(Refusal(LockDestroyedError, f"lock {self.name!r} was destroyed"))
