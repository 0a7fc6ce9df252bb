"""From an incident to a test: a recorded trace as a scenario.

``_recorded`` reads the file, ``_actors`` finds out who has done what, ``_source`` writes the scenario, and ``_lead``
leads its runs in the recorded order.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final, cast

from .._core.checks import check_int
from .._core.describe import shown
from .._core.errors import ArgumentTypeError
from .._core.lifecycle import trace_with
from .._core.trace import TraceKind
from .._worlds.virtual.vm import VirtualSMP
from ._actors import Actors
from ._explore import explore
from ._lead import Expected, Order
from ._outcome import Certificate, Violation, turns
from ._recorded import read
from ._source import source_of, test_of

if TYPE_CHECKING:
    from .._worlds.virtual.context import Context
    from .._worlds.virtual.platform import VirtualPlatform

MOST: Final = 1 << 31
PATIENCE: Final = 60  # seconds that a test may take
_NUMBERS: Final = count(1)


class Incident:
    """A scenario that was made from a trace by ``incident()``, for ``explore()`` and ``replay()``.

    Its own ``explore()`` begins with the recorded order. Whatever else explores it needs its ``cpus`` and ``hz``, and
    ``short_paths=False``: a system that is traced takes no short path.
    """

    def __init__(self, cpus: int, hz: int, title: str, source: str, expected: Sequence[Expected]) -> None:
        """Use ``incident()``."""
        self.cpus = cpus
        self.hz = hz
        self.title = title  # what went wrong, in words
        self.source = source  # the scenario, as a module
        self._expected = expected
        self._orders: list[Order] = []  # of the first run of a search, and of the last
        self.__name__ = self.__qualname__ = "incident"  # what a schedule calls it
        file = f"<incident {next(_NUMBERS)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        names: dict[str, object] = {"__name__": "incident"}
        exec(compile(source, file, "exec"), names)  # noqa: S102 - of the file it has only names and texts
        self._scenario = cast("Callable[[VirtualSMP], None]", names["incident"])

    def __repr__(self) -> str:
        return f"<Incident: {self.title}>"

    def __call__(self, vm: VirtualSMP) -> None:
        """Be the scenario."""
        order = Order(self._expected, vm.platform)
        self._orders[1:] = [order]
        with vm.setup():
            trace_with(vm.machine, order)
        self._scenario(vm)

    def explore(
        self,
        *,
        bound: int = 0,
        schedules: int | None = None,
        seconds: float | None = None,
        shrink: bool = True,
        progress: bool | None = None,
    ) -> Certificate:
        """Run it in the recorded order, then in every order that departs from it at most *bound* times. Blocks until
        done.

        The arguments are those of ``explore()``, which raises what this raises: ``Violation`` if it goes wrong.
        """
        self._orders = []
        try:
            certificate = explore(
                self,
                cpus=self.cpus,
                hz=self.hz,
                bound=bound,
                strategy="recorded",
                schedules=schedules,
                seconds=seconds,
                short_paths=False,
                shrink=shrink,
                progress=progress,
            )
        except Violation as violation:
            if self.in_order is not None:
                violation.add_note(f"In the first run {turns(self.in_order)}.")
            raise
        return replace(certificate, in_order=self.in_order)

    @property
    def in_order(self) -> tuple[int, int] | None:
        """How many events of the trace came in their turn in the first run of a search, and of how many: where the
        numbers differ, that run was not what was recorded. None if there was none.
        """
        return (self._orders[0].in_order, len(self._expected)) if self._orders else None

    def as_test(self, violation: Violation | None = None) -> str:
        """Return a module with the scenario and a test of it, which fails while it goes wrong; and say in it what
        *violation* has found.
        """
        bound = 2 if violation is None else max(2, violation.preemptions)
        options = f"cpus={self.cpus}, hz={self.hz}, bound={bound}, seconds={PATIENCE}, short_paths=False"
        call = f"explore(incident, {options})"
        note = "Nothing went wrong." if violation is None else f"It went wrong: {violation.schedule}."
        return test_of(self.source, call, note)

    def lead(self, platform: VirtualPlatform, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return which context is to go on in a run on *platform*, for the recorded order."""
        if not self._orders or self._orders[-1].platform is not platform:  # the scenario has not begun
            return runnable[0] if current is None else current
        return self._orders[-1].lead(runnable, current)


def incident(path: str | os.PathLike[str], *, serial: int | None = None, before: int = 0) -> Incident:
    """Return a scenario of what the trace in the file *path*, written by ``system.tracing(path)``, ends in. Reads it,
    and so blocks that long.

    It is about the first callout with which something went wrong, or that of number *serial*. It has the events of all
    callouts that share its lock or were freed with it, from where none of them was running before that, or *before*
    events earlier; until it went wrong.

    Raises:
        OSError: there is no such file, or it cannot be read.
        TraceError: it is no trace, or not whole, or of another version.
        ArgumentTypeError, ArgumentValueError: nothing went wrong in it, or nothing has happened to that callout, or too
            much for a scenario.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"incident: path must be a str or a path, not {shown(path)}", call="incident")
    if serial is not None:
        check_int("incident", "serial", serial, 1, MOST)
    check_int("incident", "before", before, 0, MOST)
    recording = read(path)
    actors = Actors(recording, serial, before)
    source, functions = source_of(actors)
    expected = []
    for number, (at, owner) in enumerate(actors.made):
        event = recording.events[at]
        holder = actors.holder(number) if event.kind is TraceKind.WAITING else None
        expected.append(Expected(owner, event.kind, functions[event.serial], holder))
    return Incident(recording.cpus, recording.hz, actors.title, source, expected)
