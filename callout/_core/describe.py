"""How messages name functions: without running any code of the user.

A report may be made about a function whose ``repr`` raises, or about a callable object that was freed meanwhile. So
only what the type of a callable says is looked at, and of plain functions their name.
"""

from __future__ import annotations

from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Final, cast

_NAMED: Final = (FunctionType, BuiltinFunctionType)


def name_of(func: object) -> str:
    """Return how to call *func* in a message."""
    for _ in range(8):  # a partial of a partial of …
        kind = type(func)
        if kind is partial:
            func = cast("partial[object]", func).func
        elif kind is MethodType:
            func = cast("MethodType", func).__func__
        else:
            break
    if isinstance(func, type):
        return type.__getattribute__(func, "__qualname__")  # type: ignore[no-any-return]  # a str
    if type(func) in _NAMED:
        return cast("FunctionType", func).__qualname__
    return "None" if func is None else f"a {type(func).__qualname__}"
