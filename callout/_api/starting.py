"""Timers that start tasks: their state, whatever it is that starts a task.

::

    idle       reset: scheduled
    scheduled  it fires: running              stop: idle
    running    reset: running, scheduled      the task ends: idle
      and scheduled   it fires: due           the task ends: scheduled      stop: running
      and due         reset: scheduled        the task ends: running anew   stop: running

At most one run is in progress, and at most one start is scheduled or due. All of it is guarded by one mutex, which is
that of the nursery and the lock of all its callouts: so what looks at one of them with the mutex held never finds its
callback half-way, and the end of the nursery comes before or after an arming, never in its middle. Nothing of the
user's runs with it held, and it is held for a few lines.

A periodic one arms itself (``_core.periodic``); that it fires in a run is a period that is skipped, and counted.

Source: our own; a timeout_task of taskqueue(9) has one callout and one task, too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from .._core.describe import name_of
from .._core.errors import ArgumentTypeError, ArgumentValueError, ClosedError, SelfDrainError
from .._core.guard import protected
from .._core.phases import Phase
from .._core.results import STOPPED, ResetResult, StopResult
from .._core.seconds import Seconds, from_ns, to_ns, to_time
from .._core.state import REMOVED, RUNNING
from .._locks.mutex import Mtx
from .awaitable import must_await, refuse_closed, refuse_held_locks, refuse_loop
from .periodic import Periodic
from .showing import due_told, told

if TYPE_CHECKING:
    from .._core.machine import Machine
    from .._core.platform import Waiter
    from .callout import Callout
    from .making import Making

AsyncFn = Callable[..., Any]  # Any: what it returns is awaited, and is no concern of ours

_DROPPED: Final[tuple[object, ...]] = ()


class Running(Protocol):
    """One run of a TimeoutTask: what starts tasks has made it."""

    def cancel(self) -> None:
        """Cancel it. From any thread; nothing happens if it has ended. Never blocks."""
        ...

    def inside(self) -> bool:
        """Return whether this code is part of it, so that it cannot end while this waits."""
        ...


class Starts:
    """What the timers of one nursery have in common; ``lock`` guards it, and them."""

    __slots__ = ("cpu", "lock", "machine", "making", "open", "scheduled", "start")

    def __init__(self, making: Making, cpu: int, start: Callable[[TimeoutTask], Running]) -> None:
        """*start* is called on the loop of *cpu*, with the lock held. What it starts begins later, and calls
        ``TimeoutTask._ended()`` at its end.
        """
        self.making = making
        self.machine: Machine = making._machine
        self.cpu = cpu
        self.start = start
        self.lock = Mtx("nursery", type="callout.TimedNursery", machine=self.machine)
        self.open = True  # whether anything can be armed
        self.scheduled: dict[TimeoutTask, None] = {}  # and those that are due

    def new(self, async_fn: AsyncFn, args: tuple[object, ...], name: str | None) -> TimeoutTask:
        """Return a timer that is not armed."""
        task = TimeoutTask(self, async_fn, args, name)
        task._callout = self.making.callout(
            task._fire, lock=self.lock, cpu=self.cpu, name=name_of(async_fn) if name is None else name
        )
        return task

    @protected
    def every(
        self, seconds: Seconds, first: Seconds | None, async_fn: AsyncFn, args: tuple[object, ...], name: str | None
    ) -> TimeoutTask:
        """Return a periodic one, which is armed if anything can be."""
        if not to_ns("start_every", seconds):
            raise ArgumentValueError("start_every: seconds must be above 0, or it would never end", call="start_every")
        if first is not None:
            to_ns("start_every", first, "first")
        task = TimeoutTask(self, async_fn, args, name)
        with self.lock:
            task._callout = self.making.every(
                seconds,
                task._fire,
                first=first,
                lock=self.lock,
                cpu=self.cpu,
                name=name_of(async_fn) if name is None else name,
            )
            self.scheduled[task] = None
            if not self.open:
                task._unschedule()
        return task

    @protected
    def close(self) -> None:
        """Stop what is pending, and have no more armed. From any thread. Again it does nothing."""
        with self.lock:
            self.open = False
            for task in list(self.scheduled):
                with suppress(ClosedError):  # the system is: that has stopped them
                    task._unschedule()


class TimeoutTask:
    """A timer that starts a task: an async function and its arguments, and when to start it.

    ``nursery.start_later()`` and its like make one. At most one run of it is in progress, and at most one start is
    scheduled: an arming during a run is for the next, which comes at the end of this run if its time has come by then.
    It is one object for life, armed anew as often as you like.

    ``async with t:`` ends with ``aclose()``. What is not ``async`` may be called from any thread, and never blocks for
    longer than another one needs for such a call.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_async_fn",
        "_callout",
        "_closed",
        "_context",
        "_due",
        "_name",
        "_run",
        "_skipped",
        "_starts",
        "_waiters",
    )

    _callout: Callout

    def __init__(self, starts: Starts, async_fn: AsyncFn, args: tuple[object, ...], name: str | None) -> None:
        self._starts = starts
        self._name = name
        self._closed = False
        self._run: Running | None = None
        self._due: float | None = None  # the deadline of a start whose time has come during a run
        self._skipped = 0
        self._waiters: list[Waiter] = []  # set at the end of the run; until then nothing can be armed
        self._async_fn: AsyncFn | None = async_fn
        self._args = args
        self._context: Context = copy_context()

    # -- arming and stopping -------------------------------------------------------------------------------------------

    def reset(self, seconds: Seconds, /) -> ResetResult:
        """Schedule a start *seconds* from now, whether or not one was scheduled. Never blocks.

        During a run it is the next start, which comes at the end of the run if that is later. Of ``start_every()`` it
        moves the grid: the next start is *seconds* from now, and the others follow it.

        Returns ``ResetResult.ARMED`` or ``REARMED`` (it replaces a scheduled start), which are true, or ``REFUSED``,
        which is false: the body of its nursery has ended, it is being drained, was closed, or the system is being
        closed.

        Raises:
            ArgumentTypeError: *seconds* is no number.
            ArgumentValueError: *seconds* is negative, NaN, infinite or more than 68 years.
        """
        to_ns("reset", seconds)
        return self._arm(lambda c: c.reset(seconds))

    def reset_at(self, deadline: float, /) -> ResetResult:
        """Schedule a start as ``reset()`` does, at *deadline*, a time of ``system.current_time()`` in seconds: at once,
        if that is past. Never blocks. Returns and raises as ``reset()``.
        """
        to_time("reset_at", self._starts.machine, deadline)
        return self._arm(lambda c: c.reset_at(deadline))

    @protected
    def _arm(self, arm: Callable[[Callout], ResetResult]) -> ResetResult:
        starts = self._starts
        with starts.lock:
            if not starts.open or self._closed or self._waiters:
                return ResetResult.REFUSED
            result = arm(self._callout)
            if result:
                starts.scheduled[self] = None
                if self._due is not None:
                    self._due = None
                    result = ResetResult.REARMED
            return result

    @protected
    def stop(self) -> StopResult:
        """Cancel what is scheduled; a run in progress goes on. Never blocks.

        Returns ``StopResult.REMOVED`` (a scheduled start will not happen) or ``BOTH`` (nor will it, but a run is in
        progress), which are true; or ``RUNNING`` or ``IDLE``, which are false.
        """
        with self._starts.lock:
            return self._stop()

    @protected
    def cancel(self) -> StopResult:
        """Do as ``stop()``, and cancel the run in progress, if there is one: its task, and no other. Never blocks, so
        the task may still be there when this has returned: see ``aclose()``.

        A task of asyncio gets one ``CancelledError`` for all such calls, and for ``aclose()``, during one run.
        """
        with self._starts.lock:
            result = self._stop()
            run = self._run
        if run is not None:
            run.cancel()
        return result

    def _stop(self) -> StopResult:
        """Stop; the lock is held."""
        return STOPPED[(REMOVED if self._unschedule() else 0) | (RUNNING if self._run is not None else 0)]

    def _unschedule(self) -> bool:
        """Stop what is scheduled, and return whether anything was. The lock is held."""
        self._starts.scheduled.pop(self, None)
        removed = bool(self._callout.stop()) or self._due is not None
        self._due = None
        return removed

    # -- runs: on the loop of the nursery ------------------------------------------------------------------------------

    @protected
    def _fire(self) -> None:
        """Its time has come. This is its callback, so the lock is held."""
        c, starts = self._callout, self._starts
        periodic = isinstance(c, Periodic)
        if self._run is None:
            if not periodic:
                starts.scheduled.pop(self, None)
            self._run = starts.start(self)
        elif periodic:
            self._skipped += 1
        else:
            self._due = from_ns(c.time + starts.machine.epoch)

    @protected
    def _ended(self) -> None:
        """The run in progress has ended."""
        starts = self._starts
        with starts.lock:
            self._run = None
            waiters, self._waiters = self._waiters, []
            if self._due is not None:
                self._due = None
                starts.scheduled.pop(self, None)
                if starts.machine.phase < Phase.QUIESCING:
                    self._run = starts.start(self)
            if self._closed:
                self._drop()
        for waiter in waiters:
            waiter.set()

    def _drop(self) -> None:
        """Forget what it would start: it is closed, and nothing runs."""
        self._async_fn, self._args, self._context = None, _DROPPED, Context()

    # -- waiting, and closing ------------------------------------------------------------------------------------------

    def drain(self) -> Coroutine[Any, Any, bool]:
        """Stop it, and wait for the end of the run in progress. It may be armed again then; until then armings are
        refused.

        ``await t.drain()``: always a checkpoint, after the stop. If that is cancelled it is stopped, but may still be
        running. Returns whether a scheduled start was removed.

        Raises:
            SelfDrainError: called from its own task, or, on trio, from one that its task has to wait for: a child of
                it. Two that wait for each other are not noticed, and wait for ever.
            SleepError: in checking mode: this thread holds a lock.
            LoopError: this task's loop cannot wait for it.
            ClosedError: its system is closed.
        """
        self._refuse_wait("drain")
        return must_await("drain", self._drain(), None)

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Stop it for good, cancel the run in progress, and wait for its end: every later arming is refused. It is
        forgotten what it would have started, with which arguments.

        ``await t.aclose()``; also at the end of ``async with t:``. The wait cannot be cancelled, and this yields only
        if it must wait. To close it again does nothing, but for the wait. Raises as ``drain()``.
        """
        self._refuse_wait("aclose")
        return must_await("aclose", self._aclose(), None)

    async def __aenter__(self) -> Self:
        """Raise ClosedError if it was closed. Never yields."""
        if self._closed:
            raise ClosedError(f"async with: {self!r} was closed; make a new one", call="async with")
        return self

    @protected
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, however the block was left."""
        if self._starts.machine.phase < Phase.CLOSED:
            self._refuse_wait("async with")
            await self._aclose()

    def _refuse_wait(self, call: str) -> None:
        """Raise what a wait would raise here."""
        machine = self._starts.machine
        refuse_closed(call, machine)
        self._refuse_inside(call)
        refuse_held_locks(call, machine)
        refuse_loop(call, machine, blocking=False)

    def _refuse_inside(self, call: str) -> None:
        run = self._run
        if run is not None and run.inside():
            raise SelfDrainError(
                f"{call}: {self!r} waits for its own task, which would never end; use stop() or cancel()", call=call
            )

    @protected
    async def _drain(self) -> bool:
        self._refuse_inside("drain")
        waiter = self._starts.machine.platform.waiter()
        with self._starts.lock:
            removed = self._unschedule()
            if self._run is None:
                waiter.set_here()
            else:
                self._waiters.append(waiter)
        try:
            await waiter.wait()
        finally:
            self._forget(waiter)
        return removed

    @protected
    async def _aclose(self) -> None:
        self._refuse_inside("aclose")
        platform = self._starts.machine.platform
        waiter = platform.waiter()
        with self._starts.lock:
            self._unschedule()
            self._closed = True
            run = self._run
            if run is None:
                self._drop()
                return
            self._waiters.append(waiter)
        run.cancel()
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with platform.shield():
                    await waiter.wait()
                break
            except KeyboardInterrupt as error:  # it waits until this is over
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _forget(self, waiter: Waiter) -> None:
        """A wait is over: by the end of the run, or because it was cancelled."""
        with self._starts.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether a start is scheduled, or is due at the end of the run in progress."""
        with self._starts.lock:
            return self._due is not None or self._callout.pending

    @property
    def running(self) -> bool:
        """Whether a run is in progress: from when it fires until its task has ended."""
        return self._run is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    @property
    def name(self) -> str | None:
        """What its maker called it; None: nothing."""
        return self._name

    @property
    def missed(self) -> int:
        """How many periods of ``start_every()`` were skipped so far, because its task was still running, or the loop
        was blocked.
        """
        with self._starts.lock:
            c = self._callout
            return self._skipped + c.missed if isinstance(c, Periodic) else 0

    @property
    def deadline(self) -> float:
        """When the next start is scheduled, in seconds of ``system.current_time()``; ``math.inf`` if none is."""
        with self._starts.lock:
            return self._callout.deadline if self._due is None else self._due

    def remaining(self) -> float:
        """Return the seconds until the next start, never negative; ``math.inf`` if none is scheduled. Never blocks."""
        with self._starts.lock:
            return self._callout.remaining() if self._due is None else 0.0

    def __repr__(self) -> str:
        words = [
            word
            for word, holds in (
                ("closed", self._closed),
                ("running", self._run is not None),
                ("draining", self._waiters),
                ("due at its end", self._due is not None),
            )
            if holds
        ]
        if due := due_told(self._callout):
            words.append(due)
        return told(self, self._name, self._async_fn, f" on cpu {self._starts.cpu}", words)


def check_name(call: str, name: object) -> None:
    """Raise unless *name* is a str, or None."""
    if name is not None and not isinstance(name, str):
        raise ArgumentTypeError(f"{call}: name must be a str, not {name!r}", call=call)


__all__ = ["Running", "Starts", "TimeoutTask", "check_name"]
