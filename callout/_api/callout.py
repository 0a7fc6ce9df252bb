"""What a user has in hand: a callout, and its methods.

There is one implementation: a method and a C function that mean the same call the same engine function, and may be
mixed freely for one callout. What is called all the time is in ``_core.methods``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from .._core import methods, phases
from .._core.args import packed
from .._core.checks import check_callout, check_func, machine_of
from .._core.cpu import CLOSE, DRAIN
from .._core.cpulock import lock_callout
from .._core.drain import wait, wait_blocking
from .._core.errors import ArgumentTypeError, ClosedError
from .._core.guard import protected
from .._core.phases import Phase
from .._core.results import StopResult
from .._core.seconds import from_ns
from .._core.sets import drain_all_async
from .._core.state import CLOSED, FIELDS, FRESH, MOVING, PENDING, REMOVED, Record
from .._core.subclass import keep_fields
from . import shapes
from .awaitable import must_await, refuse_wait
from .showing import callout_told


class Callout(Record):
    """One callout: a function, its arguments, and when and where to call it.

    ``system.callout()`` and ``system.call_later()`` make one. A bare ``Callout()`` is a blank record, to be embedded in
    an object of yours and given to ``callout_init()`` or a relative; until then it is unusable. Making one never
    blocks. It holds no resources of its own while it is neither pending nor running, and nothing of the package refers
    to it then; an armed one needs no reference of yours. It cannot be copied or pickled, and equals only itself. A
    subclass may have anything of its own, but not under the names of the engine's fields, which nobody else may write
    either: ``arg``, ``c_cpu``, ``filed``, ``flags``, ``func``, ``lock``, ``next``, ``precision``, ``prev``, ``run``,
    ``seq``, ``state`` and ``time``.

    ``async with c:`` ends with ``aclose()``.
    """

    __slots__ = ()

    def __init_subclass__(cls, **more: object) -> None:
        """Refuse a subclass that has something of its own under the name of a field."""
        super().__init_subclass__(**more)
        if "_plain" not in vars(cls):  # else it is of a platform, and is meant to
            keep_fields(cls, Callout, FIELDS)

    # -- arming and stopping -------------------------------------------------------------------------------------------

    if TYPE_CHECKING:
        reset: shapes.Reset
        reset_at: shapes.ResetAt

        def stop(self) -> StopResult: ...
    else:
        reset = methods.reset
        reset_at = methods.reset_at
        stop = methods.stop

        def __enter__(self) -> NoReturn:
            raise ArgumentTypeError(
                f"with: write `async with {self.name or 'c'}:`; in a thread without a loop, close_sync() at the end",
                call="with",
                callout=self,
            )

        def __exit__(self, *error: object) -> NoReturn:
            self.__enter__()

    # -- waiting, and closing ------------------------------------------------------------------------------------------

    def drain(self) -> Coroutine[Any, Any, bool]:
        """Stop it, and wait until it does not run. It may be armed again then; until then armings are refused.

        ``await c.drain()``: always a checkpoint, after the stop. If that is cancelled it is stopped, but may still be
        running, and until that run has ended armings are refused. Hold no lock but Giant, which is released while
        waiting.

        Returns whether a scheduled run was removed.

        Raises:
            LockHeldError: the caller holds the callout's lock, or, in checking mode, any but Giant.
            SelfDrainError: called from its own callback.
            LoopError: this task's loop cannot wait for callouts.
            ClosedError: its system is closed.

        See callout(9), ``callout_drain()``.
        """
        refuse_wait("drain", self)
        return must_await("drain", _drain(self), "drain_sync")

    def drain_sync(self) -> bool:
        """Do as ``drain()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
        check_callout("drain_sync", self)
        return bool(wait_blocking("drain", self, DRAIN, "c.drain()") & REMOVED)

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Stop it for good, and wait until it does not run: every later arming is refused. It is forgotten what it
        would have called, with which arguments.

        ``await c.aclose()``; also at the end of ``async with c:``. The wait cannot be cancelled, and this yields only
        if it must wait. To close it again does nothing, but for the wait. Raises as ``drain()``. It is
        ``callout_terminate()``.
        """
        refuse_wait("aclose", self)
        return must_await("aclose", _aclose(self), "close_sync")

    def close_sync(self) -> None:
        """Do as ``aclose()``, and block the thread, which must not run an event loop (``LoopThreadError``)."""
        check_callout("close_sync", self)
        wait_blocking("close", self, CLOSE, "c.aclose()")

    @shapes.close_soon
    def close_soon(self, fn: Callable[..., object], /, *args: object) -> bool:
        r"""Stop it for good, and have *fn(\*args)* called when nothing of it runs any more. Never blocks. If it has
        a lock, hold that.

        Returns True if this call has closed it: then *fn* is called exactly once, on the callout's CPU, with no
        lock held, and not inside this call; a caller on another CPU or thread may still hold the callout's lock
        then. False if it was closed before: *fn* will not be called.

        Raises:
            LockNotHeldError, ArgumentTypeError: as ``stop()`` and ``reset()``.
            ClosedError: its system is closed.
        """
        check_func("close_soon", fn, "what is called at the end must be a function")
        machine_of(self, "close_soon")
        return drain_all_async("close_soon", (self,), fn, packed(args), close=True)

    @protected
    async def __aenter__(self) -> Self:
        """Raise ClosedError if it was closed. Never yields."""
        refuse_wait("async with", self)
        if self.state & CLOSED:
            raise ClosedError(f"async with: {self!r} was closed; make a new one", call="async with", callout=self)
        return self

    @protected
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, however the block was left."""
        if self.c_cpu.machine.phase < Phase.CLOSED:
            refuse_wait("async with", self)
            await _aclose(self)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether a run is scheduled, and has not begun."""
        return bool(_looked_at(self) & PENDING)

    @property
    def running(self) -> bool:
        """Whether a run is in progress: from when softclock comes to it until softclock is done with it."""
        _looked_at(self)
        return self.run is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return bool(_looked_at(self) & CLOSED)

    @property
    def cpu(self) -> int:
        """The number of the CPU to which it is assigned; -1 if it was never initialised."""
        return self.c_cpu.id

    @property
    def name(self) -> str | None:
        """What its maker called it, for the log; None: nothing."""
        _looked_at(self)
        extra = self.c_cpu.machine.extras.get(self)
        return None if extra is None else extra.name

    @property
    def deadline(self) -> float:
        """When it will run, in seconds of ``system.current_time()``; ``math.inf`` if nothing is scheduled."""
        when = _scheduled(self)
        return math.inf if when is None else from_ns(when + self.c_cpu.machine.epoch)

    def remaining(self) -> float:
        """Return the seconds until it will run, never negative; ``math.inf`` if nothing is scheduled. Never blocks."""
        when = _scheduled(self)
        return math.inf if when is None else from_ns(max(when - self.c_cpu.now(), 0))

    def __repr__(self) -> str:
        return callout_told(self)


def _looked_at(c: Callout) -> int:
    """Return the state of *c*, or raise why there is none."""
    state = c.state
    if state & FRESH or phases.IN_CHILD or c.c_cpu is None:
        machine_of(c)  # raises
    return state


@protected
def _scheduled(c: Callout) -> int | None:
    """Return for when *c* is armed, in ns of the engine's clock; None if nothing is scheduled."""
    if not _looked_at(c) & PENDING:
        return None
    try:
        cpu = lock_callout(c)
    except ClosedError:  # that has stopped it
        return None
    try:
        if not c.state & PENDING:
            return None
        move = c.run.move if c.state & MOVING and c.run is not None else None
        return c.time if move is None else move.time
    finally:
        cpu.busy = False
        cpu.lock.release()


async def _drain(c: Callout) -> bool:
    facts = await wait("drain", c, DRAIN)
    await passed(c)
    return bool(facts & REMOVED)


async def passed(c: Callout) -> None:
    """Be a checkpoint, at which the caller may be cancelled."""
    waiter = c.c_cpu.machine.platform.waiter()
    waiter.set_here()
    await waiter.wait()


@protected
async def _aclose(c: Callout) -> None:
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            with c.c_cpu.machine.platform.shield():
                await wait("aclose", c, CLOSE)
            break
        except KeyboardInterrupt as error:  # it waits until this is over
            interrupt = error
    if interrupt is not None:
        raise interrupt


__all__ = ["Callout"]
