"""Whether a function can share anything with other threads that the platform would not see.

A thread whose function can reach nothing but locks, callouts, cells and other things of this package, constants and
functions of the same kind has nothing else to share: its steps between two calls of the package have nothing to do
with anybody else's. Of any other function nothing is known, and all that such functions do is taken to be one thing.

What a closure reaches through a variable of the function around it is as good as constant if nothing assigns that
variable a second time: it is an argument, or is assigned in one place, which is in no loop.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Final

from ..._core import frames
from ..._core.cpulock import acquire
from .visible import is_visible

_REBINDS: Final = frozenset({"STORE_DEREF", "STORE_GLOBAL", "DELETE_DEREF", "DELETE_GLOBAL", "IMPORT_NAME"})
_READS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_ASSIGNS: Final = frozenset({"STORE_DEREF", "DELETE_DEREF"})
_HARMLESS: Final = frozenset({"range", "len", "isinstance", "min", "max", "abs", "bool", "int", "str", "repr"})
_GLOBALLY: Final = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_MAKES: Final = frozenset({"BUILD_LIST", "BUILD_SET", "BUILD_MAP", "BUILD_CONST_KEY_MAP"})
_ADORNS: Final = frozenset({"MAKE_FUNCTION", "STORE_ATTR"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "COPY"})
_JUMPS: Final = frozenset({*dis.hasjrel, *dis.hasjabs})
_DEPTH: Final = 4
_ENGINE: Final = type(acquire)  # of the engine's functions: a class of its own, if they are compiled
_ENGINES: Final = "callout._"  # how the names of its modules begin


def is_pure(func: object, args: tuple[object, ...], *, depth: int = _DEPTH) -> bool:
    """Return whether that call can share only what the platform sees."""
    return all(map(is_visible, args)) and _is_pure(func, depth)


def _is_pure(func: object, depth: int) -> bool:
    if type(func) is partial:
        return is_pure(func.func, (*func.args, *func.keywords.values()), depth=depth)
    if isinstance(func, BuiltinFunctionType):
        return False  # a bound method of a list, perhaps
    if not isinstance(func, FunctionType):
        return type(func) is _ENGINE and func.__module__.startswith(_ENGINES)
    if not depth:
        return False
    code = func.__code__
    if frames.is_own_code(code) and not func.__closure__:  # one that has been given nothing
        return True
    if not all(map(is_visible, (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()))):
        return False
    if not _keeps_to_itself(code):
        return False
    for name, cell in zip(code.co_freevars, func.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not yet there
            return False
        if not _is_assigned_once(func, name) or not (is_visible(value) or _is_called_only(code, name, value, depth)):
            return False
    for name in _names(code, _READS):
        if name in func.__globals__:
            value = func.__globals__[name]
            if is_visible(value):
                if not name.isupper() or _is_assigned_later(func.__globals__, name):
                    return False
            elif not _is_called_only(code, name, value, depth):
                return False
        elif name not in _HARMLESS or not hasattr(builtins, name):
            return False
    return True


def _is_called_only(code: CodeType, name: str, value: object, depth: int) -> bool:
    """Return whether *value*, which *code* knows by that name, is a pure function, and no attribute of it is used."""
    return name not in _looked_into(code) and _is_pure(value, depth - 1)


@lru_cache(maxsize=1024)
def _keeps_to_itself(code: CodeType) -> bool:
    """Return whether that function assigns no variable of others, and makes nothing that can change."""
    found = {each.opname for each in _instructions(code)}
    return not (found & _REBINDS or found & _MAKES or found >= _ADORNS)


@lru_cache(maxsize=1024)
def _looked_into(code: CodeType) -> frozenset[str]:
    """Return the names of variables of which an attribute is used."""
    return frozenset(one.argval for one, two in pairwise(_instructions(code)) if two.opname in _ATTRIBUTES)


def _is_assigned_later(variables: dict[str, object], name: str) -> bool:
    """Return whether a function of that module assigns this global variable."""
    for value in variables.values():
        for each in vars(value).values() if isinstance(value, type) else (value,):
            if isinstance(each, FunctionType) and name in _names(each.__code__, _GLOBALLY):
                return True
    return False


@lru_cache(maxsize=4096)
def _names(code: CodeType, how: frozenset[str]) -> frozenset[str]:
    """Return the names that a function uses in instructions of these kinds."""
    return frozenset(each.argval for each in _instructions(code) if each.opname in how)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Yield the instructions of a function and of those that are defined in it."""
    yield from dis.get_instructions(code)
    for inner in _inside(code):
        yield from _instructions(inner)


# -- variables of the function around it -------------------------------------------------------------------------------


def _is_assigned_once(func: FunctionType, name: str) -> bool:
    """Return whether the variable *name*, of a function around *func*, is assigned once in a call of that, at most.
    False if that function is not to be found.
    """
    outermost = _outermost(func)
    return outermost is not None and _is_constant(outermost, func.__code__, name)


def _outermost(func: FunctionType) -> CodeType | None:
    """Return the code of the function of a module, or of a class there, in which *func* was made."""
    first, *path = func.__qualname__.partition(".<locals>")[0].split(".")
    found: object = func.__globals__.get(first)
    for name in path:
        found = vars(found).get(name) if isinstance(found, type) else None
    for _ in range(8):  # decorators
        if not isinstance(found, FunctionType):
            found = getattr(found, "__func__", None)  # of a static method, or one of the class
        elif "__wrapped__" in found.__dict__:
            found = found.__dict__["__wrapped__"]
        else:
            return found.__code__
    return None


@lru_cache(maxsize=1024)
def _is_constant(outermost: CodeType, code: CodeType, name: str) -> bool:
    around = next(_ways(outermost, code), ())
    owner = next((each for each in reversed(around) if name in each.co_cellvars), None)
    if owner is None:
        return False
    assigns = _stores(owner, name)
    is_argument = name in owner.co_varnames[: owner.co_argcount + owner.co_kwonlyargcount]
    if len(assigns) > (0 if is_argument else 1) or any(_assigns(inner, name) for inner in _inside(owner)):
        return False
    jumps = [each for each in dis.get_instructions(owner) if each.opcode in _JUMPS]
    return not any(jump.argval <= each.offset <= jump.offset for each in assigns for jump in jumps)


def _ways(outer: CodeType, code: CodeType) -> Iterator[tuple[CodeType, ...]]:
    """Yield the functions around *code*, outermost first."""
    for inner in _inside(outer):
        if inner is code:
            yield (outer,)
        else:
            for way in _ways(inner, code):
                yield (outer, *way)


def _inside(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


def _assigns(code: CodeType, name: str) -> bool:
    """Return whether a function within the owner of a variable assigns it."""
    if name not in code.co_freevars:
        return False
    return _stores(code, name) != [] or any(_assigns(inner, name) for inner in _inside(code))


def _stores(code: CodeType, name: str) -> list[dis.Instruction]:
    """Return the instructions of that function alone which assign a variable that it shares with others."""
    return [each for each in dis.get_instructions(code) if each.opname in _ASSIGNS and each.argval == name]
