"""``system.open_nursery()``: a nursery whose tasks are started by timers (``_api.starting``).

It is a nursery of trio's, and counts its tasks, for another thread may give it one at any time: a task that is to be
started counts from then on. When the body has ended and the count is 0, the nursery ends, in one step under the lock.
So what ``start_soon()`` has accepted is started.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from ..._api.starting import AsyncFn, Starts, TimeoutTask, check_name
from ..._core.describe import name_of, shown
from ..._core.errors import ArgumentTypeError, ClosedError, LoopThreadError
from ..._core.once import AsyncBlock
from ..._core.phases import Use, admit
from ..._core.seconds import Seconds, to_ns, to_time
from .forked import end_if_forked
from .leaving import insist
from .log import text_of
from .platform import Loop, in_asyncio, in_task
from .tasks import may_be_async

if TYPE_CHECKING:
    from .system import CalloutSystem

Ts = TypeVarTuple("Ts")


class _Run:
    """One run of a TimeoutTask: its task, and what cancels it."""

    __slots__ = ("loop", "scope", "task")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None  # until it has begun

    def cancel(self) -> None:
        """See ``Running``."""
        _on_loop(self.loop, self.scope.cancel)

    def inside(self) -> bool:
        """Return whether this is its task, or one in a nursery of its, however deep."""
        if not in_task():
            return False
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while task is not None and task is not self.task:
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return task is not None


class TimedNursery:
    """A nursery whose tasks are started by timers: what ``async with system.open_nursery() as nursery:`` gives.

    It owns its timers. When the body ends, what is scheduled is stopped, and from then on every arming is refused; the
    tasks that run are waited for. If the body is left by an exception, or a task raises one, or after ``cancel()``,
    they are cancelled. What a task raises leaves through the block, as with a nursery of trio's.

    Its tasks run on the loop that has opened it, each in a copy of the context in which its ``TimeoutTask`` was made.
    All methods may be called from any thread, and never block for longer than another one needs for such a call.
    """

    def __init__(self, system: CalloutSystem, cpu: int, loop: Loop, nursery: trio.Nursery) -> None:
        self._loop = loop
        self._nursery = nursery
        self._starts = Starts(system, cpu, self._start)
        self._lock = self._starts.lock  # guards all that follows, too
        self._handed_over: deque[tuple[Context, Callable[[], None]]] = deque()
        self._count = 0  # tasks that were handed over and have not ended
        self._idle: trio.Event | None = None  # set when there is none
        self._over = False
        self._start_handed_over = self._start_all  # one object: trio knows a function that it has been given by that

    def __repr__(self) -> str:
        state = "ended" if self._over else "open" if self._starts.open else "ending"
        return f"<TimedNursery, {state}: {self._count} running, {len(self._starts.scheduled)} scheduled>"

    # -- what its users call -------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def start_soon(self, async_fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts, name: str | None = None) -> None:
        r"""Start *async_fn(\*args)* as a task of the nursery's loop, in a copy of the caller's context. From any
        thread. Never blocks.

        It works until the body and the last task have ended, and so in a task of the nursery always does.

        Raises:
            ArgumentTypeError: *async_fn* is no async function, or *name* is no str.
            ClosedError: the nursery has ended.
        """
        check_async("start_soon", async_fn, "call_later")
        check_name("start_soon", name)
        spawn = partial(self._nursery.start_soon, self._run, async_fn, args, name=_task_name(async_fn, name))
        with self._lock:
            if self._over:
                raise ClosedError("start_soon: this nursery has ended, and its last task has", call="start_soon")
            self._count += 1
            self._handed_over.append((copy_context(), spawn))
        if _is_here(self._loop):
            self._start_all()
        else:
            self._loop.post(self._start_handed_over, once=True)

    def start_later(
        self, seconds: Seconds, async_fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts, name: str | None = None
    ) -> TimeoutTask:
        r"""Start *async_fn(\*args)* as a task, *seconds* from now. Never blocks.

        *seconds* is a number or a ``timedelta``; 0 means as soon as the loop comes round. *name* is for the log.
        Returns the timer: ``reset()`` schedules another start, ``stop()`` cancels it; it need not be kept. Once the
        body has ended it is not armed.

        Raises:
            ArgumentTypeError: *async_fn* is no async function, *seconds* no number, *name* no str.
            ArgumentValueError: *seconds* is negative, NaN, infinite or more than 68 years.
            ClosedError: the system is closed.
        """
        to_ns("start_later", seconds)
        task = self._new("start_later", "call_later", async_fn, args, name)
        task.reset(seconds)
        return task

    def start_at(
        self, deadline: float, async_fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts, name: str | None = None
    ) -> TimeoutTask:
        """Do as ``start_later()``, for a time of ``system.current_time()``: at once, if that is past. Never blocks."""
        to_time("start_at", self._starts.machine, deadline)
        task = self._new("start_at", "call_at", async_fn, args, name)
        task.reset_at(deadline)
        return task

    def start_every(
        self,
        seconds: Seconds,
        async_fn: Callable[[*Ts], Awaitable[object]],
        /,
        *args: *Ts,
        first: Seconds | None = None,
        name: str | None = None,
    ) -> TimeoutTask:
        r"""Start *async_fn(\*args)* as a task every *seconds*, on a fixed grid of times. Never blocks.

        *first*: seconds until the first start; by default one period. A period whose time comes while its task is still
        running is skipped, and counted in ``missed``: its runs never overlap. ``stop()`` ends it, in its task, too. The
        rest as ``start_later()``.

        Raises:
            ArgumentValueError: also if *seconds* is 0.
        """
        check_async("start_every", async_fn, "every")
        check_name("start_every", name)
        return self._starts.every(seconds, first, async_fn, args, name)

    def task(self, async_fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts, name: str | None = None) -> TimeoutTask:
        """Make a timer for such a task, which is not armed: ``reset()`` does that. Never blocks. Raises as
        ``start_later()``.
        """
        return self._new("task", "callout", async_fn, args, name)

    def cancel(self) -> None:
        """Cancel the nursery: its body and all its tasks; what is scheduled is stopped, and every arming is refused
        from now on. From any thread. Never blocks.
        """
        self._starts.close()
        _on_loop(self._loop, self._nursery.cancel_scope.cancel)

    def _new(
        self, call: str, instead: str, async_fn: AsyncFn, args: tuple[object, ...], name: str | None
    ) -> TimeoutTask:
        check_async(call, async_fn, instead)
        check_name(call, name)
        return self._starts.new(async_fn, args, name)

    # -- on its loop ---------------------------------------------------------------------------------------------------

    def _start(self, task: TimeoutTask) -> _Run:
        """Start a run of *task*. The lock is held."""
        assert task._async_fn is not None, "what is closed does not run"
        run = _Run(self._loop)
        task._context.run(
            partial(self._nursery.start_soon, self._run_timed, task, run, name=_task_name(task._async_fn, task.name))
        )
        self._count += 1
        return run

    @trio.lowlevel.enable_ki_protection
    def _start_all(self) -> None:
        while True:
            try:
                context, spawn = self._handed_over.popleft()
            except IndexError:
                return
            context.run(spawn)

    @trio.lowlevel.enable_ki_protection
    async def _run_timed(self, task: TimeoutTask, run: _Run) -> None:
        """Be a run of *task*."""
        run.task = trio.lowlevel.current_task()
        assert task._async_fn is not None
        try:
            with run.scope:
                await _call(task._async_fn, task._args)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            task._ended()
            self._ended()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, async_fn: AsyncFn, args: tuple[object, ...]) -> None:
        """Be a task of ``start_soon()``."""
        try:
            await _call(async_fn, args)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._ended()

    def _failed(self, error: BaseException) -> None:
        """*error* leaves a task: nothing more is started, for the nursery is being cancelled, or is about to be."""
        end_if_forked(error)
        self._starts.close()

    @trio.lowlevel.enable_ki_protection
    def _ended(self) -> None:
        """A task has ended, and what it has started is counted."""
        with self._lock:
            self._count -= 1
            idle = None if self._count else self._idle
        if idle is not None:
            idle.set()

    @trio.lowlevel.enable_ki_protection
    async def _end(self, left: BaseException | None) -> None:
        """End it: the body was left, by that exception or normally."""
        self._starts.close()
        if left is not None:
            self._nursery.cancel_scope.cancel()
        interrupt: BaseException | None = None
        while not self._all_over():
            assert self._idle is not None
            if left is not None:
                interrupt = await insist(self._idle) or interrupt
                continue
            try:
                await self._idle.wait()
            except (trio.Cancelled, KeyboardInterrupt) as error:
                left = interrupt = error
                self._nursery.cancel_scope.cancel()
        if interrupt is not None:
            raise interrupt

    def _all_over(self) -> bool:
        """Return whether no task is left, and have none started any more if so; else make an event for the last."""
        with self._lock:
            self._over = not self._count
            if not self._over:
                self._idle = trio.Event()
            return self._over


def open_nursery(system: CalloutSystem) -> AsyncBlock[TimedNursery]:
    """See ``CalloutSystem.open_nursery``."""
    return AsyncBlock("open_nursery", partial(_open_nursery, system))


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _open_nursery(system: CalloutSystem) -> AsyncIterator[TimedNursery]:
    admit("open_nursery", system._machine, Use.INIT)
    platform = system._platform
    cpu = platform.loop_here()
    if not in_task() and in_asyncio():
        raise LoopThreadError(
            "open_nursery: its tasks are tasks of trio, and this is a loop of asyncio; have a callback make a task, "
            "with system.call_later(seconds, lambda: group.create_task(f())) for an asyncio.TaskGroup, or open it in a "
            "task that system.cpu(1).start_soon() has started",
            call="open_nursery",
        )
    if cpu is None or not in_task():
        raise LoopThreadError(
            "open_nursery: its tasks run on the loop that opens it, and this is no task of a loop of this system; open "
            "it in the block of open_callouts(), or in a task that system.cpu(n).start_soon() has started",
            call="open_nursery",
        )
    async with trio.open_nursery() as inner:
        nursery = TimedNursery(system, cpu, platform.loops[cpu], inner)
        left: BaseException | None = None
        try:
            yield nursery
        except BaseException as error:
            left = error
            raise
        finally:
            await nursery._end(left)


# -- functions ---------------------------------------------------------------------------------------------------------


def check_async(call: str, async_fn: object, instead: str) -> None:
    """Raise unless *async_fn* is an async function, as far as one can tell without calling it. *instead* is the
    system's method for a plain one.
    """
    if inspect.iscoroutine(async_fn):
        async_fn.close()
        raise ArgumentTypeError(f"{call}: give the function and its arguments, (f, x), not f(x)", call=call)
    if not may_be_async(async_fn) or _is_plain(async_fn):
        raise ArgumentTypeError(
            f"{call}: a task is made of an async function, and {shown(async_fn)} is none; for a plain function use "
            f"system.{instead}()",
            call=call,
        )


def _is_plain(func: object) -> bool:
    """Return whether *func* is written in Python, and so that calling it gives nothing to be awaited: it is not
    ``async def``, wraps none that is, and is not annotated with something that is awaited.
    """
    while type(func) is partial:
        func = func.func
    if isinstance(func, type):
        return False
    if not isinstance(func, FunctionType | MethodType):
        func = type(func).__call__  # it was found to be callable
    if not isinstance(func, FunctionType | MethodType):
        return False
    if inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(inspect.unwrap(func)):
        return False
    returns = func.__annotations__.get("return")
    return not any(word in (returns if type(returns) is str else repr(returns)) for word in ("Awaitable", "Coroutine"))


@trio.lowlevel.disable_ki_protection
async def _call(async_fn: AsyncFn, args: tuple[object, ...]) -> None:
    """Run the user's code."""
    waiting = async_fn(*args)
    if not inspect.isawaitable(waiting):
        raise ArgumentTypeError(
            f"open_nursery: {name_of(async_fn)} is no async function: it returned {text_of(waiting)}",
            call="open_nursery",
        )
    await waiting


def _task_name(async_fn: AsyncFn, name: str | None) -> str:
    return name_of(async_fn) if name is None else name


def _is_here(loop: Loop) -> bool:
    """Return whether this is code of that loop, and not of the host of a guest run, which has the same thread."""
    try:
        return trio.lowlevel.current_trio_token() is loop.token
    except RuntimeError:
        return False


def _on_loop(loop: Loop, func: Callable[[], object]) -> None:
    """Have the loop call *func*: here and now, if this is its code."""
    if _is_here(loop):
        func()
    else:
        loop.post(func)


__all__ = ["TimedNursery", "open_nursery"]
