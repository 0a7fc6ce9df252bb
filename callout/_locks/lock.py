"""What the locks have in common: a name, an owner, a machine, a parking lot.

A lock is owned by a thread. It is held for a few lines of plain code, never across an ``await``.

Misuse is an error, raised before anything changes, where the kernel panics: acquiring what one holds, releasing what
one does not hold, using what was destroyed.

The raw lock is recursive (``threading.RLock``), so that what interrupts a thread (a finalizer, a signal handler) and
uses the same lock does not wait for its own thread for ever: it finds the owner, and is told. The fields change by
plain stores with no call between, so an exception from a signal handler finds them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, SupportsIndex

from .._core import frames
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, LockDestroyedError, LockError
from .._core.machine import Machine, current_machine
from .._core.platform import Thread
from .._core.rawlock import RawLock
from .._core.refusal import Refusal
from .._core.rules import LockClass
from .._core.units import exact_int
from .._core.witness import Held, LockKind, Spot
from .parking import NOBODY, Waiters, wake_all


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

    __slots__ = ("__weakref__", "_raw", "kind", "lock_class", "machine", "me", "name", "parked", "since")

    _unnamed = ""  # the name of a lock that was given none

    def __init__(
        self,
        name: str,
        lock_class: LockClass,
        machine: Machine | None,
        type_: str | None = None,
        *,
        watched: bool = True,
        dup_ok: bool = False,
    ) -> None:
        """Make a lock of the current system. Never blocks."""
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"{type(self).__name__}: name must be a str, not {shown(name)}", call=type(self).__name__
            )
        if type_ is not None and not isinstance(type_, str):
            raise ArgumentTypeError(
                f"{type(self).__name__}: type must be a str or None, not {shown(type_)}", call=type(self).__name__
            )
        if machine is None:
            machine = current_machine(type(self).__name__)
        self.name = name
        self.lock_class = lock_class
        self.machine = machine
        self.me: Callable[[], Thread] = machine.platform.current_thread
        self.parked: Waiters = machine.platform.shared(NOBODY)
        self._raw: RawLock = machine.platform.raw_lock(name)
        # Checking mode: its class in the order of locks, and where it was acquired by the thread that holds it.
        self.kind: LockKind | None = None
        self.since: tuple[Thread, Spot] | None = None
        if watched and machine.witness is not None:
            given = name if type_ is None and name != self._unnamed else type_
            self.kind = machine.witness.enroll((type(self).__qualname__, lock_class), given, name, dup_ok)

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
        if self.parked:
            wake_all(self.parked)

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

    # -- checking mode: which locks each thread holds, oldest first, and in what order they may be waited for --------

    def _check_order(self, call: str = "") -> Spot | None:
        """Raise LockOrderError if this thread, as it is, must not wait for the lock; return where it is."""
        held, witness = self.machine.held, self.machine.witness
        if held is None or witness is None:
            return None
        me = self.me()
        mine = held.get(me)
        spot = frames.spot()
        kind = self.kind
        inside = witness.is_inside(me)
        if kind is None or not (mine or inside):
            return spot
        new = inside
        for lock in mine or ():
            if lock is self:
                return spot
            other = _kind(lock)
            if other is not None and not other.node.precedes(kind.node):
                new = True
        if new:
            witness.acquire(call, self, kind, [watched(lock, me) for lock in mine or ()], spot)
        return spot

    def _note_acquired(self, spot: Spot | None = None) -> None:
        """Note that this thread holds it, from *spot* on if it had to be waited for."""
        if (held := self.machine.held) is not None:
            me = self.me()
            mine = held.setdefault(me, [])
            for lock in mine:
                if lock is self:
                    break
            else:
                self.since = None if spot is None else (me, spot)
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


_kind: Final = Lock.__dict__["kind"].__get__
_since: Final = Lock.__dict__["since"].__get__


def watched(lock: Lock, me: Thread) -> Held:
    """Return its class in the order of locks, and where thread *me*, which holds it, has acquired it: also if a
    ``Slab`` has freed it.
    """
    kind: LockKind | None = _kind(lock)
    since: tuple[Thread, Spot] | None = _since(lock)
    return kind, since[1] if since is not None and since[0] == me else None
