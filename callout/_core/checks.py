"""Is this argument what it should be? Asked before anything changes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from . import frames, phases
from .cpu import Cpu
from .describe import name_of, shown
from .errors import ArgumentTypeError, ArgumentValueError, LockNotHeldError, NotInitializedError
from .machine import Machine
from .phases import Use, admit
from .refusal import Refusal
from .state import Record
from .units import exact_int

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .._locks.lock import Lock

GIVEN: Final = "the callback must be a function"  # of whatever arguments it is given
REFUSED_CODE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


def check_int(call: str, name: str, value: object, low: int, high: int) -> int:
    """Return *value* if it is an int in that range."""
    if type(value) is not int:
        raise ArgumentTypeError(f"{call}: {name} must be an int, not {shown(value)}", call=call)
    if not low <= value <= high:
        raise ArgumentValueError(f"{call}: {name} must be from {low} to {high}, got {shown(value)}", call=call)
    return value


def check_bool(call: str, name: str, value: object) -> None:
    """Raise unless *value* is a bool."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{call}: {name} must be True or False, not {shown(value)}", call=call)


def check_func(call: str, func: object, what: str = "the callback must be a function of one argument") -> None:
    """Raise unless *func* is a plain function, as far as one can tell without calling it. *what* is for the message."""
    target: Any = func
    while type(target) is partial:
        target = target.func
    if type(target) is not FunctionType and type(target) is not MethodType:
        if not callable(target):
            raise ArgumentTypeError(f"{call}: {what}, not {shown(func)}", call=call)
        method = type(target).__call__
        target = method if isinstance(method, FunctionType) else target
    code = getattr(target, "__code__", None)
    if code is not None and code.co_flags & REFUSED_CODE:
        raise ArgumentTypeError(
            f"{call}: {shown(func)} is a coroutine or generator function, and calling it would run nothing; give a "
            "plain function, and start asynchronous work from it with system.cpu(0).start_soon(async_function, ...); "
            "for a timer that starts a task use nursery.start_later()",
            call=call,
        )


def check_takes(call: str, what: str, func: Callable[..., object], *names: str) -> None:
    """Raise if *func*, which is *what*, cannot be called with the arguments *names*, as far as one can tell."""
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):  # one of C that does not say
        return
    try:
        signature.bind(*names)
    except TypeError:
        raise ArgumentTypeError(
            f"{call}: {what} is called with {' and '.join(names)}, and {shown(func)} takes {signature}", call=call
        ) from None


def check_cpu(call: str, machine: Machine, cpu: object) -> Cpu:
    """Return the CPU of that number."""
    if type(cpu) is not int:
        raise ArgumentTypeError(f"{call}: cpu must be an int, not {shown(cpu)}", call=call)
    if not 0 <= cpu < len(machine.cpus):
        raise ArgumentValueError(
            f"{call}: there is no cpu {shown(cpu)}; this system has {len(machine.cpus)}, counted from 0", call=call
        )
    return machine.cpus[cpu]


def not_a_callout(call: str, c: object, what: str = "the first argument") -> NoReturn:
    """Raise, for a first argument that is not a Callout, or that has none of a Callout's fields.

    For the ``except AttributeError`` of a short path, which so looks at nothing, and for ``check_callout()``.
    """
    if issubclass(type(c), Record):
        raise NotInitializedError(
            f"{call}: this {type(c).__qualname__} was never made: its __init__() did not call Callout.__init__()",
            call=call,
            callout=c,
        ) from None
    raise ArgumentTypeError(f"{call}: {what} must be a Callout, not {shown(c)}", call=call) from None


def not_held(call: str, c: Callout, lock: Lock) -> LockNotHeldError:
    """Return the error for a caller that does not hold *lock*, the one of *c*; raise if that was destroyed."""
    raw = lock._raw
    if isinstance(raw, Refusal):
        raw.refuse(call)  # it was destroyed, and nobody can acquire it; drain and aclose need no lock
    return LockNotHeldError(
        f"{call}: acquire {lock!r} first; it is the lock of {c!r}", call=call, callout=c, lock=lock, cpu=c.c_cpu.id
    )


def check_callout(call: str, c: object, what: str = "the first argument") -> None:
    """Raise unless *c* is a Callout."""
    if not issubclass(type(c), Record) or getattr(c, "c_cpu", None) is None:
        not_a_callout(call, c, what)


def machine_of(c: Callout, call: str = "") -> Machine:
    """Return the machine of *c*, or raise, in the name of *call*, if it has none."""
    if not issubclass(type(c), Record):
        not_a_callout(call or frames.entry(), c)
    try:
        if c.c_cpu.id < 0:
            never(c, call)
        machine = c.c_cpu.machine
    except AttributeError:
        not_a_callout(call or frames.entry(), c)
    if phases.IN_CHILD:
        admit(call or frames.entry(), machine, Use.LOOK)
    return machine


def never(c: Callout, call: str = "") -> NoReturn:
    """Raise, in the name of *call*, for a callout that was never initialised, or was freed."""
    lock = c.c_cpu.lock
    assert isinstance(lock, Refusal)
    lock.refuse(call)


def check_tick(call: str, tick: object) -> int:
    """Return *tick* if it is an int, whatever its size: ticks wrap. What is returned is of no subclass."""
    exact = exact_int(tick)
    if exact is None:
        raise ArgumentTypeError(
            f"{call}: tick must be an int, a clock tick as ticks() counts them, not {shown(tick)}", call=call
        )
    return exact


def refuse_unrun(func: object, result: object) -> None:
    """Raise if what a callback has returned is a coroutine or a generator: nobody would ever run it."""
    if isinstance(result, (Coroutine, Generator, AsyncGenerator)):
        if not isinstance(result, AsyncGenerator):
            result.close()  # it is said here that it was not run
        raise ArgumentTypeError(
            f"the callback {name_of(func)} has returned a {type(result).__qualname__}, which nobody will run; give a "
            "plain function, and start asynchronous work from it with system.cpu(0).start_soon(async_function, ...)"
        )
