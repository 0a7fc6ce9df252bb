"""Sleep queues: the sleepers of each channel, in order. sleep(9) and condvar(9) are built on them.

No wake-up is lost: a sleeper is on the queue of its channel before it releases the lock that guards what it waits for,
and the code that changes that does so under the same lock and calls ``wakeup`` then. Each sleep ends once: see
``_core.sleep``. A wake-up for one that finds its sleeper cancelled, and so unable to act on it, goes on to the next.

Queues are guarded by one lock of the machine, which is held for a few instructions; nobody is woken under it. A sleeper
whose time is over is off the machine's list at once, and off its queue when it runs again: until then a wake-up for one
passes it over.

Channels are told apart by identity, so no code of the user's runs here. The timeout is a direct callout, as in the
kernel: no callback that waits for its lock can hold it up.

Source: subr_sleepqueue.c; kern_synch.c, _sleep().
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Final, NamedTuple

from .._core.arm import arm, initialize
from .._core.describe import shown
from .._core.drain import _reacquire
from .._core.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    ClosedError,
    LockClassError,
    LockError,
    LockNotHeldError,
    ReentrantCallError,
    SleepError,
)
from .._core.guard import protected
from .._core.machine import Machine
from .._core.platform import Thread
from .._core.rules import LockClass
from .._core.short import callout_stop
from .._core.sleep import Sleeper, Why, claim, enlist, wake
from .._core.witness import Witness
from .._locks.mutex import Mtx
from .awaitable import refuse_loop
from .callout import Callout

# What has no identity of its own: equal ones may be one object or two, and a method is a new object at each look.
_VALUES: Final = (bool, bytes, complex, float, frozenset, int, str, tuple, type(None))
_METHODS: Final = (BuiltinMethodType, MethodType, MethodWrapperType)

WOKEN: Final = 0
TIMED_OUT: Final = errno.EWOULDBLOCK


class Timeout(NamedTuple):
    """When a sleep ends by itself, in ns: not before *when*, and later than that by *precision* at most."""

    when: int
    precision: int


class SleepQueues:
    """The queues of one machine."""

    __slots__ = ("_guard", "_me", "_owner", "_queues", "disowned")

    def __init__(self, machine: Machine) -> None:
        self._me: Callable[[], Thread] = machine.platform.current_thread
        self._owner: Thread = None  # looked at only when the guard is taken: by this very thread?
        self._guard = machine.platform.raw_lock("sleep queues")
        self._queues: dict[int, deque[Sleeper]] = {}  # identity of a channel, which its sleepers keep alive -> who
        self.disowned: set[Sleeper] = set()  # woken because their channel was freed, and not yet running

    def _enter(self) -> None:
        if not self._guard.acquire(False):
            if self._owner == self._me():
                raise ReentrantCallError(
                    "wakeup: called by a finalizer, weakref callback or signal handler that interrupted a sleep or a "
                    "wake-up of the same thread, and would wait for itself; hand the call to the loop instead: "
                    "system.cpu(0).call(function, *args)",
                    call="wakeup",
                )
            self._guard.acquire()
        self._owner = self._me()

    def _leave_guard(self) -> None:
        self._owner = None
        self._guard.release()

    @protected
    def join(self, chan: object, sleeper: Sleeper) -> None:
        """Put *sleeper* at the end of the queue of *chan*."""
        self._enter()
        try:
            self._queues.setdefault(id(chan), deque()).append(sleeper)
        finally:
            self._leave_guard()

    @protected
    def leave(self, chan: object, sleeper: Sleeper) -> None:
        """Take *sleeper* off the queue of *chan*, if it is still there."""
        self._enter()
        try:
            queue = self._queues.get(id(chan))
            if queue is not None and sleeper in queue:
                queue.remove(sleeper)
                if not queue:
                    del self._queues[id(chan)]
        finally:
            self._leave_guard()

    @protected
    def take(self, chan: object, everybody: bool) -> list[Sleeper]:
        """Take the first sleeper off the queue of *chan*, or all; return whom."""
        self._enter()
        try:
            queue = self._queues.get(id(chan))
            if queue is None:
                return []
            taken = list(queue) if everybody else [queue[0]]
            if len(taken) == len(queue):
                del self._queues[id(chan)]
            else:
                queue.popleft()
            return taken
        finally:
            self._leave_guard()

    def sleepers(self, chan: object) -> list[Sleeper]:
        """Return what sleeps on *chan*, without the guard: copying a deque is atomic."""
        return list(self._queues.get(id(chan), ()))

    def occupied(self, chan: object) -> bool:
        """Return whether anything sleeps on *chan*. The result may be out of date when it is returned."""
        return id(chan) in self._queues


def queues_of(machine: Machine) -> SleepQueues:
    """Return the queues of *machine*."""
    queues = machine.attached.get(__name__)
    if queues is None:
        queues = machine.attached.setdefault(__name__, SleepQueues(machine))
    assert isinstance(queues, SleepQueues)
    return queues


# -- checks: before anything changes -------------------------------------------------------------------------------


def check_chan(call: str, chan: object) -> None:
    """Raise unless *chan* has an identity of its own."""
    if isinstance(chan, (*_VALUES, *_METHODS)):
        raise ArgumentTypeError(
            f"{call}: a channel is an object that sleeper and waker both have, told apart by identity, such as the "
            f"structure that is waited for, or an object() in it; not {shown(chan)}",
            call=call,
        )


def check_str(call: str, what: str, value: object) -> None:
    """Raise unless *value* is a str: *what* says for people what something is, or is waited for."""
    if not isinstance(value, str):
        raise ArgumentTypeError(
            f"{call}: {what} must be a str that says what is waited for, not {shown(value)}", call=call
        )


def check_sleep(call: str, machine: Machine, mtx: Mtx | None, kind: LockClass | None, blocking: bool) -> None:
    """Raise what would be wrong with a sleep here that releases *mtx*, which has to be of that kind (None: none is)."""
    refuse_loop(call, machine, blocking=blocking)
    if kind is not None:
        _check_mutex(call, machine, mtx, kind)
    if machine.held is not None:
        for lock in machine.held.get(machine.platform.current_thread(), ()):
            if lock is not mtx and lock is not machine.giant:
                raise SleepError(
                    f"{call}: release {lock!r} first: nobody may sleep with a mutex held", call=call, lock=lock
                )


def _check_mutex(call: str, machine: Machine, mtx: object, kind: LockClass) -> None:
    if not isinstance(mtx, Mtx):
        raise LockClassError(
            f"{call}: give the mutex, a callout.Mtx, that guards what is waited for, not {shown(mtx)}; "
            "tsleep() takes none",
            call=call,
        )
    if mtx.lock_class is not kind:
        what = "a spin mutex: use msleep_spin()" if kind is LockClass.MUTEX else "not a spin mutex: use msleep()"
        raise LockClassError(f"{call}: {mtx!r} is {what}", call=call)
    if mtx.machine is not machine:
        raise ArgumentValueError(
            f"{call}: {mtx!r} belongs to another callout system than the one that is current here", call=call, lock=mtx
        )
    if not mtx.owned():
        raise LockNotHeldError(f"{call}: acquire {mtx!r} first; it is released while this sleeps", call=call, lock=mtx)
    if mtx is not machine.giant and mtx.recursed():
        raise LockError(f"{call}: {mtx!r} is recursed, and could not be released by one unlock", call=call, lock=mtx)


# -- sleeping ------------------------------------------------------------------------------------------------------


async def sleep(
    call: str,
    machine: Machine,
    chan: object,
    mtx: Mtx | None,
    until: Timeout | None,
    *,
    drop: bool = False,
    blocking: bool = False,
    look: Callable[[], object] | None = None,
) -> int:
    """Sleep until woken, or *until* that time; return ``WOKEN`` or ``TIMED_OUT``. *chan* None: nobody can wake it.

    *mtx*, which this thread holds, and Giant are released in one step with falling asleep, and acquired again, parked
    and shielded, however the sleep ends; *mtx* not with *drop*. *blocking*: block the thread, and never yield. *look*
    raises if nothing can wake this any more: it is called when this is on its queue, and again if *chan* was freed.

    Raises:
        ClosedError: the machine was closed meanwhile.
    """
    platform = machine.platform
    new_waiter = platform.thread_waiter if blocking else platform.waiter
    if machine.witness is not None and mtx is not None and not drop:
        _check_order(call, machine, machine.witness, mtx)
    queues = queues_of(machine)
    sleeper = enlist(call, machine, new_waiter)
    alarm = None
    try:
        if chan is not None:
            queues.join(chan, sleeper)
            if look is not None:
                look()
        if until is not None:
            alarm = _alarm(call, machine, sleeper, until)
        depth = machine.giant.drop_all()
        if mtx is machine.giant:
            mtx, depth = None, 0 if drop else depth
        released = False
        try:
            if mtx is not None:
                mtx.__exit__()
                released = not drop
            await sleeper.wait()
        except BaseException:
            if not claim(machine, sleeper) and sleeper.why not in (Why.TIMEOUT, Why.CLOSE):
                wakeup_one(machine, chan)  # it was woken and cannot act on it: the next one's turn
            raise
        finally:
            with nullcontext() if blocking else platform.shield():
                if depth:
                    await _reacquire(machine.giant, depth, new_waiter)
                if mtx is not None and released:
                    await _reacquire(mtx, 1, new_waiter)
    finally:
        claim(machine, sleeper)
        if chan is not None:
            queues.leave(chan, sleeper)
        if alarm is not None:
            try:
                callout_stop(alarm)
            except ClosedError:
                pass  # the close has stopped it
        freed = sleeper in queues.disowned
        queues.disowned.discard(sleeper)
    if freed and look is not None:
        look()
    if sleeper.why is Why.CLOSE:
        raise ClosedError(f"{call}: the callout system was closed while this slept", call=call)
    if sleeper.why is not Why.TIMEOUT:
        return WOKEN
    platform.timed_out()
    return TIMED_OUT


protected(sleep)


def _check_order(call: str, machine: Machine, witness: Witness, mtx: Mtx) -> None:
    """Raise if *mtx* must not be acquired again after Giant, which is released as well, and acquired again first."""
    giant = machine.giant
    if mtx is not giant and giant.owned() and giant.kind is not None and mtx.kind is not None:
        witness.acquire_again(call, mtx, mtx.kind, giant.kind)


def _alarm(call: str, machine: Machine, sleeper: Sleeper, until: Timeout) -> Callout:
    """Return a callout that ends the sleep of *sleeper*."""
    alarm = Callout()
    initialize(call, machine, alarm, None, 0)

    def ring(_: None) -> None:
        wake(machine, sleeper, Why.TIMEOUT)

    arm(call, alarm, until.when, until.precision, ring, None, machine.cpus[0], direct=True)
    return alarm


@protected
def wakeup(machine: Machine, chan: object) -> None:
    """Wake all that sleep on *chan*."""
    for sleeper in queues_of(machine).take(chan, everybody=True):
        wake(machine, sleeper, Why.EVENT)


@protected
def disown(machine: Machine, chan: object) -> None:
    """Wake all that sleep on *chan*, because it was freed: they find out. Carried out twice it does no more."""
    queues = queues_of(machine)
    for sleeper in queues.sleepers(chan):
        if sleeper.why is None:
            queues.disowned.add(sleeper)
            if not wake(machine, sleeper, Why.EVENT):
                queues.disowned.discard(sleeper)  # something else wakes it


@protected
def wakeup_one(machine: Machine, chan: object) -> None:
    """Wake the one that has slept on *chan* for longest."""
    queues = queues_of(machine)
    while taken := queues.take(chan, everybody=False):
        if wake(machine, taken[0], Why.EVENT):
            return
