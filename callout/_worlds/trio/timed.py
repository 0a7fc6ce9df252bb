"""``system.open_nursery()``: a nursery whose tasks are started by timers (``_api.starting``).

It knows its tasks, for another thread may give it one at any time: a task that is to be started is one of them from
then on. When the body has ended and none is left, the nursery ends, in one step under the lock. So what
``start_soon()`` has accepted is started.

What starts and cancels the tasks is a nursery of trio's; in a loop of asyncio it is another (``_worlds.guest.timed``).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Final, TypeVarTuple

import trio

from ..._api.starting import AsyncFn, Starts, TimeoutTask, check_name
from ..._core.describe import name_of, shown
from ..._core.errors import ArgumentTypeError, ClosedError, LoopThreadError
from ..._core.phases import Use, admit
from ..._core.seconds import Seconds, to_ns, to_time
from .forked import end_if_forked
from .platform import Loop, in_asyncio, in_task
from .tasks import may_be_async, run_async

if TYPE_CHECKING:
    from ..._core.platform import Waiter
    from .system import CalloutSystem

Ts = TypeVarTuple("Ts")

NO_TASK: Final = (
    "open_nursery: its tasks run on the loop that opens it, and this is no task of a loop of this system; open it in "
    "the block of open_callouts(), or in a task that system.cpu(n).start_soon() has started"
)


class Run:
    """One task: of a TimeoutTask, of which it is a run, or of ``start_soon()``."""

    def __init__(
        self,
        nursery: TimedNursery,
        of: TimeoutTask | None,
        context: Context,
        async_fn: AsyncFn,
        args: tuple[object, ...],
        name: str | None,
    ) -> None:
        """It begins in a copy of *context*."""
        self.nursery, self.of, self.context = nursery, of, context
        self.async_fn, self.args = async_fn, args
        self.name = name_of(async_fn) if name is None else name

    def cancel(self) -> None:
        """See ``Running``."""
        self.nursery._on_loop(self._cancel_here)

    def _cancel_here(self) -> None:
        """Cancel it, on its loop. Again it does nothing."""
        raise NotImplementedError

    def inside(self) -> bool:
        """See ``Running``."""
        raise NotImplementedError

    async def body(self) -> None:
        """Be that task."""
        raise NotImplementedError


class TimedNursery:
    """A nursery whose tasks are started by timers: what ``async with system.open_nursery() as nursery:`` gives.

    It owns its timers. When the body ends, what is scheduled is stopped, and from then on every arming is refused; the
    tasks that run are waited for. If the body is left by an exception, or a task raises one, or after ``cancel()``,
    they are cancelled. What a task raises leaves through the block, as with a nursery of trio's.

    Its tasks run on the loop that has opened it, each in a copy of the context in which its ``TimeoutTask`` was made.
    In the loop that ``callout.guest`` has opened the system in they are tasks of an ``asyncio.TaskGroup``. All methods
    may be called from any thread, and never block for longer than another one needs for such a call.
    """

    def __init__(self, system: CalloutSystem, cpu: int, kind: type[Run]) -> None:
        self._system = system
        self._kind = kind
        self._starts = Starts(system, cpu, self._start)
        self._lock = self._starts.lock  # guards all that follows, too
        self._handed_over: deque[Run] = deque()  # those that have not begun
        self._runs: set[Run] = set()  # and those that have, until they have ended
        self._idle: Waiter | None = None  # set when there is none
        self._over = False

    def __repr__(self) -> str:
        state = "ended" if self._over else "open" if self._starts.open else "ending"
        return f"<TimedNursery, {state}: {len(self._runs)} running, {len(self._starts.scheduled)} scheduled>"

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
        with self._lock:
            if self._over:
                raise ClosedError("start_soon: this nursery has ended, and its last task has", call="start_soon")
            self._hand_over(None, copy_context(), async_fn, args, name)

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
        self._cancel()

    def _new(
        self, call: str, instead: str, async_fn: AsyncFn, args: tuple[object, ...], name: str | None
    ) -> TimeoutTask:
        check_async(call, async_fn, instead)
        check_name(call, name)
        return self._starts.new(async_fn, args, name)

    # -- runs --------------------------------------------------------------------------------------------------------

    def _start(self, task: TimeoutTask) -> Run:
        """Start a run of *task*. The lock is held."""
        assert task._async_fn is not None, "what is closed does not run"
        return self._hand_over(task, task._context, task._async_fn, task._args, task.name)

    def _hand_over(
        self,
        of: TimeoutTask | None,
        context: Context,
        async_fn: AsyncFn,
        args: tuple[object, ...],
        name: str | None,
    ) -> Run:
        """Have the loop start a task. The lock is held."""
        run = self._kind(self, of, context, async_fn, args, name)
        self._runs.add(run)
        self._handed_over.append(run)
        self._on_loop(self._start_all)
        return run

    @trio.lowlevel.enable_ki_protection
    def _start_all(self) -> None:
        for _ in range(len(self._handed_over)):  # what comes meanwhile has the loop call this again
            run = self._handed_over.popleft()
            run.context.run(self._spawn, run)

    def _failed(self, error: BaseException) -> None:
        """*error* leaves a task: nothing more is started, for the nursery is being cancelled, or is about to be."""
        end_if_forked(error)
        self._starts.close()

    @trio.lowlevel.enable_ki_protection
    def _ended(self, run: Run) -> None:
        """A task has ended, or will not go on; what it has started is known."""
        if run.of is not None:
            run.of._ended()
        with self._lock:
            self._runs.discard(run)
            idle = None if self._runs else self._idle
        if idle is not None:
            idle.set_here()

    async def _until_over(self) -> None:
        """Wait until no task is left, and have none started any more then."""
        while not self._all_over():
            assert self._idle is not None
            await self._idle.wait()

    @trio.lowlevel.enable_ki_protection
    def _all_over(self) -> bool:
        """Return whether no task is left, and have none started any more if so; else make an event for the last."""
        with self._lock:
            self._over = not self._runs
            if not self._over:
                self._idle = self._system._platform.waiter()
            return self._over

    # -- what each kind of loop has of its own ----------------------------------------------------------------------

    def _on_loop(self, func: Callable[[], object]) -> None:
        """Have the loop call *func*, once or more often. From any thread, at any instant."""
        raise NotImplementedError

    def _spawn(self, run: Run) -> None:
        """Begin it, on the loop."""
        raise NotImplementedError

    def _cancel(self) -> None:
        """Cancel body and tasks. From any thread."""
        raise NotImplementedError


# -- on trio -----------------------------------------------------------------------------------------------------------


class _TrioRun(Run):
    """A task of trio."""

    task: trio.lowlevel.Task | None = None  # until it has begun

    @cached_property
    def scope(self) -> trio.CancelScope:
        """What cancels it."""
        return trio.CancelScope()

    def _cancel_here(self) -> None:
        self.scope.cancel()

    def inside(self) -> bool:
        """Return whether this is its task, or one in a nursery of its, however deep."""
        if not in_task():
            return False
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while task is not None and task is not self.task:
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return task is not None

    @trio.lowlevel.enable_ki_protection
    async def body(self) -> None:
        """Be that task."""
        self.task = trio.lowlevel.current_task()
        try:
            with self.scope:
                await run_async("open_nursery", self.async_fn, self.args)
        except BaseException as error:
            self.nursery._failed(error)
            raise
        finally:
            self.nursery._ended(self)


class _TrioNursery(TimedNursery):
    """A nursery of trio's."""

    def __init__(self, system: CalloutSystem, cpu: int, nursery: trio.Nursery) -> None:
        super().__init__(system, cpu, _TrioRun)
        self._loop: Loop = system._platform.loops[cpu]
        self._nursery = nursery

    def _on_loop(self, func: Callable[[], object]) -> None:
        if self._is_here():
            func()
        else:
            self._loop.post(func, once=True)

    def _is_here(self) -> bool:
        """Return whether this is code of that loop, and not of the host of a guest run, which has the same thread."""
        try:
            return trio.lowlevel.current_trio_token() is self._loop.token
        except RuntimeError:
            return False

    def _spawn(self, run: Run) -> None:
        self._nursery.start_soon(run.body, name=run.name)

    def _cancel(self) -> None:
        self._on_loop(self._nursery.cancel_scope.cancel)

    @trio.lowlevel.enable_ki_protection
    async def end(self, left: BaseException | None) -> None:
        """End it: the body was left, by that exception or normally."""
        self._starts.close()
        interrupt: BaseException | None = None
        if left is None:
            try:
                await self._until_over()
            except (trio.Cancelled, KeyboardInterrupt) as error:
                left = interrupt = error
        if left is None:
            return
        self._nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            while not self._over:
                try:
                    await self._until_over()
                except KeyboardInterrupt as error:  # it waits until this is over
                    interrupt = error
        if interrupt is not None:
            raise interrupt


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def trio_nursery(system: CalloutSystem) -> AsyncIterator[TimedNursery]:
    """Be the block of a nursery that is opened in a task of trio."""
    admit("open_nursery", system._machine, Use.INIT)
    cpu = system._platform.loop_here()
    if not in_task() and in_asyncio():
        raise LoopThreadError(
            "open_nursery: its tasks are tasks of trio, and this is a loop of asyncio; open it in a task that "
            "system.cpu(n).start_soon() has started, or open a system in this loop, with callout.guest.open_callouts()",
            call="open_nursery",
        )
    if cpu is None or not in_task():
        raise LoopThreadError(NO_TASK, call="open_nursery")
    async with trio.open_nursery() as inner:
        nursery = _TrioNursery(system, cpu, inner)
        left: BaseException | None = None
        try:
            yield nursery
        except BaseException as error:
            left = error
            raise
        finally:
            await nursery.end(left)


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


__all__ = ["NO_TASK", "Run", "TimedNursery", "trio_nursery"]
