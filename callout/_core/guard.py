"""Where Ctrl-C is kept out.

``KeyboardInterrupt`` may be raised between any two calls of plain Python code. The platform is told which functions of
the engine to protect from it, and which to expose again because they run the user's code (trio:
``enable_ki_protection``, which costs nothing per call).

Where no such protection is at work, in a main thread that does not run trio, the engine stays whole all the same: what
it changes, it changes by plain stores with no call between (see ``cpulock``).
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Final, TypeVar

F = TypeVar("F", bound=Callable[..., object])

Mark = Callable[[Callable[..., object]], object]

_PROTECTED: Final[list[Callable[..., object]]] = []  # no KeyboardInterrupt inside
_EXPOSED: Final[list[Callable[..., object]]] = []  # calls the user's code: KeyboardInterrupt as usual
_KEEPERS: Final[list[tuple[Mark, Mark]]] = []


def protected(f: F) -> F:
    """Mark a function that KeyboardInterrupt must not cut in two."""
    protect(f)
    return f


def protect(*functions: Callable[..., object]) -> None:
    """Mark functions as ``protected()`` does. In modules that are compiled, where a decorator would hide from the C
    code what it calls. A function of C needs no mark: no signal handler runs in it.
    """
    for f in functions:
        if type(f) is FunctionType:
            _PROTECTED.append(f)
            for mark, _ in _KEEPERS:
                mark(f)


def exposed(f: F) -> F:
    """Mark a function that runs the user's code, in which KeyboardInterrupt may be raised at any instant."""
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
