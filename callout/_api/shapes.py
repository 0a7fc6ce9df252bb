"""How a type checker sees the methods that take a callback: function and arguments agree, and none is asynchronous.

As ``_core.signatures`` does it for the C names, with three overloads for each; here for any number of arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Never, Protocol, TypedDict, TypeVarTuple, Unpack, cast, overload

from .._core.results import ResetResult
from .._core.seconds import Seconds
from .._locks.lock import Lock

if TYPE_CHECKING:
    from .callout import Callout
    from .periodic import Periodic

Ts = TypeVarTuple("Ts")

# The result of a call that is a mistake. Any: whatever the coroutines of the callback send and return.
Mistake = Coroutine[Any, Any, Never]
Plain = Callable[[*Ts], object]
Raises = Callable[[*Ts], Never]
Async = Callable[[*Ts], Coroutine[Any, Any, object]]  # Any: as above


class Kw(TypedDict, total=False):
    """What every kind of callout may be given by keyword."""

    lock: Lock | None
    name: str | None
    cpu: int | None
    tolerance: Seconds


class EveryKw(Kw, total=False):
    """The same for ``every()``."""

    first: Seconds | None


class Reset(Protocol):
    """``reset()``."""

    @overload
    def __call__(self, seconds: Seconds, /) -> ResetResult: ...
    @overload
    def __call__(self, seconds: Seconds, fn: Raises[*Ts], /, *args: *Ts) -> ResetResult: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Async[*Ts], /, *args: *Ts) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Plain[*Ts], /, *args: *Ts) -> ResetResult: ...


class ResetAt(Protocol):
    """``reset_at()``."""

    @overload
    def __call__(self, deadline: float, /) -> ResetResult: ...
    @overload
    def __call__(self, deadline: float, fn: Raises[*Ts], /, *args: *Ts) -> ResetResult: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, deadline: float, fn: Async[*Ts], /, *args: *Ts) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, deadline: float, fn: Plain[*Ts], /, *args: *Ts) -> ResetResult: ...


class CloseSoon(Protocol):
    """``close_soon()``."""

    @overload
    def __call__(self, fn: Raises[*Ts], /, *args: *Ts) -> bool: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, fn: Async[*Ts], /, *args: *Ts) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, fn: Plain[*Ts], /, *args: *Ts) -> bool: ...


class CloseAllSoon(Protocol):
    """``close_all_soon()``."""

    @overload
    def __call__(self, callouts: Iterable[Callout], fn: Raises[*Ts], /, *args: *Ts) -> bool: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, callouts: Iterable[Callout], fn: Async[*Ts], /, *args: *Ts) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, callouts: Iterable[Callout], fn: Plain[*Ts], /, *args: *Ts) -> bool: ...


class New(Protocol):
    """``callout()``."""

    @overload
    def __call__(self, **options: Unpack[Kw]) -> Callout: ...
    @overload
    def __call__(self, fn: Raises[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, fn: Async[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, fn: Plain[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...


class CallLater(Protocol):
    """``call_later()``."""

    @overload
    def __call__(self, seconds: Seconds, fn: Raises[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Async[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Plain[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...


class CallAt(Protocol):
    """``call_at()``."""

    @overload
    def __call__(self, deadline: float, fn: Raises[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, deadline: float, fn: Async[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, deadline: float, fn: Plain[*Ts], /, *args: *Ts, **options: Unpack[Kw]) -> Callout: ...


class Every(Protocol):
    """``every()``."""

    @overload
    def __call__(self, seconds: Seconds, fn: Raises[*Ts], /, *args: *Ts, **options: Unpack[EveryKw]) -> Periodic: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Async[*Ts], /, *args: *Ts, **options: Unpack[EveryKw]) -> Mistake: ...  # type: ignore[overload-overlap]  # the first that fits is taken
    @overload
    def __call__(self, seconds: Seconds, fn: Plain[*Ts], /, *args: *Ts, **options: Unpack[EveryKw]) -> Periodic: ...


def close_soon(f: Callable[..., object]) -> CloseSoon:
    """Show *f* so."""
    return cast("CloseSoon", f)


def close_all_soon(f: Callable[..., object]) -> CloseAllSoon:
    """Show *f* so."""
    return cast("CloseAllSoon", f)


def new(f: Callable[..., object]) -> New:
    """Show *f* so."""
    return cast("New", f)


def call_later(f: Callable[..., object]) -> CallLater:
    """Show *f* so."""
    return cast("CallLater", f)


def call_at(f: Callable[..., object]) -> CallAt:
    """Show *f* so."""
    return cast("CallAt", f)


def every(f: Callable[..., object]) -> Every:
    """Show *f* so."""
    return cast("Every", f)
