"""How a task of asyncio waits: for a one-shot event, and so that no cancellation ends the wait.

A shielded wait swallows every ``CancelledError`` until it is over, and the block around it raises the first one then.
The task's count of cancellations is left alone: ``asyncio.timeout()`` and ``TaskGroup`` find it as they need it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final, Self

from ..._core.guard import protected

Task = asyncio.Task[Any]  # Any: whatever it returns

_SHIELDS: Final[dict[Task, Shield]] = {}  # the tasks that are in a shielded block: in the outermost, if they are nested


class HostWaiter:
    """A one-shot event for a task of asyncio."""

    __slots__ = ("_future", "_host", "_is_set")

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._is_set = False
        self._future: asyncio.Future[None] | None = None

    @protected
    async def wait(self) -> None:
        """Wait until it is set. A checkpoint."""
        task = asyncio.current_task()
        shield = None if task is None else _SHIELDS.get(task)
        waited = False
        while not (waited and self._is_set):
            waited = True
            try:
                if self._is_set:
                    await asyncio.sleep(0)
                else:
                    self._future = self._host.create_future()  # a cancellation uses one up
                    await self._future
            except asyncio.CancelledError as error:
                if shield is None:
                    raise
                shield.cancelled = shield.cancelled or error

    def set(self) -> None:
        """Set it, from anywhere. Never blocks."""
        try:
            self._host.call_soon_threadsafe(self.set_here)
        except RuntimeError:  # the loop is closed: nobody will ever wait
            self._is_set = True

    @protected
    def set_here(self) -> None:
        """Set it, on the loop."""
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Shield:
    """A block whose waits cannot be cancelled, in a task of asyncio. Blocks may be nested."""

    __slots__ = ("_outer", "_raises", "_task", "cancelled")

    def __init__(self, *, raises: bool = True) -> None:
        """*raises*: a cancellation that came is raised at the end, unless an error leaves the block."""
        self._raises = raises
        self._task: Task | None = None
        self._outer: Shield | None = None
        self.cancelled: asyncio.CancelledError | None = None  # the first that came

    @protected
    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None, "a shielded block is for tasks"
        self._outer = _SHIELDS.get(self._task)
        _SHIELDS[self._task] = self
        return self

    @protected
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None, "left before it was entered"
        task, outer, self._task, self._outer = self._task, self._outer, None, None
        if outer is None:
            _SHIELDS.pop(task, None)
        else:
            _SHIELDS[task] = outer
        if self.cancelled is None:
            return
        if outer is not None:
            outer.cancelled = outer.cancelled or self.cancelled
        elif self._raises and error is None:
            try:
                raise self.cancelled
            finally:
                self.cancelled = None  # its traceback refers to this frame
