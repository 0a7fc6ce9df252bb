"""What is told of while a system is traced: the kinds of events, and the seam to what writes them down."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .cpu import Cpu
    from .state import Func


class TraceKind(StrEnum):
    """What has happened to a callout."""

    ARMED = "armed"  # a run was scheduled, where none was
    REARMED = "rearmed"  # a scheduled run was replaced, or one that waited for its lock was cancelled for it
    DEQUEUED = "dequeued"  # its turn has come: from now on it is no longer pending
    WAITING = "waiting"  # softclock waits for its lock, which another thread holds
    STARTED = "started"  # its callback is called
    FINISHED = "finished"  # its callback has returned, and its lock was released
    MIGRATED = "migrated"  # it has come to this CPU
    STOPPED = "stopped"  # a scheduled run was removed, or one that waited for its lock was cancelled
    NOT_STOPPED = "not stopped"  # a call to stop it has found nothing scheduled
    DRAINED = "drained"  # a call drains it, or waits until it does not run
    CLOSED = "closed"  # it was closed for good
    REFUSED = "refused"  # nothing was armed: it is drained or closed, or the system is being closed
    ERROR = "error"  # something was wrong with its callback
    COMPLETING = "completing"  # the completion of a drain, or of a close, is called
    COMPLETED = "completed"  # and has returned
    FREED = "freed"  # the object that it belongs to was freed, by a ``Slab``


# Of a file.
FORMAT: Final = "callout trace"
VERSION: Final = 1
# Kinds of locks in it.
GIANT: Final = "Giant"
MUTEX: Final = "mutex"
SPIN: Final = "spin mutex"
RECURSIVE: Final = "recursive "  # before one of these two
RWLOCK: Final = "rwlock"
RMLOCK: Final = "rmlock"

WITH_LOCK: Final = ", with its lock"  # of what was freed with a callout


def tell(
    cpu: Cpu,
    kind: TraceKind,
    c: Callout,
    func: Func | None = None,
    when: int | None = None,
    detail: str | None = None,
) -> None:
    """Tell of an event, if *cpu* is traced. *func* None: the function that *c* has now.

    *detail*: of a call that stops, drains or closes it, its name; of an error, its type; of what was freed, the object.

    With the lock of *cpu* held, or on its loop, and when all has been stored: this makes calls.
    """
    tracer = cpu.machine.trace
    if tracer is not None:
        tracer.note(kind, cpu, c, c.func if func is None else func, when, detail)


class Tracer(Protocol):
    """What the engine tells of events, with the lock of the CPU held or on its loop. It must not call the engine."""

    def note(
        self, kind: TraceKind, cpu: Cpu, c: Callout, func: Func | None, when: int | None, detail: str | None
    ) -> None:
        """*kind* has happened to *c* on *cpu*; its function is *func*, and it is scheduled for *when*, in ns."""
