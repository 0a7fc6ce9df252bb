"""Whether a function can share anything with other threads that the platform would not see.

A thread whose function can reach nothing but locks, callouts, cells and other things of this package, constants and
functions of the same kind has nothing else to share: its steps between two calls of the package have nothing to do
with anybody else's. Of any other function nothing is known, and all that such functions do is taken to be one thing.
"""

from __future__ import annotations

import builtins
import dis
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Final

from ..._core import frames
from ..._core.state import Callout
from ..._locks.lock import Lock
from .models import Visible

_VALUES: Final = (type(None), bool, int, float, str, bytes)
_THINGS: Final = (Lock, Callout, Visible)
_REBINDS: Final = frozenset({"STORE_DEREF", "STORE_GLOBAL", "DELETE_DEREF", "DELETE_GLOBAL", "IMPORT_NAME"})
_HARMLESS: Final = frozenset({"range", "len", "isinstance", "min", "max", "abs", "bool", "int", "str", "repr"})


def is_pure(func: object, args: tuple[object, ...], *, depth: int = 4) -> bool:
    """Return whether that call can share only what the platform sees."""
    return all(type(arg) in _VALUES or isinstance(arg, _THINGS) for arg in args) and _is_pure(func, depth)


def _is_pure(func: object, depth: int) -> bool:
    if isinstance(func, BuiltinFunctionType):
        return False  # a bound method of a list, perhaps
    if not isinstance(func, FunctionType) or not depth:
        return False
    code = func.__code__
    if frames.is_own_code(code) and not func.__closure__:  # one that has been given nothing
        return True
    if func.__defaults__ or func.__kwdefaults__ or not _keeps_names(code):
        return False
    for cell in func.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not yet there
            return False
        if not isinstance(value, _THINGS) and not _is_pure(value, depth - 1):
            return False
    for name in _globals_of(code):
        if name in func.__globals__:
            value = func.__globals__[name]
            constant = type(value) in _VALUES and name.isupper()
            if not constant and not isinstance(value, _THINGS) and not _is_pure(value, depth - 1):
                return False
        elif name not in _HARMLESS or not hasattr(builtins, name):
            return False
    return True


@lru_cache(maxsize=1024)
def _keeps_names(code: CodeType) -> bool:
    return not any(each.opname in _REBINDS for each in dis.get_instructions(code))


@lru_cache(maxsize=1024)
def _globals_of(code: CodeType) -> tuple[str, ...]:
    return tuple(sorted({each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}))
