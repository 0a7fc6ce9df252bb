"""How a type checker sees the functions that take a callback: function and argument agree, and none is asynchronous.

A callback's result is nobody's business, so every function of one argument would do, an ``async def`` too, which does
nothing when it is called. It is refused when it is armed; for a checker to say so before, there are three overloads:

1. a callback that never returns, because it always raises: that one is in order;
2. a callback that returns a coroutine: what the call returns then is declared to be one, too. It is a lie, the call
   raises; but that nobody awaits it is an error to mypy and pyright without any option, and so is its use as an int;
3. any other.

That they overlap is the point: the first that fits is taken. The decorators change nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar, cast, overload

if TYPE_CHECKING:
    from .._api.callout import Callout

T = TypeVar("T")

# The result of a call that is a mistake. Any: whatever the coroutines of the callback send and return.
Mistake = Coroutine[Any, Any, Never]
Plain = Callable[[T], object]
Raises = Callable[[T], Never]
Async = Callable[[T], Coroutine[Any, Any, object]]  # Any: as above


class Reset(Protocol):
    """``callout_reset()``, ``callout_reset_curcpu()``."""

    @overload
    def __call__(self, c: Callout, ticks: int, func: Raises[T], arg: T, /) -> int: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, ticks: int, func: Async[T], arg: T, /) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, ticks: int, func: Plain[T], arg: T, /) -> int: ...


class ResetOn(Protocol):
    """``callout_reset_on()``."""

    @overload
    def __call__(self, c: Callout, ticks: int, func: Raises[T], arg: T, cpu: int, /) -> int: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, ticks: int, func: Async[T], arg: T, cpu: int, /) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, ticks: int, func: Plain[T], arg: T, cpu: int, /) -> int: ...


class ResetSbt(Protocol):
    """``callout_reset_sbt()``, ``callout_reset_sbt_curcpu()``."""

    @overload
    def __call__(self, c: Callout, sbt: int, precision: int, func: Raises[T], arg: T, flags: int = 0, /) -> int: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, sbt: int, precision: int, func: Async[T], arg: T, flags: int = 0, /) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, sbt: int, precision: int, func: Plain[T], arg: T, flags: int = 0, /) -> int: ...


class ResetSbtOn(Protocol):
    """``callout_reset_sbt_on()``."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is taken
        self, c: Callout, sbt: int, precision: int, func: Raises[T], arg: T, cpu: int, flags: int = 0, /
    ) -> int: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is taken
        self, c: Callout, sbt: int, precision: int, func: Async[T], arg: T, cpu: int, flags: int = 0, /
    ) -> Mistake: ...
    @overload
    def __call__(
        self, c: Callout, sbt: int, precision: int, func: Plain[T], arg: T, cpu: int, flags: int = 0, /
    ) -> int: ...


class DrainAsync(Protocol):
    """``callout_drain_async()``."""

    @overload
    def __call__(self, c: Callout, func: Raises[T], arg: T, /) -> int: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, func: Async[T], arg: T, /) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, c: Callout, func: Plain[T], arg: T, /) -> int: ...


def reset(f: Callable[..., int]) -> Reset:
    """Show *f* so."""
    return cast("Reset", f)


def reset_on(f: Callable[..., int]) -> ResetOn:
    """Show *f* so."""
    return cast("ResetOn", f)


def reset_sbt(f: Callable[..., int]) -> ResetSbt:
    """Show *f* so."""
    return cast("ResetSbt", f)


def reset_sbt_on(f: Callable[..., int]) -> ResetSbtOn:
    """Show *f* so."""
    return cast("ResetSbtOn", f)


def takes_completion(f: Callable[..., int]) -> DrainAsync:
    """Show *f* so."""
    return cast("DrainAsync", f)
