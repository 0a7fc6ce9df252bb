"""Code that must not be interrupted by itself.

Python runs finalizers, weakref callbacks and signal handlers in the middle of whatever a thread is doing. If that is
the engine, holding a lock, and the interrupting code calls the engine again, it would wait for ever for its own
thread. Knowing the owner of every lock would cost every call; so we look only when a lock turns out to be taken: if a
function that is marked here, other than the one that asks, is on this thread's stack, then it is what was
interrupted. That works because a marked function never calls user code.

``KeyboardInterrupt`` is the same problem with another cause. The platform is told which functions to protect
(trio: ``enable_ki_protection``, which costs nothing per call).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Final, TypeVar

from . import frames
from .errors import ReentrantCallError

F = TypeVar("F", bound=Callable[..., object])

Mark = Callable[[Callable[..., object]], object]

_PROTECTED: Final[list[Callable[..., object]]] = []  # no KeyboardInterrupt inside
_EXPOSED: Final[list[Callable[..., object]]] = []  # calls the user's code: KeyboardInterrupt as usual
_KEEPERS: Final[list[tuple[Mark, Mark]]] = []
_GUARDED: Final[set[CodeType]] = set()


def protected(f: F) -> F:
    """Mark a function that KeyboardInterrupt must not cut in two."""
    _PROTECTED.append(f)
    for protect, _ in _KEEPERS:
        protect(f)
    return f


def exposed(f: F) -> F:
    """Mark a function that runs the user's code, in which KeyboardInterrupt may strike at any instant."""
    _EXPOSED.append(f)
    for _, expose in _KEEPERS:
        expose(f)
    return f


def keep_interrupts_out(protect: Mark, expose: Mark) -> None:
    """Have a platform's *protect* and *expose* applied to every function that is marked, now or later."""
    _KEEPERS.append((protect, expose))
    for f in _PROTECTED:
        protect(f)
    for f in _EXPOSED:
        expose(f)


def guarded(f: F) -> F:
    """Mark a function that takes a lock of the engine or of ``_locks``, and calls no user code while on the stack."""
    _GUARDED.add(f.__code__)
    return protected(f)


def check_reentry() -> None:
    """Raise if this thread was interrupted inside a guarded function. Called when a lock turned out to be taken.

    The engine's functions call each other, guarded ones too. Who interrupts is not called by name: from the first
    frame on that was not called by the package's own code, under its own name, a guarded function further out is an
    interrupted one.
    """
    frame: FrameType = sys._getframe(1)
    inner = frame.f_code.co_name
    own = True
    while True:
        caller = frame.f_back
        if caller is None:
            return
        if own:
            code = caller.f_code
            own = frame.f_code.co_name in code.co_names and frames.is_own(caller)
            inner = frame.f_code.co_name
        if not own and caller.f_code in _GUARDED:
            raise ReentrantCallError(
                f"{inner}() was called by a finalizer, weakref callback or signal handler that interrupted "
                f"{caller.f_code.co_name}() on the same thread, and would wait for itself; "
                "hand the call to the loop instead: system.cpu(0).call(function, *args)"
            )
        frame = caller
