"""The names of sleep(9): fall asleep on a channel with a mutex released, be woken, or wake by oneself after a time.

What blocks in C is awaited here; a thread without a loop has the twin whose name ends in ``_sync``. Results are those
of C: 0, or ``errno.EWOULDBLOCK`` when the time was over. A cancelled sleep, and one whose system is closed, raises; in
every case the mutex is held again then, as in C, so ``with mtx: await msleep(...)`` is right.

A channel is any object that sleeper and waker both have, told apart by identity. As in the kernel a woken sleeper may
find that what it waited for has gone again: sleep in a loop that looks.

Source: sleep(9); kern_synch.c, _sleep(), pause_sbt(), wakeup().
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from .._core.deadline import after_ticks
from .._core.describe import shown
from .._core.drain import run_blocking
from .._core.errors import ArgumentTypeError, ArgumentValueError
from .._core.machine import Machine, current_machine
from .._core.rules import LockClass
from .._core.units import C_ALL, C_DIRECT_EXEC, check_flags, check_sbt, check_ticks, exact_int
from .._locks.mutex import Mtx
from . import sleepqueue
from .awaitable import must_await
from .callout9 import _in_sbt
from .sleepqueue import Timeout, check_chan, check_sleep, check_str, sleep

PCATCH: Final = 0x100
PDROP: Final = 0x200
PRIMASK: Final = 0x0FF
_PRIORITY: Final = PRIMASK | PCATCH | PDROP
_FLAGS: Final = C_ALL & ~C_DIRECT_EXEC  # a timeout is direct in any case


def _ticks(call: str, machine: Machine, timo: int, *, least: int) -> Timeout | None:
    """Return the time *timo* ticks from now; None for 0 unless *least* says that 0 counts as more."""
    timo = check_ticks(call, timo)
    if timo < 0:
        raise ArgumentValueError(f"{call}: timo must not be negative, got {shown(timo)}", call=call)
    timo = max(timo, least)
    return Timeout(after_ticks(machine, machine.platform.now(), timo), 0) if timo else None


def _sbt(call: str, machine: Machine, sbt: int, pr: int, flags: int, *, least: int) -> Timeout | None:
    """Return the time that *sbt*, *pr* and *flags* mean."""
    flags = check_flags(call, flags, _FLAGS)
    sbt = check_sbt(call, "sbt", sbt)
    when, precision, _ = _in_sbt(call, machine, sbt, pr, flags)
    if sbt:
        return Timeout(when, precision)
    return Timeout(after_ticks(machine, machine.platform.now(), 1), 0) if least else None


def _drop(call: str, priority: int) -> bool:
    exact = exact_int(priority)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: priority must be an int, or'ed with PCATCH or PDROP, not {shown(priority)}", call=call
        )
    if exact & ~_PRIORITY:
        raise ArgumentValueError(
            f"{call}: unknown flag {exact & ~_PRIORITY:#x} in priority; PCATCH and PDROP are known", call=call
        )
    return bool(exact & PDROP)


class _Call:
    """One call of the family: its arguments, checked, and the sleep that they mean."""

    __slots__ = ("_blocking", "_call", "_chan", "_drop", "_kind", "_machine", "_mtx", "_timeout")

    def __init__(
        self,
        call: str,
        wmesg: str,
        chan: object,
        mtx: Mtx | None,
        *,
        priority: int = 0,
        kind: LockClass | None = LockClass.MUTEX,
        timo: int = 0,
        sbt: tuple[int, int, int] | None = None,
        pause: bool = False,
    ) -> None:
        machine = self._machine = current_machine(call)
        check_str(call, "wmesg", wmesg)
        if not pause:
            check_chan(call, chan)
        self._drop = _drop(call, priority)
        if sbt is None:
            self._timeout = _ticks(call, machine, timo, least=int(pause))
        else:
            self._timeout = _sbt(call, machine, *sbt, least=int(pause))
        self._blocking = call.endswith("_sync")
        check_sleep(call, machine, mtx, kind, self._blocking)
        self._call, self._chan, self._mtx, self._kind = call, chan, mtx, kind

    async def _sleep(self) -> int:
        # Again: since the call the mutex may have been released, or another acquired.
        check_sleep(self._call, self._machine, self._mtx, self._kind, self._blocking)
        return await sleep(
            self._call,
            self._machine,
            self._chan,
            self._mtx,
            self._timeout,
            drop=self._drop,
            blocking=self._blocking,
        )

    def awaited(self) -> Coroutine[Any, Any, int]:
        """Return what is to be awaited."""
        return must_await(self._call, self._sleep())

    def blocked(self) -> int:
        """Block the thread."""
        return run_blocking(self._sleep())


# -- with a mutex --------------------------------------------------------------------------------------------------


def msleep(chan: object, mtx: Mtx, priority: int, wmesg: str, timo: int, /) -> Coroutine[Any, Any, int]:
    """Release *mtx* and sleep on *chan*, in one step; *mtx* is acquired again before this returns.

    *timo*: after so many ticks it ends by itself; 0: never. *priority* is not used, but ``PDROP`` in it leaves the
    mutex released in the end. *wmesg* says what is waited for. Giant is released
    meanwhile, too, however often it is held.

    Returns 0 when woken by ``wakeup()`` or ``wakeup_one()``, ``errno.EWOULDBLOCK`` when the time was over.

    Raises:
        LockNotHeldError, LockError: this thread does not hold *mtx*, or more than once.
        LockClassError: *mtx* is a spin mutex, or no ``Mtx``.
        SleepError: in checking mode, the caller holds another lock.
        ArgumentTypeError, ArgumentValueError: *chan* has no identity of its own (a number, a string, a bound method);
            *timo* is negative; unknown flag.
        LoopError: this is a task of asyncio, but ``callout.guest`` has not opened the system.
        ClosedError: the system was closed while it slept.

    See sleep(9), ``msleep()``.
    """
    return _Call("msleep", wmesg, chan, mtx, priority=priority, timo=timo).awaited()


def msleep_sync(chan: object, mtx: Mtx, priority: int, wmesg: str, timo: int, /) -> int:
    """Do as ``msleep()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("msleep_sync", wmesg, chan, mtx, priority=priority, timo=timo).blocked()


def msleep_sbt(
    chan: object, mtx: Mtx, priority: int, wmesg: str, sbt: int, pr: int, flags: int = 0, /
) -> Coroutine[Any, Any, int]:
    """Sleep as ``msleep()`` does, for *sbt* at most, late by *pr* at most, both in sbintime; 0: without an end.

    *flags* as for ``callout_reset_sbt()``, but ``C_DIRECT_EXEC``, which is refused: there is no callback. See sleep(9),
    ``msleep_sbt()``.
    """
    return _Call("msleep_sbt", wmesg, chan, mtx, priority=priority, sbt=(sbt, pr, flags)).awaited()


def msleep_sbt_sync(chan: object, mtx: Mtx, priority: int, wmesg: str, sbt: int, pr: int, flags: int = 0, /) -> int:
    """Do as ``msleep_sbt()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("msleep_sbt_sync", wmesg, chan, mtx, priority=priority, sbt=(sbt, pr, flags)).blocked()


def msleep_spin(chan: object, mtx: Mtx, wmesg: str, timo: int, /) -> Coroutine[Any, Any, int]:
    """Sleep as ``msleep()`` does, with a spin mutex. See sleep(9), ``msleep_spin()``."""
    return _Call("msleep_spin", wmesg, chan, mtx, kind=LockClass.SPIN, timo=timo).awaited()


def msleep_spin_sync(chan: object, mtx: Mtx, wmesg: str, timo: int, /) -> int:
    """Do as ``msleep_spin()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("msleep_spin_sync", wmesg, chan, mtx, kind=LockClass.SPIN, timo=timo).blocked()


# -- without -------------------------------------------------------------------------------------------------------


def tsleep(chan: object, priority: int, wmesg: str, timo: int, /) -> Coroutine[Any, Any, int]:
    """Sleep as ``msleep()`` does, with no mutex but Giant: what Giant does not guard may change before it sleeps.

    See sleep(9), ``tsleep()``.
    """
    return _Call("tsleep", wmesg, chan, None, kind=None, priority=priority, timo=timo).awaited()


def tsleep_sync(chan: object, priority: int, wmesg: str, timo: int, /) -> int:
    """Do as ``tsleep()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("tsleep_sync", wmesg, chan, None, kind=None, priority=priority, timo=timo).blocked()


def pause(wmesg: str, timo: int, /) -> Coroutine[Any, Any, int]:
    """Sleep for *timo* ticks, 0 counting as one. Nobody can wake it. Hold no lock but Giant.

    Returns ``errno.EWOULDBLOCK``, always. See sleep(9), ``pause()``.
    """
    return _Call("pause", wmesg, None, None, kind=None, timo=timo, pause=True).awaited()


def pause_sync(wmesg: str, timo: int, /) -> int:
    """Do as ``pause()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("pause_sync", wmesg, None, None, kind=None, timo=timo, pause=True).blocked()


def pause_sbt(wmesg: str, sbt: int, pr: int, flags: int = 0, /) -> Coroutine[Any, Any, int]:
    """Sleep for *sbt*, and *pr* more at most, both in sbintime; 0 counts as one tick. Nobody can wake it. Hold no lock
    but Giant.

    *flags* as for ``callout_reset_sbt()``, but ``C_DIRECT_EXEC``, which is refused: there is no callback. Returns
    ``errno.EWOULDBLOCK``, always. See sleep(9), ``pause_sbt()``.
    """
    return _Call("pause_sbt", wmesg, None, None, kind=None, sbt=(sbt, pr, flags), pause=True).awaited()


def pause_sbt_sync(wmesg: str, sbt: int, pr: int, flags: int = 0, /) -> int:
    """Do as ``pause_sbt()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return _Call("pause_sbt_sync", wmesg, None, None, kind=None, sbt=(sbt, pr, flags), pause=True).blocked()


# -- waking --------------------------------------------------------------------------------------------------------


def wakeup(chan: object, /) -> None:
    """Wake all that sleep on *chan*, tasks and threads. Never blocks.

    From any thread, callback or call of the system; change what they wait for first, under the mutex that they
    released.

    Raises:
        ArgumentTypeError: *chan* has no identity of its own.

    See sleep(9), ``wakeup()``.
    """
    machine = current_machine("wakeup")
    check_chan("wakeup", chan)
    sleepqueue.wakeup(machine, chan)


def wakeup_one(chan: object, /) -> None:
    """Wake the one that has slept on *chan* for longest. Never blocks.

    If it is cancelled before it runs, the next is woken instead. See sleep(9), ``wakeup_one()``.
    """
    machine = current_machine("wakeup_one")
    check_chan("wakeup_one", chan)
    sleepqueue.wakeup_one(machine, chan)


__all__ = [
    "PCATCH",
    "PDROP",
    "msleep",
    "msleep_sbt",
    "msleep_sbt_sync",
    "msleep_spin",
    "msleep_spin_sync",
    "msleep_sync",
    "pause",
    "pause_sbt",
    "pause_sbt_sync",
    "pause_sync",
    "tsleep",
    "tsleep_sync",
    "wakeup",
    "wakeup_one",
]
