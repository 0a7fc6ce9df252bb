"""What a callout says of itself, for its repr: name, function, CPU, what it is at, when it is due, its lock.

A repr is wanted at any instant: in a message that is made with the lock of a CPU held, by a finalizer that has
interrupted the engine, in a debugger. So no lock is acquired. Each field is read once, through its slot, which is no
step of an exploration; of what another thread changes meanwhile one part may be old and another one new. Arguments are
never shown, for they may be secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._core.cpu import Cpu, Run
from .._core.describe import length_of_time, name_of
from .._core.periodic import Grid
from .._core.seconds import from_ns
from .._core.snapshot import is_awaited, owner_of
from .._core.state import CLOSED, FIELDS, MOVING, PENDING, RUN_WORDS
from .._locks.lock import Lock

if TYPE_CHECKING:
    from .callout import Callout

_NAME: Final = type.__dict__["__name__"].__get__
_LOCK_NAME: Final = Lock.__dict__["name"].__get__
_CPU, _STATE, _RUN, _TIME, _FUNC, _ARG, _LOCK = (
    FIELDS[name].__get__ for name in ("c_cpu", "state", "run", "time", "func", "arg", "lock")
)


def told(thing: object, name: str | None, func: object, where: str, words: list[str]) -> str:
    """Return the repr of a timer: without a name, its address tells it from others."""
    who = f"at {id(thing):#x}" if name is None else str.__repr__(name)
    does = "" if func is None else f" {name_of(func)}"
    return f"<{_NAME(type(thing))} {who}{does}{where}: {', '.join(words) or 'idle'}>"


def callout_told(c: Callout) -> str:
    """Return the repr of a callout. Never raises, never blocks."""
    try:
        cpu = _CPU(c)
    except AttributeError:  # a subclass has forgotten the base class's __init__()
        cpu = None
    if cpu is None or cpu.id < 0:
        return told(c, None, None, "", ["never made" if cpu is None else "not initialised"])
    state, run, func = _STATE(c), _RUN(c), _FUNC(c)
    words = ["closed"] if state & CLOSED else []
    if run is not None:
        words.append(RUN_WORDS[run.state])
        if is_awaited(run):
            words.append("draining")
        if not state & PENDING:
            func = run.func
    if state & PENDING:
        words.append(_due(c, cpu, state, run))
    words = words or ["idle"]
    arg, lock = _ARG(c), _LOCK(c)
    if type(arg) is Grid:
        words.append(f"every {length_of_time(from_ns(arg.times.period))}")
    if lock is not None:
        owner = owner_of(lock)
        words.append(f"lock {str.__repr__(_LOCK_NAME(lock))}{'' if owner is None else f' held by {owner}'}")
    extra = cpu.machine.extras.get(c)
    return told(c, None if extra is None else extra.name, func, f" on cpu {cpu.id}", words)


def due_told(c: Callout) -> str:
    """Return when *c* will run, in words; "" if nothing is scheduled."""
    state = _STATE(c)
    return _due(c, _CPU(c), state, _RUN(c)) if state & PENDING else ""


def _due(c: Callout, cpu: Cpu, state: int, run: Run | None) -> str:
    machine = cpu.machine
    if machine.kind is not machine.plain:  # a look at the clock would be a step of an exploration
        return "pending"
    move = run.move if state & MOVING and run is not None else None
    try:
        left = (_TIME(c) if move is None else move.time) - machine.platform.now()
    except Exception:  # a clock of the user's
        return "pending"
    if left < 0:
        return f"late by {length_of_time(from_ns(-left))}"
    return f"due in {length_of_time(from_ns(left))}" if left else "due now"


__all__ = ["callout_told", "due_told", "told"]
