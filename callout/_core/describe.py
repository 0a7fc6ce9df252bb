"""How messages name functions, without running any code of the user; how they show what was given instead of what was
wanted, and lengths of time.

A report may be made about a function whose ``repr`` raises, or about a callable object that was freed meanwhile. So
only what the type of a callable says is looked at, and of plain functions their name.
"""

from __future__ import annotations

from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Final, cast

_SHOWN_BITS: Final = 256  # of an int that is shown in full: Python refuses to write very long ones in decimal
_NAMED: Final = (FunctionType, BuiltinFunctionType)


def counted(number: int, what: str) -> str:
    """Return a number of things, in words of a message: "1 schedule", "2,000 schedules"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def length_of_time(seconds: float) -> str:
    """Return a length of time in a unit that suits it: "12.3 s", "3 ms"."""
    size = abs(seconds)
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if size >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if size >= unit:
            return f"{seconds / unit:.3g} {name}" if size < 100 * unit else f"{seconds / unit:.0f} {name}"
    return f"{seconds * 1e6:.3g} us" if size else "0 s"


def called_by(func: object) -> object:
    """Return the function that a partial or a bound method calls; None for what is neither. Runs no code of the
    user's.
    """
    kind = type(func)
    if kind is partial:
        return cast("partial[object]", func).func
    if kind is MethodType:
        return cast("MethodType", func).__func__
    return None


def name_of(func: object) -> str:
    """Return how to call *func* in a message."""
    for _ in range(8):  # a partial of a partial of …
        inner = called_by(func)
        if inner is None:
            break
        func = inner
    if isinstance(func, type):
        return type.__getattribute__(func, "__qualname__")  # type: ignore[no-any-return]  # a str
    if type(func) in _NAMED:
        return cast("FunctionType", func).__qualname__
    return "None" if func is None else f"a {type(func).__qualname__}"


def shown(value: object) -> str:
    """Return how to show an argument that is not what it should be: whatever it is, a message comes of it."""
    if issubclass(type(value), int) and type(value) is not bool:
        number = int.__int__(cast("int", value))
        text = str(number) if number.bit_length() <= _SHOWN_BITS else f"an int of {number.bit_length()} bits"
        return text if type(value) is int else f"{text}, {name_of(value)}"
    try:
        return repr(value)
    except Exception:  # the user's, or Python's of an int in it that is too long
        return name_of(value)
