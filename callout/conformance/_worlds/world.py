"""What a dialect of the traces needs of a world: threads that do as they are told, gates, a hand-driven clock,
quiescence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..._core.machine import Machine


class World(Protocol):
    """Threads, CPUs and time under the replay's control.

    ``worlds`` are made by ``_virtual.VirtualWorld`` and ``_real.RealWorld``.
    """

    machine: Machine

    def enter(self, setup: Callable[[], None]) -> None:
        """Run *setup* with this world's system current."""
        ...

    def post(self, thread: str, thunk: Callable[[], None]) -> None:
        """Have a thread run *thunk*; do not wait."""
        ...

    def wait_at_gate(self, gate: str, log: Callable[[], None]) -> None:
        """Block the calling thread until the gate is open; call *log* first if it is not."""
        ...

    def open_gate(self, gate: str) -> None:
        """Open it, for good."""
        ...

    def tick(self) -> None:
        """Move time by one tick, and interrupt every CPU whose deadline has come; do not wait."""
        ...

    def settle(self) -> None:
        """Wait until nothing can run."""
        ...

    def close(self) -> None:
        """Throw everything away."""
        ...
