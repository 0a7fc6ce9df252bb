"""Turns of others that come first, so that a loop which tries again and again is no endless schedule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from .context import Context, one_lane


class _Since:
    """What has happened since a context yielded last."""

    __slots__ = ("could_run", "ran", "robbed")

    def __init__(self) -> None:
        self.could_run: set[Context] | None = None  # all the time; None: it has not yielded before
        self.robbed: set[Context] = set()  # could run until this one has taken what they need
        self.ran: set[Context] = set()


class Fairness:
    """Turns of others that come first: for a context that says again and again that it gets nowhere by itself.

    Without it, a loop that tries until somebody else has done something is an endless schedule in which that one never
    runs. A context that *yields* goes on only when each other one has had a turn that could have run all the time since
    it yielded before, or that it has kept from running. The interrupt and the softclock of a CPU are one in this: what
    one of them begins the other carries on. The first time costs nothing. An endless run that is left is the program's
    own.

    Source: Musuvathi and Qadeer, Fair Stateless Model Checking, PLDI 2008.
    """

    __slots__ = ("behind", "since")

    def __init__(self) -> None:
        self.behind: dict[Context, set[Context]] = {}  # each that waits: for a turn of which
        self.since: dict[Context, _Since] = {}  # each that has yielded

    def yields(self, me: Context, runnable: Sequence[Context]) -> None:
        """*me* gets nowhere until others have run."""
        since = self.since.get(me)
        if since is None:
            since = self.since[me] = _Since()
        if since.could_run is not None:
            first = (since.could_run | since.robbed) - since.ran
            if first:
                self.behind.setdefault(me, set()).update(first)
        since.could_run = {context for context in runnable if context is not me}
        since.robbed = set()
        since.ran = set()

    def admit(self, runnable: list[Context]) -> list[Context]:
        """Return those that need not wait for a turn of another one that can run."""
        behind = self.behind
        return [
            context
            for context in runnable
            if context not in behind or not any(other in behind[context] for other in runnable)
        ]

    def took_turn(self, chosen: Context, before: Sequence[Context], after: Sequence[Context]) -> None:
        """*chosen* has made a step: which could run before it, and which can now."""
        for me, since in self.since.items():
            assert since.could_run is not None
            since.ran.add(chosen)
            since.could_run.intersection_update(after)
            if one_lane(me, chosen):
                since.robbed.update(context for context in before if context not in after)
        for me in [me for me, first in self.behind.items() if chosen in first]:
            self.behind[me].discard(chosen)
            if not self.behind[me]:
                del self.behind[me]

    def digest(self) -> int:
        """Return a number, the same in each process, for who waits for whom, now or soon; 0 if none has yielded."""
        if not self.since:
            return 0
        told = [
            (me.name, _names(since.could_run or ()), _names(since.robbed), _names(since.ran))
            for me, since in self.since.items()
        ]
        waits = [(me.name, _names(first)) for me, first in self.behind.items()]
        return crc32(repr((sorted(told), sorted(waits))).encode())


def _names(contexts: Iterable[Context]) -> tuple[str, ...]:
    return tuple(sorted(context.name for context in contexts))
