"""A CPU's lock, or two: the one place where they are acquired, and looked at again.

- The CPU of a callout is read without a lock, so it is read again under that CPU's lock: meanwhile another CPU may have
  moved the callout, and then the lock guards nothing of it. Shown by tests/race/test_matrix.py with the mutant
  NO_CPU_RECHECK. Source: callout_lock() of kern_timeout.c.
- Two CPUs are locked in the order of their numbers.
- The lock of a closed CPU is replaced by a ``Refusal``, which raises; so what was acquired is compared with what is
  there now, and a thread that waited for a lock that was replaced meanwhile finds that out.
- A signal handler, a finalizer or a weakref callback may interrupt the engine and call it again on the same thread. The
  lock is recursive, so that this does not wait for its own thread for ever; ``Cpu.busy`` says that the work of the
  holder was interrupted half way, and the second call is refused before it has changed anything.

What acquires a lock releases it in this way, spelled out because a call would be a place to be interrupted in::

    cpu = lock_callout(c)
    try:
        ...
    finally:
        cpu.busy = False
        cpu.lock.release()

An exception that a signal handler raises may hit between any two calls. ``acquire()`` leaves the lock released then;
the work under it makes its calls first, and what it changes, it changes by plain stores with no call between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from . import frames
from .cpu import Cpu
from .errors import ReentrantCallError
from .guard import protect
from .rawlock import RawLock
from .refusal import Refusal

if TYPE_CHECKING:
    from .._api.callout import Callout


def acquire(cpu: Cpu, call: str = "") -> None:
    """Acquire the lock of *cpu*, in the name of *call*. Raises what refuses it: ClosedError, ForkedError or
    NotInitializedError.
    """
    while True:
        lock = cpu.lock
        try:
            lock.acquire()
        except BaseException:
            release_if_owned(lock, call)
            raise
        if cpu.lock is lock:
            if cpu.busy:
                lock.release()
                refuse_reentry(cpu, call)
            cpu.busy = True
            return
        lock.release()


def release_if_owned(lock: RawLock, call: str = "") -> None:
    """Release *lock* if an exception came between its being acquired and that being known. If it refuses, have it say
    so in the name of *call*: what is compiled leaves no frame to be read.
    """
    if lock._is_owned():
        lock.release()
    elif call and type(lock) is Refusal:
        lock.refuse(call)


def refuse_reentry(cpu: Cpu, call: str = "") -> NoReturn:
    """Raise, in the name of *call*. The caller has released the lock, which it acquired a second time."""
    call = call or frames.entry()
    raise ReentrantCallError(
        f"{call}() was called by a finalizer, weakref callback or signal handler that interrupted the engine on this "
        "thread in the middle of another call, and cannot be done before that has ended; "
        "hand it to the loop instead: system.cpu(0).call(function, *args)",
        call=call,
        cpu=cpu.id,
    )


def acquire_both(cpu: Cpu, other: Cpu, call: str = "") -> None:
    """Acquire the locks of two CPUs, which may be one, in the order of their numbers."""
    if cpu is other:
        acquire(cpu, call)
        return
    first, second = (cpu, other) if cpu.id < other.id else (other, cpu)
    acquire(first, call)
    try:
        acquire(second, call)
    except BaseException:
        first.busy = False
        first.lock.release()
        raise


def lock_callout(c: Callout, call: str = "") -> Cpu:
    """Acquire the lock of the CPU that *c* is on, and return that CPU."""
    while True:
        cpu = c.c_cpu
        acquire(cpu, call)
        if c.c_cpu is cpu:
            return cpu
        cpu.busy = False
        cpu.lock.release()


def lock_callout_and(c: Callout, to: Cpu, call: str = "") -> Cpu:
    """Acquire the lock of the CPU that *c* is on and that of *to*, and return the former."""
    while True:
        cpu = c.c_cpu
        acquire_both(cpu, to, call)
        if c.c_cpu is cpu:
            return cpu
        try:
            if to is not cpu:
                to.busy = False
                to.lock.release()
        finally:
            cpu.busy = False
            cpu.lock.release()


protect(acquire, acquire_both, lock_callout, lock_callout_and)
