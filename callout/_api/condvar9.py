"""The names of condvar(9): condition variables, on the same queues as sleep(9).

What blocks in C is awaited here; a thread without a loop has the twin whose name ends in ``_sync``. The mutex is
released in one step with falling asleep, and held again when the wait is over, however it ends. A woken waiter may find
that its condition has gone again: wait in a loop that tests the condition.

Source: condvar(9); kern_condvar.c.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from .._core.deadline import after_ticks
from .._core.describe import shown
from .._core.drain import run_blocking
from .._core.errors import ArgumentTypeError, ArgumentValueError, BusyError, LockDestroyedError
from .._core.machine import current_machine
from .._core.rules import LockClass
from .._core.units import check_ticks
from .._locks.mutex import Mtx
from . import sleepqueue
from .awaitable import must_await
from .sleepqueue import Timeout, check_sleep, check_str, queues_of, sleep


class Cv:
    """A condition variable, to be embedded in what it belongs to. It is used with the mutex that guards its condition,
    by ``cv_wait()``, ``cv_signal()`` and their relatives. See condvar(9).
    """

    __slots__ = ("__weakref__", "_destroyed", "_machine", "name")

    def __init__(self, name: str = "cv") -> None:
        """Make a condition variable of the current system. Never blocks.

        Raises:
            NoSystemError: no system is open here.
            ArgumentTypeError: *name* is not a str.
        """
        self._machine = current_machine("Cv")
        check_str("Cv", "name", name)
        self._destroyed = False
        self.name = name

    def __repr__(self) -> str:
        return f"<Cv {self.name!r}>"


def _check(call: str, cv: Cv) -> None:
    if not isinstance(cv, Cv):
        raise ArgumentTypeError(f"{call}: the first argument must be a Cv, not {shown(cv)}", call=call)
    if cv._destroyed:
        raise LockDestroyedError(f"{call}: {cv!r} was destroyed", call=call)
    if cv._machine is not current_machine(call):
        raise ArgumentValueError(
            f"{call}: {cv!r} belongs to another callout system than the one that is current here", call=call
        )


def _check_wait(call: str, cv: Cv, mtx: Mtx) -> None:
    _check(call, cv)
    check_sleep(call, cv._machine, mtx, LockClass.MUTEX, call.endswith("_sync"))


def _until(call: str, cv: Cv, timo: int) -> Timeout:
    """Return the time *timo* ticks from now."""
    machine = cv._machine
    return Timeout(after_ticks(machine, machine.platform.now(), check_ticks(call, timo)), 0)


async def _wait(call: str, cv: Cv, mtx: Mtx, until: Timeout | None) -> int:
    _check_wait(call, cv, mtx)  # again: what was right at the call may not be so now
    # On its queue it looks at cv again: from then on a destruction finds it there, and so does free() of a Slab.
    return await sleep(
        call, cv._machine, cv, mtx, until, blocking=call.endswith("_sync"), look=partial(_check, call, cv)
    )


async def _wait_for_ever(cv: Cv, mtx: Mtx) -> None:
    await _wait("cv_wait", cv, mtx, None)


def cv_init(desc: str, /) -> Cv:
    """Return a new condition variable of the current system. Never blocks. See condvar(9), ``cv_init()``."""
    current_machine("cv_init")
    check_str("cv_init", "desc", desc)
    return Cv(desc)


def cv_destroy(cv: Cv, /) -> None:
    """Make every later use an error. Never blocks.

    Raises:
        BusyError: somebody waits for it.

    See condvar(9), ``cv_destroy()``.
    """
    _check("cv_destroy", cv)
    if queues_of(cv._machine).occupied(cv):
        raise BusyError(f"cv_destroy: somebody waits for {cv!r}; wake all with cv_broadcast() first", call="cv_destroy")
    cv._destroyed = True


def cv_wait(cv: Cv, mtx: Mtx, /) -> Coroutine[Any, Any, None]:
    """Release *mtx* and wait for *cv*, in one step; *mtx* is acquired again before this returns.

    Raises:
        LockNotHeldError, LockError: this thread does not hold *mtx*, or more than once.
        LockClassError: *mtx* is a spin mutex, or no ``Mtx``.
        SleepError: in checking mode, the caller holds another lock.
        LockDestroyedError: *cv* was destroyed.
        LoopError: this is a task of asyncio, but ``callout.guest`` has not opened the system.
        ClosedError: the system was closed while it waited.

    See condvar(9), ``cv_wait()``.
    """
    _check_wait("cv_wait", cv, mtx)
    return must_await("cv_wait", _wait_for_ever(cv, mtx))


def cv_wait_sync(cv: Cv, mtx: Mtx, /) -> None:
    """Do as ``cv_wait()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    run_blocking(_wait("cv_wait_sync", cv, mtx, None))


def cv_timedwait(cv: Cv, mtx: Mtx, timo: int, /) -> Coroutine[Any, Any, int]:
    """Wait as ``cv_wait()`` does, for *timo* ticks at most; non-positive ticks count as one.

    Returns 0 when woken, ``errno.EWOULDBLOCK`` when the time was over. See condvar(9), ``cv_timedwait()``.
    """
    _check_wait("cv_timedwait", cv, mtx)
    return must_await("cv_timedwait", _wait("cv_timedwait", cv, mtx, _until("cv_timedwait", cv, timo)))


def cv_timedwait_sync(cv: Cv, mtx: Mtx, timo: int, /) -> int:
    """Do as ``cv_timedwait()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    _check_wait("cv_timedwait_sync", cv, mtx)
    return run_blocking(_wait("cv_timedwait_sync", cv, mtx, _until("cv_timedwait_sync", cv, timo)))


def cv_signal(cv: Cv, /) -> None:
    """Wake the one that has waited for *cv* for longest. Never blocks. See condvar(9), ``cv_signal()``."""
    _check("cv_signal", cv)
    sleepqueue.wakeup_one(cv._machine, cv)


def cv_broadcast(cv: Cv, /) -> None:
    """Wake all that wait for *cv*. Never blocks. See condvar(9), ``cv_broadcast()``."""
    _check("cv_broadcast", cv)
    sleepqueue.wakeup(cv._machine, cv)


__all__ = [
    "Cv",
    "cv_broadcast",
    "cv_destroy",
    "cv_init",
    "cv_signal",
    "cv_timedwait",
    "cv_timedwait_sync",
    "cv_wait",
    "cv_wait_sync",
]
