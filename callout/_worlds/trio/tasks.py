"""The tasks of a CPU: ``system.cpu(n).start_soon()``.

Which tasks the end of the block waits for is decided when they are started: *awaited* is a task that was started while
the block was open, and one that an awaited task has started, on whatever CPU; a context variable, which tasks and the
threads that they call inherit, says which task that is. Once the body has ended a callback starts tasks that are not
awaited.

An awaited task is on the system's list from the call of ``start_soon()`` to its end, and its children are on it before
it is off. So when the list is empty no awaited task is left, on any CPU, and there will be none.

A nursery that has closed raises when it is given a task. So it is given none after ``_end``, which runs on the same
loop: what was accepted is started first, what comes later is refused. ``start_soon()``
appends the task to the deque and looks at the flag then; ``_end`` sets the flag and empties the deque then: so one of
the two sees it.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final

import trio

from ..._core.describe import name_of, shown
from ..._core.errors import ArgumentTypeError, ClosedError
from ..._core.guard import protected
from ..._core.machine import Machine
from ..._core.phases import LEAVING_TEXT, Phase, Use, admit
from .forked import end_if_forked
from .log import text_of
from .platform import Loop

if TYPE_CHECKING:
    from .system import CalloutSystem

AsyncFn = Callable[..., Awaitable[object]]

# Functions of these modules are no async functions; of those, these return what they were given or have found.
_NEVER_ASYNC: Final = frozenset({"builtins", "time"})
_PASS_ON: Final = frozenset({"anext", "eval", "getattr", "max", "min", "next"})
_GENERATORS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

# The systems of which this code is a task, or was called by one; and whether that task is awaited.
_TASK_OF: Final[ContextVar[Mapping[Machine, bool]]] = ContextVar("callout.task_of")


class Start:
    """One task that is to be started, or runs."""

    __slots__ = ("args", "async_fn", "awaited")

    def __init__(self, async_fn: AsyncFn, args: tuple[Any, ...], awaited: bool) -> None:  # Any: passed through
        self.async_fn, self.args, self.awaited = async_fn, args, awaited


class Tasks:
    """The tasks of one CPU."""

    def __init__(self, system: CalloutSystem, loop: Loop) -> None:
        self._system = system
        self._machine: Machine = system._machine
        self._loop = loop
        self._handed_over: deque[Start] = deque()
        self._refuses = False
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope(shield=True)  # the end of the block cancels them, nobody else
        self._start_all_here = self._start_all  # one object: trio knows a function that it has been given by that

    def start_soon(self, async_fn: AsyncFn, args: tuple[Any, ...]) -> None:  # Any: passed through
        """See ``CpuHandle.start_soon``."""
        if inspect.iscoroutine(async_fn):
            async_fn.close()
            raise ArgumentTypeError(
                "start_soon: give the function and its arguments, start_soon(f, x), not f(x)", call="start_soon"
            )
        if not may_be_async(async_fn):
            raise ArgumentTypeError(
                f"start_soon: the first argument must be an async function, not {shown(async_fn)}; have a plain one "
                "called by call()",
                call="start_soon",
            )
        machine = self._machine
        task_of = _TASK_OF.get({})
        inside = machine in task_of or machine.platform.in_callback()
        if not admit("start_soon", machine, Use.START_INSIDE if inside else Use.START):
            return
        self._hand_over(Start(async_fn, args, machine.phase <= Phase.OPEN or task_of.get(machine, False)), inside)

    @protected
    def _hand_over(self, start: Start, inside: bool) -> None:
        awaited = self._system._awaited
        if start.awaited:
            awaited[start] = None
        self._handed_over.append(start)
        if self._refuses:
            try:
                self._handed_over.remove(start)
            except ValueError:
                pass  # _end was later than this: it has started it
            else:
                self._over(start)
                # Where a task has failed that may be before CANCELLING has begun: it is about to.
                if inside:
                    return
                raise ClosedError(f"start_soon: {LEAVING_TEXT}", call="start_soon")
        self._wake()

    @protected
    def _over(self, start: Start) -> None:
        """A task has ended, or will not be started."""
        if start.awaited:
            self._system._awaited.pop(start, None)
            if not self._system._awaited and self._machine.phase is Phase.LEAVING:
                self._system._look_again()

    def _wake(self) -> None:
        """Have the loop start what was handed over. From any thread."""
        self._loop.post(self._start_all_here, once=True)

    def cancel(self) -> None:
        """Cancel them all, and have no more started. From any thread."""
        self._loop.post(self._scope.cancel)

    # -- on the CPU's own loop -------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self, up: Callable[[], object]) -> None:
        """Run the tasks until ``cancel`` was called and all have ended; call *up* when they can be started.

        What they raise leaves through the block.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    try:
                        up()
                        await trio.sleep_forever()
                    finally:  # cancelled, by cancel() or because a task has failed
                        self._end()
        except BaseException as error:
            for leaf in leaves(error):
                if not isinstance(leaf, trio.Cancelled):
                    self._system._fail(leaf)

    def _end(self) -> None:
        self._refuses = True
        try:
            self._start_all()
        finally:
            self._nursery = None

    def _start_all(self) -> None:
        for _ in range(len(self._handed_over)):  # what comes meanwhile has the loop call this again, after its tasks
            if self._nursery is None:
                return
            try:
                start = self._handed_over.popleft()
            except IndexError:
                return
            self._loop.context.run(partial(self._nursery.start_soon, self._run, start, name=name_of(start.async_fn)))

    @trio.lowlevel.enable_ki_protection
    async def _run(self, start: Start) -> None:
        _TASK_OF.set({**_TASK_OF.get({}), self._machine: start.awaited})
        try:
            await run_async("start_soon", start.async_fn, start.args)
        except BaseException as error:
            end_if_forked(error)
            raise
        finally:
            self._over(start)


def may_be_async(func: object) -> bool:
    """Return whether calling *func* may give something to be awaited. A plain function in Python may."""
    while type(func) is partial:
        func = func.func
    if isinstance(func, type):
        return hasattr(func, "__await__")
    if type(func) is BuiltinFunctionType:
        of = func.__self__
        return not isinstance(of, ModuleType) or of.__name__ not in _NEVER_ASYNC or func.__name__ in _PASS_ON
    if not callable(func):
        return False
    called: object = func
    if not isinstance(called, FunctionType | MethodType):
        called = type(func).__call__
    code = getattr(called, "__code__", None)
    flags = getattr(code, "co_flags", 0)
    return not flags & _GENERATORS or bool(flags & inspect.CO_ITERABLE_COROUTINE)


@trio.lowlevel.disable_ki_protection
async def run_async(call: str, async_fn: AsyncFn, args: tuple[Any, ...]) -> None:  # Any: passed through
    """Run the user's code, which was given to *call*."""
    waiting = async_fn(*args)
    if not inspect.isawaitable(waiting):
        raise ArgumentTypeError(
            f"{call}: {name_of(async_fn)} is no async function: it returned {text_of(waiting)}", call=call
        )
    await waiting


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group of nurseries, which is as deep as the nurseries are; else *error* itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
