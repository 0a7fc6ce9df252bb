"""``struct timer_list`` and the calls that take one, as in Linux 6.12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from callout import (
    ARM_IF_EARLIER,
    ARM_IF_IDLE,
    ARM_IF_PENDING,
    ARM_STAY,
    ARM_UNCHANGED,
    CALLOUT_REMOVED,
    CALLOUT_RUNNING,
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    CalloutError,
    NotInitializedError,
    callout_arm_curcpu,
    callout_arm_on,
    callout_armed_with,
    callout_dequeue,
    callout_pending,
    callout_running,
    callout_terminated,
)

from .._base import (
    ADD,
    TimerBase,
    Waiting,
    check_function,
    check_timer,
    fail,
    quiesce,
    quiesce_blocking,
    refuse_not_set_up,
    refuse_pending,
    run_function,
    set_up,
)
from .._jiffies import Variable, check_jiffies, exact_int, shown

TIMER_DEFERRABLE: Final = 0x0008_0000
TIMER_PINNED: Final = 0x0010_0000
TIMER_IRQSAFE: Final = 0x0020_0000
TIMER_INIT_FLAGS: Final = TIMER_DEFERRABLE | TIMER_PINNED | TIMER_IRQSAFE

_MOD: Final = ARM_STAY | ARM_UNCHANGED
_MOD_PENDING: Final = _MOD | ARM_IF_PENDING
_REDUCE: Final = _MOD | ARM_IF_EARLIER


class timer_list(TimerBase):  # noqa: N801 - the kernel's name
    """A timer, to be embedded in what it belongs to. ``timer_setup()`` makes it usable, ``add_timer()`` or
    ``mod_timer()`` starts it.

    ``expires`` (in jiffies) and ``function`` may be read and written, ``flags`` (``TIMER_*``) read. A function that
    wants its timer's owner, for which C has ``from_timer()`` and ``container_of()``, is best a method of that owner:
    ``timer_setup(self.timer, self.poll, 0)``.
    """

    __slots__ = ("flags",)

    def __init__(self) -> None:
        """Make a timer that was not set up yet. Never blocks."""
        super().__init__()
        self.flags = 0

    @property
    def function(self) -> Callable[[timer_list], object] | None:
        """What is called, with the timer, when it falls due; None before ``timer_setup()`` and after a shutdown."""
        try:
            return None if callout_terminated(self.entry) else self._function
        except NotInitializedError:
            return self._function

    @function.setter
    def function(self, value: Callable[[timer_list], object]) -> None:
        check_function("timer.function", value)
        self._function = value

    def __call__(self, expires: int) -> None:
        """Be the callback of the timer's callout."""
        function = self._function
        assert function is not None
        run_function(function, self)


def timer_setup(timer: timer_list, function: Callable[[timer_list], object], flags: int = 0, /) -> None:
    """Make *timer* a timer of the current system that calls ``function(timer)``. Never blocks.

    *flags* are ``TIMER_DEFERRABLE``, ``TIMER_PINNED``, ``TIMER_IRQSAFE``; they are kept and change nothing here. A
    timer that was shut down lives again.

    Raises:
        NoSystemError: no system is open here.
        BusyError: *timer* is pending or running.
        ArgumentTypeError: *function* is a coroutine function or not callable.
        ArgumentValueError: unknown flag.

    See timer_setup() of include/linux/timer.h.
    """
    _set_up("timer_setup", timer, function, flags)


def DEFINE_TIMER(function: Callable[[timer_list], object], /) -> timer_list:  # noqa: N802 - the kernel's name
    """Return a new timer, set up by ``timer_setup()`` without flags. Never blocks."""
    timer = timer_list()
    _set_up("DEFINE_TIMER", timer, function, 0)
    return timer


def timer_setup_on_stack(timer: timer_list, function: Callable[[timer_list], object], flags: int = 0, /) -> None:
    """Do as ``timer_setup()``: a timer that is a local variable is like any other here. Never blocks."""
    _set_up("timer_setup_on_stack", timer, function, flags)


def _set_up(call: str, timer: timer_list, function: Callable[[timer_list], object], flags: int) -> None:
    check_function(call, function)
    exact = exact_int(flags)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: flags must be an int, or'ed together from TIMER_*, not {shown(flags)}", call=call
        )
    if exact & ~TIMER_INIT_FLAGS:
        raise ArgumentValueError(f"{call}: unknown flag {exact & ~TIMER_INIT_FLAGS:#x}", call=call)
    set_up(call, timer, timer_list)
    timer._function = function
    timer.flags = exact


def destroy_timer_on_stack(timer: timer_list, /) -> None:
    """Make *timer* one that was never set up: every later use is an error, until it is set up anew. Never blocks.

    The last call of a function for a timer that is its local variable, after ``timer_delete_sync()``.

    Raises:
        BusyError: it is pending or running (Linux: a warning, if it checks).
        NotInitializedError: it was never set up.
    """
    refuse_not_set_up("destroy_timer_on_stack", timer)
    if callout_pending(timer.entry) or callout_running(timer.entry):
        raise BusyError(
            f"destroy_timer_on_stack: {timer!r} is in use; await timer_delete_sync() first",
            call="destroy_timer_on_stack",
            callout=timer,
        )
    timer.forget()


def timer_pending(timer: timer_list, /) -> int:
    """Return 1 if *timer* is armed and its function has not begun, else 0. Never blocks.

    Without a lock of your own the result may be out of date when it is returned.

    Raises:
        NotInitializedError: it was never set up.
    """
    check_timer("timer_pending", timer)
    try:
        return callout_pending(timer.entry)
    except CalloutError as error:
        fail("timer_pending", timer, error)


# -- arming --------------------------------------------------------------------------------------------------------


def _add(call: str, timer: timer_list, pinned: int | None, arm: Callable[..., int], *where_and_how: int) -> None:
    """Start *timer*, with ``TIMER_PINNED`` as *pinned* has it or, for None, as it is; if refused, all is as before."""
    check_timer(call, timer, timer_list)
    expires, flags = timer.expires, timer.flags
    if pinned is not None:
        timer.flags = flags & ~TIMER_PINNED | pinned
    try:
        facts = arm(timer.entry, expires + 1, timer, expires, *where_and_how)
        refuse_pending(call, timer, facts)
    except CalloutError as error:
        timer.flags = flags
        fail(call, timer, error)


def add_timer(timer: timer_list, /) -> None:
    """Start *timer*, to fall due at ``timer.expires`` on the CPU on which this code runs. Never blocks.

    Its function is called at the tick after ``expires``, at the next one if that has passed. If it runs at present it
    stays on the CPU where it runs. A timer that was shut down is silently left alone.

    Raises:
        BusyError: it is pending already (Linux: a warning); nothing has changed.
        NotInitializedError: it was never set up.
    """
    _add("add_timer", timer, None, callout_arm_curcpu, ADD)


def add_timer_local(timer: timer_list, /) -> None:
    """Start *timer* as ``add_timer()`` does, and set ``TIMER_PINNED``. Never blocks."""
    _add("add_timer_local", timer, TIMER_PINNED, callout_arm_curcpu, ADD)


def add_timer_global(timer: timer_list, /) -> None:
    """Start *timer* as ``add_timer()`` does, and clear ``TIMER_PINNED``. Never blocks."""
    _add("add_timer_global", timer, 0, callout_arm_curcpu, ADD)


def add_timer_on(timer: timer_list, cpu: int, /) -> None:
    """Start *timer* as ``add_timer()`` does, on CPU number *cpu*, and set ``TIMER_PINNED``. Never blocks.

    If it runs on another CPU it moves when that run has ended. Linux moves it at once, and may then run its function
    on two CPUs at the same time.

    Raises:
        BusyError, NotInitializedError: as ``add_timer()``.
        ArgumentTypeError, ArgumentValueError: *cpu* is not an int or not there.
    """
    _add("add_timer_on", timer, TIMER_PINNED, callout_arm_on, cpu, ARM_IF_IDLE)


def _mod(call: str, timer: timer_list, expires: int | Variable, how: int) -> int:
    check_timer(call, timer, timer_list)
    expires = check_jiffies(call, "expires", expires)
    try:
        facts = callout_arm_curcpu(timer.entry, expires + 1, timer, expires, how)
    except CalloutError as error:
        fail(call, timer, error)
    return facts & CALLOUT_REMOVED


def mod_timer(timer: timer_list, expires: int | Variable, /) -> int:
    """Arm *timer* for *expires*, in jiffies, pending or not, and bring it to the CPU on which this code runs. Never
    blocks.

    If it runs at present it stays on the CPU where it runs. A pending timer with this very ``expires`` is left where
    it is. A timer that was shut down is silently left alone.

    Returns 1 if it was pending, else 0: also if it was shut down, and so not started.

    Raises:
        ArgumentTypeError: *expires* is not an int.
        NotInitializedError: it was never set up.
    """
    if type(expires) is not int:
        expires = check_jiffies("mod_timer", "expires", expires)
    try:
        c = timer.entry
        assigned = timer._assigned
    except AttributeError:
        check_timer("mod_timer", timer)
        raise
    try:
        if assigned is not None:
            check_timer("mod_timer", timer, timer_list)
            timer.overwrite(expires)
        # As Linux does, before any lock: the commonest call of networking code changes nothing.
        if c.arg == expires and callout_armed_with(c, expires):
            return 1
        facts = callout_arm_curcpu(c, expires + 1, timer, expires, _MOD)
    except CalloutError as error:
        timer._assigned = assigned  # it was not armed
        fail("mod_timer", timer, error)
    return facts & CALLOUT_REMOVED


def mod_timer_pending(timer: timer_list, expires: int | Variable, /) -> int:
    """Do as ``mod_timer()`` if *timer* is pending, else nothing. Never blocks.

    Returns 1 if it was pending, else 0.
    """
    return _mod("mod_timer_pending", timer, expires, _MOD_PENDING)


def timer_reduce(timer: timer_list, expires: int | Variable, /) -> int:
    """Do as ``mod_timer()`` if *timer* is idle or pending for a later time; a pending one is never made later.
    Never blocks.

    Returns 1 if it was pending, whether it was moved or not, else 0.
    """
    return _mod("timer_reduce", timer, expires, _REDUCE)


# -- stopping ------------------------------------------------------------------------------------------------------


def timer_delete(timer: timer_list, /) -> int:
    """Disarm *timer*; if it runs, its function goes on and may arm it again. Never blocks.

    Returns 1 if it was pending, else 0: idle or running, this does not tell. Before you free anything use
    ``timer_delete_sync()``.

    Raises:
        NotInitializedError: it was never set up.
    """
    try:
        if type(timer) is not timer_list:
            check_timer("timer_delete", timer)
        return callout_dequeue(timer.entry) & CALLOUT_REMOVED
    except CalloutError as error:
        fail("timer_delete", timer, error)


def try_to_del_timer_sync(timer: timer_list, /) -> int:
    """Disarm *timer* unless it runs. Never blocks.

    Returns 1 if it was pending, 0 if not, -1 if it runs (here, too, when its own function asks): then it was left
    alone, pending or not.

    Raises:
        NotInitializedError: it was never set up.
    """
    check_timer("try_to_del_timer_sync", timer)
    try:
        facts = callout_dequeue(timer.entry, if_not_running=True)
    except CalloutError as error:
        fail("try_to_del_timer_sync", timer, error)
    return -1 if facts & CALLOUT_RUNNING else facts


def timer_shutdown(timer: timer_list, /) -> int:
    """Disarm *timer* for good: from now on every arming is silently ignored, also by its function if that runs. Never
    blocks.

    Returns 1 if it was pending, else 0.

    Raises:
        NotInitializedError: it was never set up.
    """
    check_timer("timer_shutdown", timer)
    try:
        return callout_dequeue(timer.entry, close=True) & CALLOUT_REMOVED
    except CalloutError as error:
        fail("timer_shutdown", timer, error)


def timer_delete_sync(timer: timer_list, /) -> Waiting:
    """Disarm *timer* and wait until its function, if it runs, has returned: ``await`` it, with no lock held.

    What is armed while this waits, by the function or by others, is disarmed at the end of the run. Somebody else may
    arm the timer again after that: ``timer_shutdown_sync()`` is for good.

    Returns 1 if it was pending, or was armed while this waited (of several waiters, one is told so), else 0.

    Raises:
        SelfDrainError: called by the timer's own function; at once, before anything is awaited.
        LockHeldError: in checking mode, the caller holds a lock; its function may be waiting for that.
        ArgumentValueError: the timer belongs to another system.
        NotInitializedError: it was never set up.
    """
    return quiesce("timer_delete_sync", timer)


def timer_delete_sync_blocking(timer: timer_list, /) -> int:
    """Do as ``timer_delete_sync()``, and block the thread, which must not run an event loop (``LoopThreadError``).

    It may hold a sleepable ``RmLock``. In checking mode that is ``LockOrderError`` if the function may wait for it.
    """
    return quiesce_blocking("timer_delete_sync_blocking", timer)


def timer_shutdown_sync(timer: timer_list, /) -> Waiting:
    """Disarm *timer* for good and wait until its function, if it runs, has returned: ``await`` it, with no lock held.

    While it waits the timer may still be armed; that is removed again at the end of the run, in the step that
    closes it. When this has returned, every arming is silently ignored.

    Returns 1 if it was pending, or was armed while this waited, else 0. Raises as ``timer_delete_sync()``.
    """
    return quiesce("timer_shutdown_sync", timer, close=True)


def timer_shutdown_sync_blocking(timer: timer_list, /) -> int:
    """Do as ``timer_shutdown_sync()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
    return quiesce_blocking("timer_shutdown_sync_blocking", timer, close=True)


# The older spellings.
del_timer = timer_delete
del_timer_sync = timer_delete_sync
del_timer_sync_blocking = timer_delete_sync_blocking
del_singleshot_timer_sync = timer_delete_sync
