"""What a call returns that has to be awaited: a coroutine that cannot be taken for its result.

C blocks where Python awaits, so the commonest slip of a port is a forgotten ``await``: ``if callout_drain(c) == 1:``
compares a coroutine, which is simply unequal, and nothing was drained. So what such a call returns refuses to be used
as a truth value or a number, or to be compared with one, and warns, as every coroutine does, if it is dropped. What is
wrong with the call itself is raised by the call, not by the await: nobody has to await to learn it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._core.checks import check_callout, machine_of
from .._core.describe import shown
from .._core.drain import check_locks, is_inside
from .._core.errors import ArgumentTypeError, LoopThreadError, NotAwaitedError, SelfDrainError, SleepError
from .._core.guard import protected
from .._core.machine import Machine
from .._core.refusal import Refusal

if TYPE_CHECKING:
    from .callout import Callout

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Unfinished:
    """The result of a call that has not come yet: it has no truth value, is no number and equals none.

    For records that stand for something to be awaited. Never blocks.
    """

    __slots__ = ()

    def remedy(self) -> str:
        """Return what is wrong with using this as a result, and what to write instead. Never blocks."""
        raise NotImplementedError

    # Hidden from type checkers, which know by themselves that an object without these is always true, and say so.
    if not TYPE_CHECKING:

        def __bool__(self) -> NoReturn:
            raise NotAwaitedError(self.remedy())

        def __eq__(self, other: object) -> bool:
            if isinstance(other, int):
                raise NotAwaitedError(self.remedy())
            return NotImplemented

        def _refuse(self, *_: object) -> NoReturn:
            raise NotAwaitedError(self.remedy())

        __lt__ = __le__ = __gt__ = __ge__ = _refuse
        __int__ = __index__ = __float__ = _refuse
        __neg__ = __invert__ = __abs__ = _refuse
        __add__ = __radd__ = __sub__ = __rsub__ = __and__ = __rand__ = __or__ = __ror__ = _refuse

        __hash__ = object.__hash__


class _Waiting(Unfinished, Coroutine[Any, Any, T_co]):  # Any: what a coroutine yields is its loop's business
    """A coroutine that is no result. The one inside warns if nobody awaits it."""

    __slots__ = ("__weakref__", "_call", "_coroutine", "_twin")

    @protected
    def __init__(self, call: str, coroutine: Coroutine[Any, Any, T_co], twin: str | None) -> None:
        self._call = call
        self._coroutine = coroutine
        self._twin = twin

    def __repr__(self) -> str:
        return f"<{self._call}(), to be awaited, at {id(self):#x}>"

    def __getattr__(self, name: str) -> object:
        """Look at the coroutine inside: ``cr_frame`` and its like, for those who print the stacks of tasks."""
        if not name.startswith("cr_"):
            raise AttributeError(
                f"what is to be awaited has no attribute {name!r}; await it, and look at what that gives"
            )
        return getattr(self._coroutine, name)

    @protected
    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._coroutine.__await__()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled, as no coroutine can")

    def send(self, value: object, /) -> object:
        return self._coroutine.send(value)

    def throw(
        self,
        error: type[BaseException] | BaseException,
        value: object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> object:
        if value is None and traceback is None:
            return self._coroutine.throw(error)
        return self._coroutine.throw(error, value, traceback)  # type: ignore[arg-type]  # the old form, as it was given

    def close(self) -> None:
        self._coroutine.close()

    def remedy(self) -> str:
        return not_awaited(self._call, self._twin)


def not_awaited(call: str, twin: str | None) -> str:
    """Return the message for a result of *call* that was used without ``await``. *twin* is the call that blocks; None:
    there is none.
    """
    return (
        f"{call}: `await` is missing: what it returns is no result yet, and nothing has been waited for; "
        f"write `await {call}(...)`{'' if twin is None else f', or, in a thread without a loop, {twin}'}"
    )


# A KeyboardInterrupt between the making of the coroutine and its await would look like a missing await.
@protected
def must_await(call: str, coroutine: Coroutine[Any, Any, T], twin: str | None = "", /) -> Coroutine[Any, Any, T]:
    """Return *coroutine* as something that cannot be taken for its result: as a truth value or a number, or compared
    with one, it raises ``NotAwaitedError``. Never blocks.

    For functions that are awaited here and block in C. Check the arguments first and raise what is wrong: the
    coroutine begins to run when it is awaited. *call* goes into the messages and into the warning for a coroutine
    that is never awaited; *twin* is the name of the call that blocks the thread (default: *call* with ``_sync``), or
    None if there is none.
    """
    if not isinstance(coroutine, Coroutine):
        raise ArgumentTypeError(
            f"must_await: give the coroutine that {call}() returns, not {shown(coroutine)}", call="must_await"
        )
    named: Any = coroutine  # Any: what is compiled has a type of its own, with these two all the same
    named.__name__ = named.__qualname__ = call
    return _Waiting(call, coroutine, None if twin is None else f"{twin or f'{call}_sync'}()")


# -- what would be wrong with waiting here: asked by the call, before there is anything to await --------------------


def refuse_wait(call: str, c: Callout, *, blocking: bool | None = False) -> Machine:
    """Raise what a wait for a run of *c* would raise here, and return its machine.

    *blocking*: it blocks the thread; None: it does, and looks itself whether this thread runs a loop.
    """
    check_callout(call, c)
    machine = machine_of(c, call)
    refuse_closed(call, machine)
    run = c.run
    if run is not None and is_inside(run):
        raise SelfDrainError(
            f"{call}: {c!r} waits for its own callback, which would never end; use close_soon(), or "
            "callout_drain_async()",
            call=call,
            callout=c,
            cpu=run.cpu.id,
        )
    check_locks(call, c, machine, blocking is not False)
    if blocking is not None:
        refuse_loop(call, machine, blocking=blocking)
    return machine


def refuse_closed(call: str, machine: Machine) -> None:
    """Raise if the machine was closed, or is the parent's."""
    lock = machine.cpus[0].lock
    if isinstance(lock, Refusal):
        lock.refuse(call)


def refuse_loop(call: str, machine: Machine, *, blocking: bool) -> None:
    """Raise if the loop of this thread, if it runs one, cannot wait for what the machine does.

    A wait that is awaited needs a loop of the platform's kind; for one that blocks the thread any loop is wrong.
    """
    if not blocking:
        machine.platform.refuse_await(call)
    elif machine.platform.in_loop():
        instead = call.removesuffix("_sync").removesuffix("_blocking")
        raise LoopThreadError(
            f"{call}: this thread runs an event loop, which must not be blocked; use `await {instead}()`", call=call
        )


def refuse_held_locks(call: str, machine: Machine) -> None:
    """In checking mode, raise if this thread holds a lock: nobody may sleep with a mutex held."""
    if machine.held is not None and (mine := machine.held.get(machine.platform.current_thread())):
        raise SleepError(f"{call}: release {mine} first: a callback may be waiting for it", call=call)


__all__ = [
    "Unfinished",
    "must_await",
    "not_awaited",
    "refuse_closed",
    "refuse_held_locks",
    "refuse_loop",
    "refuse_wait",
]
