"""The seam between the engine and the world: all that the engine may ask for.

There are two worlds, ``_worlds/trio`` (real loops, real threads) and ``_worlds/virtual``
(deterministic virtual SMP). The same engine runs in both. A platform hands out its primitives once, at construction,
and the engine uses them directly: on trio a raw lock *is* a ``threading.RLock``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .rawlock import RawLock

T = TypeVar("T")

# What owns locks: a thread. On the virtual platform the tasks of one CPU count as one thread, as those of a loop do.
Thread = Hashable


class Waiter(Protocol):
    """A one-shot event with one waiter: it is set once and waited for once, by the task or thread that made it."""

    async def wait(self) -> None:
        """Wait until it is set."""
        ...

    def set(self) -> None:
        """Set it: from any thread, at any instant. Never blocks."""
        ...

    def set_here(self) -> None:
        """Set it, from a task of the loop that waits."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What a platform runs for one CPU."""

    hardclock: Callable[
        [], bool
    ]  # the clock interrupt; True: there is more to do, call again after the other tasks had a turn
    calls: Callable[[], None]  # the interrupt of another CPU: run the cross-CPU calls that were queued
    softclock: Callable[[], Coroutine[Any, Any, None]]


class Platform(Protocol):
    """All the engine may ask of the world."""

    coalesces: bool  # whether wake-ups may be shared within a callout's precision; never under a hand-driven clock

    def attach(self, cpu: int, entry: Entry) -> None:
        """Learn what to run for *cpu*. Called once for each, before anything else."""
        ...

    def now(self) -> int:
        """Return the time in nanoseconds; it never goes back."""
        ...

    def current_thread(self) -> Thread:
        """Return the thread that would own a lock acquired now; never None, which stands for no thread."""
        ...

    def name_of(self, thread: Thread) -> str:
        """Return how to call that thread in a message."""
        ...

    def current_cpu(self) -> int:
        """Return the CPU whose loop this is; for other threads the one they are bound to, 0 unless told otherwise."""
        ...

    def in_callback(self) -> bool:
        """Whether this code runs inside a callback, a completion or a cross-CPU call: on the engine's behalf."""
        ...

    def in_loop(self) -> bool:
        """Whether this thread runs an event loop, so that a blocking wait would stop it."""
        ...

    def refuse_await(self, call: str) -> None:
        """Raise LoopError if this code belongs to a loop whose tasks cannot wait for what a ``waiter()`` stands for."""
        ...

    def raw_lock(self, label: str) -> RawLock:
        """Return a new lock. Its taking and dropping are switch points of the virtual platform."""
        ...

    def cpu_lock(self, cpu: int) -> RawLock:
        """Return the lock of a CPU: a ``raw_lock()`` that the virtual platform knows by its kind."""
        ...

    def waiter(self) -> Waiter:
        """Return a one-shot event on which a task of the current loop can wait."""
        ...

    def idle_waiter(self, cpu: int) -> Waiter:
        """Return what the softclock of *cpu* waits for now that it has nothing to do. It may be the same each time."""
        ...

    def thread_waiter(self) -> Waiter:
        """Return a one-shot event whose ``wait()`` blocks the thread and never yields."""
        ...

    def set_event(self, cpu: int, when: int) -> None:
        """Program the event timer of *cpu* to call its hardclock at *when* nanoseconds (``NEVER``: not at all).

        Called with that CPU's lock held: it must neither block nor call anything of the engine.
        """
        ...

    def interrupt(self, cpu: int) -> None:
        """Have that CPU's loop call its ``Entry.calls`` soon. From any thread, at any instant."""
        ...

    def unguarded(self, label: str) -> Callable[[], object] | None:
        """Return what is to be called before each use of a field that no lock guards, if anything is."""
        ...

    async def checkpoint(self) -> None:
        """Let the other tasks of this loop have a turn."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Return a block whose waits cannot be cancelled."""
        ...

    def shared(self, collection: T, instead: object = None) -> T:
        """Return *collection*, a deque or dict that is used without a lock, or an empty tuple that stands for one. The
        virtual platform notes its uses: as those of *instead*, whose place it takes.
        """
        ...

    def timed_out(self) -> None:
        """Learn that the current task or thread has slept until its time was over."""
        ...

    def freed(self, thing: object) -> None:
        """Learn that *thing*, a callout or a lock of this world, was freed by a ``Slab``."""
        ...

    def racy(self, record: type) -> type:
        """Return the class that records of this class shall have here.

        The virtual platform gives a subclass in which every read without a lock is a switch point, and whose
        ``_plain`` is *record*.
        """
        ...
