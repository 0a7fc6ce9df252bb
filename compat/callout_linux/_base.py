"""What timers of every age have in common: a callout, the time for which they are armed, a function.

The callout's *function* is the timer itself, and its *argument* is ``expires``, so a timer's expiry is stored where
it is decided, under the CPU's lock: what one reads is always what was armed, in whatever order the calls came. What was
written to ``expires`` counts until the callout is armed, which changes its number (``seq``) on its CPU.

Nothing of a timer is touched once it is armed: its function may have run by then, and have freed it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from callout import (
    ARM_IF_IDLE,
    ARM_STAY,
    CALLOUT_REMOVED,
    ArgumentTypeError,
    BusyError,
    Callout,
    CalloutError,
    NotInitializedError,
    callout_init,
    callout_quiesce,
    callout_quiesce_sync,
    callout_running,
    callout_terminated,
    check_callback,
    check_result,
    check_wait,
    must_await,
)

from ._jiffies import check_jiffies, shown

T = TypeVar("T")

ADD: Final = ARM_IF_IDLE | ARM_STAY


class TimerBase:
    """A timer. Not to be used itself: see ``timer.timer_list`` and ``v2_3.timer_list``."""

    __slots__ = ("__weakref__", "_assigned", "_function", "entry")

    slab_parts: ClassVar = ("entry",)  # for a callout.testing.Slab: a timer is a part of what it is embedded in

    def __init__(self) -> None:
        """Make a timer that was not set up yet. Never blocks."""
        self.entry = Callout()
        self._function: Callable[[Any], object] | None = None  # Any: each kind of timer calls it with something else
        # What was written to ``expires``, and the CPU and the number of the callout then.
        self._assigned: tuple[int, int, int] | None
        self._assign(0)

    @property
    def expires(self) -> int:
        """When it is, was or shall be due, in jiffies. Write it before ``add_timer()``; of a pending timer, use
        ``mod_timer()``.

        Raises:
            ArgumentTypeError: what is written is not an int.
        """
        assigned = self._assigned
        if assigned is not None and self._was_written(assigned):
            return assigned[0]
        armed: int = self.entry.arg
        return armed

    @expires.setter
    def expires(self, value: int) -> None:
        self._assign(check_jiffies("timer.expires", "expires", value))

    @property
    def __wrapped__(self) -> Callable[[Any], object] | None:
        """Its function: the order of locks, which checking mode keeps, goes by that, and not by the timer."""
        return self._function

    def __repr__(self) -> str:
        who = f"<{type(self).__name__} at {id(self):#x}"
        if not hasattr(self, "entry"):
            return f"{who}: never made>"
        # What its callout says of itself, but for name and function.
        _, on, rest = repr(self.entry).partition(" on cpu ")
        if not on:
            return f"{who}: not set up>"
        function: Any = self._function
        if type(function) is MethodType:
            function = function.__func__
        if function is not None:
            named = type(function) in (FunctionType, BuiltinFunctionType)
            who += f" {function.__qualname__}" if named else f" a {type(function).__qualname__}"
        return f"{who}{on}{rest.replace('closed', 'shut down')}"

    def _assign(self, expires: int) -> None:
        entry = self.entry
        self._assigned = expires, entry.c_cpu.id, entry.seq

    def _was_written(self, assigned: tuple[int, int, int]) -> bool:
        """Whether the timer was not armed since."""
        entry = self.entry
        return assigned[2] == entry.seq and assigned[1] == entry.c_cpu.id

    def overwrite(self, expires: int) -> None:
        """Before it is armed for *expires*, or left as it is because it has this time: what was written counts no more.

        Only a timer that was shut down keeps it, since that will not be armed.
        """
        assigned = self._assigned
        if assigned is not None:
            if not self._was_written(assigned):
                self._assigned = None
            elif not callout_terminated(self.entry):
                self._assign(expires)

    def forget(self) -> None:
        """Be a timer that was never set up."""
        expires = self.expires
        self.entry = Callout()
        self._function = None
        self._assign(expires)


def set_up(call: str, timer: TimerBase, kind: type[TimerBase]) -> None:
    """Bind a timer of this kind to the current system."""
    check_timer(call, timer, kind)
    assigned = timer.expires
    try:
        callout_init(timer.entry, 1)
    except CalloutError as error:
        fail(call, timer, error)
    timer._assign(assigned)


def check_function(call: str, function: object) -> None:
    """Raise unless *function* can be a timer's function."""
    check_callback(call, function)


def run_function(function: Callable[..., object], /, *args: object) -> None:
    """Call a user's *function*, and raise if it has returned what still wants to be run."""
    result = function(*args)
    if result is not None:
        check_result(function, result)


def check_timer(call: str, timer: object, kind: type[TimerBase] = TimerBase) -> None:
    """Raise unless *timer* is a timer of this kind, and was made."""
    if isinstance(timer, kind):
        if hasattr(timer, "entry"):
            return
        raise NotInitializedError(
            f"{call}: this {type(timer).__qualname__} was never made: its __init__() did not call "
            "timer_list.__init__()",
            call=call,
            callout=timer,
        )
    if isinstance(timer, TimerBase):
        raise ArgumentTypeError(
            f"{call}: {timer!r} is a timer of the other API: those of callout_linux.timer and callout_linux.v2_3 "
            "do not mix",
            call=call,
            callout=timer,
        )
    raise ArgumentTypeError(f"{call}: the first argument must be a timer, a timer_list, not {shown(timer)}", call=call)


def not_set_up(call: str, timer: TimerBase) -> NotInitializedError:
    """Return the error for a timer that was never set up."""
    return NotInitializedError(
        f"{call}: {timer!r} was never set up: call timer_setup() first (init_timer() in v2_3)", call=call, callout=timer
    )


def fail(call: str, timer: TimerBase, error: CalloutError) -> NoReturn:
    """Raise *error*, which is being handled, as an error of *call* for *timer*: these are what its user knows, and not
    the function of callout(9) that has raised it, nor the callout.
    """
    check_timer(call, timer)
    if isinstance(error, NotInitializedError):
        raise not_set_up(call, timer) from None
    if not error.call.startswith("callout_"):
        raise error
    if isinstance(error, BusyError):
        text = (
            f"{call}: {timer!r} is in use; wait for its end first, with timer_delete_sync() (del_timer_sync() in v2_3)"
        )
    else:
        text = str(error).replace(error.call, call)
    about = None if error.callout is None else timer
    raise type(error)(text, call=call, callout=about, lock=error.lock, cpu=error.cpu) from None


def refuse_pending(call: str, timer: TimerBase, facts: int) -> None:
    """Raise if *facts* say that an ``add_timer()`` met a pending timer; nothing has changed then."""
    if facts & CALLOUT_REMOVED:
        raise BusyError(
            f"{call}: {timer!r} is pending already; use mod_timer() to arm it for another time",
            call=call,
            callout=timer,
        )


def refuse_not_set_up(call: str, timer: TimerBase) -> None:
    """Raise if the timer was never set up, or is none."""
    check_timer(call, timer)
    try:
        callout_running(timer.entry)
    except CalloutError as error:
        fail(call, timer, error)


def refuse_wait(call: str, timer: TimerBase, *, blocking: bool = False) -> None:
    """Raise what would make a wait for *timer* hang, or what it could not be for; nothing has changed then."""
    refuse_not_set_up(call, timer)
    check_wait(call, timer.entry, blocking=blocking)


Waiting = Coroutine[Any, Any, int]  # Any: what a coroutine yields to its loop is the loop's business


def quiesce(call: str, timer: TimerBase, *, close: bool = False) -> Waiting:
    """Wait until the timer is neither pending nor running; give 1 if it was pending."""
    refuse_wait(call, timer)
    return must_await(call, _quiesce(timer, close=close), f"{call}_blocking")


async def _quiesce(timer: TimerBase, *, close: bool) -> int:
    return await callout_quiesce(timer.entry, close=close) & CALLOUT_REMOVED


def quiesce_blocking(call: str, timer: TimerBase, *, close: bool = False) -> int:
    """Do as ``quiesce``, and block the thread."""
    refuse_wait(call, timer, blocking=True)
    return callout_quiesce_sync(timer.entry, close=close) & CALLOUT_REMOVED
