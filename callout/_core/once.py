"""Blocks that are entered once: the objects that ``with`` and ``async with`` are given, which say so when used again.

What ``contextlib`` makes of a generator fails with an AttributeError of its own then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, ParamSpec, TypeVar

from .errors import ArgumentTypeError, BusyError
from .guard import protected

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
B = TypeVar("B")


def _used_up(call: str) -> NoReturn:
    raise BusyError(f"{call}: what it has returned was entered before; call {call}() for each block", call=call)


class _Once(Generic[B]):
    """Makes one block."""

    __slots__ = ("__weakref__", "_block", "_call", "_make")

    @protected
    def __init__(self, call: str, make: Callable[[], B]) -> None:
        self._call = call
        self._make: Callable[[], B] | None = make
        self._block: B | None = None

    def __repr__(self) -> str:
        return f"<{self._call}(), to be entered, at {id(self):#x}>"

    @protected
    def _maker(self) -> Callable[[], B]:
        if self._make is None:
            _used_up(self._call)
        return self._make

    @protected
    def _begin(self) -> B:
        block = self._block = self._maker()()
        self._make = None
        return block

    @protected
    def _end(self) -> B:
        block, self._block = self._block, None
        if block is None:
            raise BusyError(f"{self._call}: this block is left already, or was never entered", call=self._call)
        return block

    def _refuse(self, right: str, wrong: str) -> NoReturn:
        raise ArgumentTypeError(f"{self._call}: write `{right} {self._call}()`, not `{wrong}`", call=self._call)


class Block(_Once[AbstractContextManager[T_co]], AbstractContextManager[T_co, bool | None]):
    """A ``with`` block that is entered once; as a decorator it gives each call of the function a block of its own."""

    __slots__ = ()

    @protected
    def __enter__(self) -> T_co:
        return self._begin().__enter__()

    @protected
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._end().__exit__(kind, error, traceback)

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            self._refuse("with", "async with")

        async def __aexit__(self, *error: object) -> NoReturn:
            self._refuse("with", "async with")

    def __call__(self, func: Callable[P, T]) -> Callable[P, T]:
        """Have each call of *func* run in a block."""
        call, make = self._call, self._maker()

        @wraps(func)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            with Block(call, make):
                return func(*args, **kwargs)

        return inner


class AsyncBlock(_Once[AbstractAsyncContextManager[T_co]], AbstractAsyncContextManager[T_co, bool | None]):
    """An ``async with`` block that is entered once; as a decorator it gives each call of a function one."""

    __slots__ = ()

    @protected
    async def __aenter__(self) -> T_co:
        return await self._begin().__aenter__()

    @protected
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._end().__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            self._refuse("async with", "with")

        def __exit__(self, *error: object) -> NoReturn:
            self._refuse("async with", "with")

        def __await__(self) -> NoReturn:
            self._refuse("async with", "await")

    def __call__(self, func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Have each call of *func* run in a block."""
        call, make = self._call, self._maker()

        @wraps(func)
        async def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            async with AsyncBlock(call, make):
                return await func(*args, **kwargs)

        return inner
