"""Every exception of the package; imports nothing.

Where the kernel panics or asserts, we raise one of these, and we raise it before anything has changed.
Each is also the builtin that fits (``TypeError``, ``ValueError``, ``RuntimeError``), so that callers who do not know
this module can still catch it.
"""

from __future__ import annotations


class CalloutError(Exception):
    """Base class of everything that this package raises on purpose.

    Its attributes say what the text says: ``call``, the function of the API ("" if there is none to name), and the
    ``callout``, the ``lock`` and the number of the ``cpu`` that it is about, each None if there is none.
    """

    def __init__(
        self, *args: object, call: str = "", callout: object = None, lock: object = None, cpu: int | None = None
    ) -> None:
        super().__init__(*args)
        self.call = call
        self.callout = callout
        self.lock = lock
        self.cpu = cpu


class ArgumentTypeError(CalloutError, TypeError):
    """An argument is of the wrong type: a coroutine function as callback, ticks or a CPU that is not an int."""


class ArgumentValueError(CalloutError, ValueError):
    """An argument is of the right type but out of range: a CPU that is not there, a negative or over-large time."""


class NoSystemError(CalloutError, RuntimeError):
    """There is no current system: the code does not run inside ``async with open_callouts()``."""


class NotInitializedError(CalloutError, RuntimeError):
    """The callout was never given to ``callout_init()`` or one of its relatives."""


class NeverArmedError(CalloutError, RuntimeError):
    """``callout_schedule()`` before any ``callout_reset()``: there is no function to call yet.

    FreeBSD accepts this and calls a NULL function later.
    """


class BusyError(CalloutError, RuntimeError):
    """In use: a callout that is pending or running, which the call would pull out from under the engine; a condition
    variable with waiters; a block that is entered a second time.
    """


class ClosedError(CalloutError, RuntimeError):
    """The system was closed: its ``async with open_callouts()`` block has been left."""


class ForkedError(CalloutError, RuntimeError):
    """The system belongs to the parent process: its loops and threads do not exist in a forked child."""


class ReentrantCallError(CalloutError, RuntimeError):
    """A finalizer, weakref callback or signal handler interrupted the engine on this thread and called it again.

    Nothing has changed: neither what was interrupted nor what was asked for. Waiting here would never end.
    """


class LockError(CalloutError, RuntimeError):
    """A lock was used against its rules: acquired twice, released by another thread, used after it was destroyed."""


class LockNotHeldError(LockError):
    """The call needs a lock that this thread does not hold (the kernel: ``mtx_assert(m, MA_OWNED)`` fails)."""


class LockHeldError(LockError):
    """The call may sleep, or acquires this very lock, and this thread holds it: the wait could never end."""


class LockDestroyedError(LockError):
    """The lock was destroyed."""


class LockOrderError(LockError):
    """In checking mode: locks, and callbacks that are waited for, are acquired in orders that contradict one another.

    It is raised when such a deadlock first becomes possible, though none has happened. The text names where each step
    of the cycle was first seen.
    """


class LockClassError(CalloutError, TypeError):
    """A lock of this class may not do this: a sleepable lock for a callout, direct execution under a mutex."""


class SelfDrainError(CalloutError, RuntimeError):
    """A callback waits for its own callout: that can never end."""


class CallbackLockError(CalloutError, RuntimeError):
    """A callback returned with its callout's lock in the wrong state (see ``CALLOUT_RETURNUNLOCKED``)."""


class CallbackCancelledError(CalloutError, RuntimeError):
    """A callback raised ``trio.Cancelled``, though nothing that could have been cancelled ran it.

    It is its ``__cause__``. A ``Cancelled`` of its own would be taken for the cancellation of the block.
    """


class LoopError(CalloutError, RuntimeError):
    """``open_callouts()`` or a wait outside of trio: in a task of asyncio, or where no loop runs at all."""


class GuestError(CalloutError, RuntimeError):
    """``callout.guest.open_callouts()`` where it cannot be: outside asyncio, in a task of trio, in a loop that has a
    system already; or a wait for its callouts, or ``open_nursery()``, in a task of another loop of asyncio.
    """


class SleepError(CalloutError, RuntimeError):
    """A task awaited while its thread held a mutex: mutexes are held for plain code only, never across an await."""


class NotAwaitedError(CalloutError, TypeError):
    """What has to be awaited was used as if it were the result: an ``await`` is missing."""


class LoopThreadError(CalloutError, RuntimeError):
    """A blocking call from a thread that runs an event loop: it would stop the loop that it waits for."""


class ClockError(CalloutError, RuntimeError):
    """The clock of this trio run cannot drive what was asked for (a mock clock drives one CPU only)."""


class CoreError(CalloutError, ImportError):
    """The compiled core belongs to another Python or to other sources; or ``CALLOUT_PURE`` says neither 0 nor 1."""


class MissingExtraError(CalloutError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class DeadlockError(CalloutError, RuntimeError):
    """On the virtual platform: someone waits, and nothing is left that could wake them."""


class LivelockError(CalloutError, RuntimeError):
    """On the virtual platform: the run did not come to an end within the allowed number of steps."""


class TraceError(CalloutError, ValueError):
    """A conformance trace cannot be read; the message gives file, line and reason."""


class LeakError(CalloutError, RuntimeError):
    """In an exploration: an object was not returned to its ``Slab`` when everything had ended."""


class ResultError(CalloutError, RuntimeError):
    """In an exploration: no order of the calls for a callout explains what they have returned, or what ran."""


class UseAfterFree(CalloutError, RuntimeError):  # noqa: N818 - the field's name for it
    """An object was used after it was returned to its ``Slab``."""
