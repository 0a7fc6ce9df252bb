"""What must hold of one timer in whatever kernel: a spectator of a model, and no part of it.

What it notes and looks at is in one piece with the step of the model just before, as ``vm.setup()`` makes it, so it
adds no switch point. All that it keeps is in cells: a search that leaves out equivalent schedules sees that the start
of a handler and the end of a delete are in conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .._worlds.virtual.models import Cell
from ..testing import VirtualSMP


class Watch:
    """Sees each arming, each run of the handler H, and when a synchronous delete returns."""

    def __init__(self, vm: VirtualSMP) -> None:
        self._vm = vm
        self._armings = vm.cell(0, "armings that neither ran nor were stopped")
        self._running: Cell[tuple[str, ...]] = vm.cell((), "where H runs")
        self._runs = vm.cell(0, "how often H was called")
        self._deleted = vm.cell("", "what has deleted the timer")

    def armed(self, *, replaced: object = False) -> None:
        """Note an arming. One that was *replaced* by it neither runs nor is stopped."""
        if not replaced:
            with self._vm.setup():
                self._armings.value += 1

    @contextmanager
    def handler(self, where: str) -> Iterator[int]:
        """H runs: the block. Yields how often it was called, this time included."""
        with self._vm.setup():
            deleted = self._deleted.value
            assert not deleted, f"{deleted} returned, and then H starts on {where}"
            self._armings.value -= 1
            self._running.value += (where,)
            self._runs.value += 1
            run = self._runs.value
        yield run
        with self._vm.setup():
            self._running.value = tuple(other for other in self._running.value if other != where)

    def stopped(self, count: int) -> None:
        """A delete says that it has stopped that many armings."""
        with self._vm.setup():
            self._armings.value -= count

    def returned(self, call: str, queued: Callable[[], str]) -> None:
        """A synchronous delete returns: the timer is neither queued nor running, and will not run.

        *queued()* is where it is queued, or an empty string.
        """
        with self._vm.setup():
            for where in self._running.value:
                raise AssertionError(f"{call} returned while H runs on {where}")
            where = queued()
            assert not where, f"{call} returned while the timer is pending on {where}"
            self._deleted.value = call

    def finish(self, pending: int) -> None:
        """All is over: every arming has run or was stopped, and none of them both, but for those that are *pending*."""
        left = self._armings.peek() - pending
        assert left <= 0, f"{left} armings neither ran nor were stopped"
        assert left >= 0, f"{-left} armings ran though they were stopped"
