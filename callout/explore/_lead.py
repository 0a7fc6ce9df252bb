"""Leading a run in the order in which things have happened elsewhere.

The engine tells of the same events on virtual CPUs as on real ones. So a run is led by them: whatever context has to
make the next recorded event goes on until it has made it. What it has to wait for is let run meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from .._core.describe import name_of
from .._core.snapshot import owner_of
from .._core.trace import TraceKind
from .._worlds.virtual.context import INTERRUPT, Context
from .._worlds.virtual.platform import VirtualPlatform
from ._story import Place, place_of

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .._core.cpu import Cpu
    from .._core.state import Func
    from .._locks.lock import Lock

MAIN: Final = "main"
CALLBACK: Final = "on_"  # before the name of a callout: its callback
# Events that are recognised whatever function they name: a completion, none any more, or one of several in one step.
ANY: Final = frozenset({TraceKind.COMPLETING, TraceKind.COMPLETED, TraceKind.ERROR, TraceKind.WAITING, TraceKind.FREED})
AHEAD: Final = 50  # events: what comes so much too early is still recognised


class Expected(NamedTuple):
    """An event that is to come."""

    owner: str  # the context that makes it
    kind: TraceKind
    function: str  # of the callout
    holder: str | None = None  # the context that holds its lock then, and has to have acquired it


class Order:
    """How far a run has come in the recorded order. It is the run's tracer."""

    def __init__(self, expected: Sequence[Expected], platform: VirtualPlatform) -> None:
        self._expected = expected
        self.platform = platform
        self._done = [False] * len(expected)
        self._at = 0
        self._locks: dict[str, Lock] = {}  # of the callout with that function
        self._recent: list[Context] = []  # what has run, the last one at the end
        self.in_order = 0  # events that came when it was their turn
        self._notes = 0  # events that came at all
        self._seen = 0  # of them, when it was asked last
        self._call: tuple[Context, Place] | None = None  # who has made the last one in a call, and where that is made
        self._led: Context | None = None  # who was to go on
        self._astray: tuple[Context, int] | None = None  # who went on instead, and how many events there were then

    def note(
        self, kind: TraceKind, cpu: Cpu, c: Callout, func: Func | None, when: int | None, detail: str | None
    ) -> None:
        """See ``Tracer``. What ``vm.setup()`` does came before."""
        if self.platform.still:
            return
        self._notes += 1
        place = place_of(sys._getframe())
        self._call = None if place is None else (self.platform.me(), place)
        function = "" if func is None else name_of(func).rpartition(".")[2]
        if c.lock is not None:
            self._locks[function] = c.lock
        for at in range(self._at, min(self._at + AHEAD, len(self._expected))):
            event = self._expected[at]
            same = event.kind is kind and (event.function == function or func is None or kind in ANY)
            if same and not self._done[at]:
                # What the same one was to do before it will not do any more: nobody shall wait for that.
                for earlier in range(self._at, at + 1):
                    if self._expected[earlier].owner == event.owner:
                        self._done[earlier] = True
                self._skip_done()
                self.in_order += self._at > at  # nothing of others was to come before it
                break

    def _skip_done(self) -> None:
        while self._at < len(self._done) and self._done[self._at]:
            self._at += 1

    def lead(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return which of *runnable* is to go on: in the recorded order; or what was chosen instead, until it has made
        an event or has to wait.
        """
        if current is None:
            self._astray = None
        elif current is not self._led and self._led is not None:
            self._astray = current, self._seen
        self._seen = self._notes
        if self._astray is not None and self._astray != (current, self._notes):
            self._astray = None
        if current is not None and self._call == (current, place_of(current.frame())):
            chosen = current  # the call has to return, as it had before the next event
        else:
            self._call = None
            chosen = self._next(runnable) or self._helper(runnable, current)
        if self._astray is not None:
            chosen = self._astray[0]
        self._led = chosen
        if not self._recent or self._recent[-1] is not chosen:
            if chosen in self._recent:
                self._recent.remove(chosen)
            self._recent.append(chosen)
        return chosen

    def _next(self, runnable: Sequence[Context]) -> Context | None:
        """Return the context that makes the next event, or leads to it; None if neither can go on."""
        can = {context.name: context for context in runnable}
        while self._at < len(self._expected):
            event = self._expected[self._at]
            lock = self._locks.get(event.function)
            if event.holder in can and lock is not None and owner_of(lock) is None:
                return can[event.holder]
            owner = event.owner
            if owner in can:
                return can[owner]
            if any(context.name == owner for context in self.platform.contexts):
                return can.get(f"{owner}.interrupt")  # that is what an idle softclock waits for
            if MAIN in can:
                return can[MAIN]  # which has not started it yet
            self._done[self._at] = True  # it has ended, and did something else
            self._skip_done()
        return None

    def _helper(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return what the next one may be waiting for: what ran last, and no clock interrupt if anything else can."""
        if current is not None:
            return current
        for context in reversed(self._recent):
            if context in runnable and context.kind != INTERRUPT:
                return context
        return next((context for context in runnable if context.kind != INTERRUPT), runnable[0])
