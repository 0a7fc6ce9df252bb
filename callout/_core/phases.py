"""The life of a callout system, as a table: what each call does from the opening to the close, and in a forked child.

::

    OPENING -> OPEN -> LEAVING -> CANCELLING -> QUIESCING -> CLOSED        any but CLOSED -> FORKED, in a forked child

- ``OPENING``: its CPUs come up. Nobody but the platform knows it yet.
- ``OPEN``: the body of the block.
- ``LEAVING``: the body has ended normally. The tasks that ``start_soon()`` was given before that, and those that they
  start, are waited for; they may need their timers, so everything works as before.
- ``CANCELLING``: what tasks are left are cancelled, and waited for. A block that is left by an exception or a
  cancellation begins here. Callouts still run: a task that cleans up may need one.
- ``QUIESCING``: no task is left. What is pending is stopped, runs in progress and the completions that they have
  promised are awaited; every CPU works until the last of them has returned.
- ``CLOSED``: the block has been left.
- ``FORKED``: this is a forked child; loops and threads of the system are the parent's.

A phase is entered under the locks of all CPUs (``lifecycle.enter``), so the holder of any one of them may rely on what
it reads. ``ADMITS`` is the one place that says what a phase allows; tests/conformance/test_phases.py plays every cell
of it on both platforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

from .errors import ClosedError, ForkedError

if TYPE_CHECKING:
    from .machine import Machine

CLOSED_TEXT: Final = "the callout system was closed: its `async with open_callouts()` block has been left"
LEAVING_TEXT: Final = "no more tasks are started: the `async with open_callouts()` block is being left"
FORKED_TEXT: Final = (
    "this callout system belongs to the parent process: its loops and threads do not exist in a forked child; "
    "open one of your own"
)


IN_CHILD = False  # this process is a forked child of one that had a system: looks, which acquire no lock, are checked


class Phase(IntEnum):
    """Where in its life a system is. In the order of time."""

    OPENING = 0
    OPEN = 1
    LEAVING = 2
    CANCELLING = 3
    QUIESCING = 4
    CLOSED = 5
    FORKED = 6


class Admission(Enum):
    """What a call does in a phase."""

    WORKS = "works"
    NOTHING = "does nothing"  # quietly: an arming returns 0
    CLOSED = "ClosedError"
    FORKED = "ForkedError"


class Use(Enum):
    """The kinds of calls: those of one kind are always admitted alike."""

    INIT = "initialise a callout, make a lock or an Event, bound()"
    ARM = "arm: reset, schedule, arm"
    STOP = "stop, drain, drain_async, terminate, barrier, dequeue, deactivate"
    LOOK = "look at a callout or an Event: pending, active, running, terminated, armed with; set an Event"
    WAIT = "wait for an Event that is not set"
    CURRENT = "ask the current system: ticks(), hz(), curcpu(), giant()"
    LOCK = "acquire and release a lock"
    CALL = "call(), from a thread or a task"
    CALL_INSIDE = "call(), from a callback, a completion or a call"
    START = "start_soon(), from a thread, or a task that is not the system's"
    START_INSIDE = "start_soon(), from a callback, a completion, a call, or a task of the system"


_W, _N, _C, _F = Admission.WORKS, Admission.NOTHING, Admission.CLOSED, Admission.FORKED

#                            OPENING OPEN LEAVING CANCELLING QUIESCING CLOSED FORKED
_ROWS: Final[Mapping[Use, tuple[Admission, ...]]] = {
    Use.INIT:               (_W,     _W,  _W,     _W,        _W,       _C,    _F),
    Use.ARM:                (_W,     _W,  _W,     _W,        _N,       _C,    _F),
    Use.STOP:               (_W,     _W,  _W,     _W,        _W,       _C,    _F),
    Use.LOOK:               (_W,     _W,  _W,     _W,        _W,       _W,    _F),
    Use.WAIT:               (_W,     _W,  _W,     _W,        _W,       _C,    _F),
    Use.CURRENT:            (_W,     _W,  _W,     _W,        _W,       _C,    _F),
    Use.LOCK:               (_W,     _W,  _W,     _W,        _W,       _W,    _F),
    Use.CALL:               (_W,     _W,  _W,     _W,        _W,       _C,    _F),
    Use.CALL_INSIDE:        (_W,     _W,  _W,     _W,        _N,       _C,    _F),
    Use.START:              (_W,     _W,  _W,     _C,        _C,       _C,    _F),
    Use.START_INSIDE:       (_W,     _W,  _W,     _N,        _N,       _C,    _F),
}  # fmt: skip

ADMITS: Final[Mapping[Use, Mapping[Phase, Admission]]] = {
    use: dict(zip(Phase, row, strict=True)) for use, row in _ROWS.items()
}

# The first phase in which something is not admitted. A look at the table is slow, and before that not needed.
_FIRST: Final = next(phase for phase in Phase if any(row[phase] is not _W for row in _ROWS.values()))

# The steps that there are. A child may be forked at any time; what is closed stays closed.
STEPS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.OPENING: frozenset({Phase.OPEN, Phase.CANCELLING, Phase.FORKED}),  # CANCELLING: it could not be opened
    Phase.OPEN: frozenset({Phase.LEAVING, Phase.CANCELLING, Phase.FORKED}),
    Phase.LEAVING: frozenset({Phase.CANCELLING, Phase.FORKED}),
    Phase.CANCELLING: frozenset({Phase.QUIESCING, Phase.FORKED}),
    Phase.QUIESCING: frozenset({Phase.CLOSED, Phase.FORKED}),
    Phase.CLOSED: frozenset({Phase.FORKED}),
    Phase.FORKED: frozenset(),
}


def closed_text(machine: Machine) -> str:
    """Return why *machine* is closed: what a world has noted, else that its block has been left."""
    return str(machine.attached.get("closed", CLOSED_TEXT))


def admit(call: str, machine: Machine, use: Use) -> bool:
    """Return whether *call* is to be carried out now; False: it does nothing. Raise if the phase refuses it."""
    if machine.phase < _FIRST:
        return True
    admission = ADMITS[use][machine.phase]
    if admission is Admission.WORKS:
        return True
    if admission is Admission.NOTHING:
        return False
    if admission is Admission.FORKED:
        raise ForkedError(f"{call}: {FORKED_TEXT}", call=call)
    if machine.phase is not Phase.CLOSED:
        raise ClosedError(f"{call}: {LEAVING_TEXT}", call=call)
    raise ClosedError(f"{call}: {closed_text(machine)}", call=call)
