"""The sequential reference: what one callout returns if every call is one step.

``explained(history)`` looks for an order of steps, each call's within the time that the call took, in which every
result is the one that was returned and every run that took place is one that had to. If there is none, two results
contradict each other, or one contradicts what ran: whatever an engine does inside, it has to look like some order.

The steps that nobody calls: softclock begins a run (from then on it waits for the callout's lock), it finds that it was
not cancelled and starts it, it ends it.

Source: callout(9), RETURN VALUES; kern_timeout.c, callout_reset_sbt_on(), _callout_stop_safe(), softclock_call_cc().
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

# What a call asks for.
ARM: Final = "arm"
STOP: Final = "stop"
DRAIN: Final = "drain"
DRAIN_ASYNC: Final = "drain_async"

WAITING: Final = "waiting"  # at the callout's lock
CANCELLED: Final = "cancelled"
STARTED: Final = "started"

MOVE_DRAINED: int = -1  # what a drain returns that has removed nothing but a deferred migration

FOR_EVER: Final = 1 << 62


class Asked(NamedTuple):
    """One call: what it asked for, when, and what was returned."""

    kind: str
    cpu: int | None  # for which CPU it arms; None: where the callout is
    cancels: bool  # it may cancel a run that waits for the lock
    sleeps_again: bool  # a drain that released Giant looks again when it has acquired it again
    begun: int
    ended: int
    result: int
    completed: int  # when its completion was called; 0: never


class Happened(NamedTuple):
    """One run: of which arming, and when."""

    call: int
    begun: int
    ended: int


class History(NamedTuple):
    """Everything that was seen of one callout."""

    locked: bool  # it has a lock, so a run waits before it starts
    calls: tuple[Asked, ...]
    runs: tuple[Happened, ...]


class State(NamedTuple):
    """One callout, and the calls that wait for the end of its run."""

    pending: int | None = None  # the arming that is scheduled
    moves_to: int | None = None  # it is scheduled as a migration, deferred until the run has ended
    run: int | None = None  # the arming whose run is in progress
    phase: str = ""
    refusing: bool = False
    cpu: int = 0
    tickets: tuple[int, ...] = ()  # drains that wait, oldest first
    removed: tuple[int, ...] = ()  # those of them to which a run was removed
    woken: frozenset[int] = frozenset()  # drains and completions whose run has ended


class _Search:
    def __init__(self, history: History) -> None:
        self.history = history
        self.ran = {run.call for run in history.runs}
        moments: list[tuple[int, str, int]] = []
        for number, call in enumerate(history.calls):
            moments += [(call.begun, "begun", number), (call.ended, "ended", number)]
            if call.completed:
                moments.append((call.completed, "completed", number))
        for run in history.runs:
            moments += [(run.begun, "run", run.call), (run.ended, "end", run.call)]
        self.moments = sorted(moments)
        self.seen: set[tuple[int, State, frozenset[int], frozenset[int]]] = set()

    def possible(self) -> bool:
        """Whether some order explains the history."""
        todo: list[tuple[int, State, frozenset[int], frozenset[int]]] = [(0, State(), frozenset(), frozenset())]
        while todo:
            node = todo.pop()
            if node in self.seen:
                continue
            self.seen.add(node)
            at, state, open_, done = node
            if at == len(self.moments):
                if state.run is None and state.pending is None:
                    return True
            else:
                _, what, number = self.moments[at]
                if what == "begun":
                    todo.append((at + 1, state, open_ | {number}, done))
                elif self._agrees(what, number, state, done):
                    todo.append((at + 1, state, open_, done))
            for number in open_ - done:
                for after, answered in self._step(number, state):
                    todo.append((at, after, open_, done | {number} if answered else done))
            todo += ((at, after, open_, done) for after in self._softclock(state))
        return False

    @staticmethod
    def _agrees(what: str, number: int, state: State, done: frozenset[int]) -> bool:
        if what == "ended":
            return number in done
        if what == "completed":
            return number in state.woken
        return state.run == number and state.phase == STARTED

    # -- the steps -----------------------------------------------------------------------------------------------

    def _step(self, number: int, state: State) -> Iterator[tuple[State, bool]]:
        """Yield what a call can do, and whether it has returned then; only if the result is the one that was
        returned.
        """
        call = self.history.calls[number]
        if call.kind == ARM:
            after, result = self._arm(number, call, state)
        elif call.kind == DRAIN:
            yield from self._drain(number, call, state)
            return
        else:
            after, result = self._stop(call, state)
            if call.kind == DRAIN_ASYNC:
                outstanding = after.run is not None
                result = int(outstanding)
                if outstanding:
                    after = after._replace(refusing=True, tickets=(*after.tickets, number))
        if result == call.result:
            yield after, True

    @staticmethod
    def _arm(number: int, call: Asked, state: State) -> tuple[State, int]:
        to = state.cpu if call.cpu is None else call.cpu
        removed = False
        if state.run is not None:
            if state.phase == WAITING:
                state = state._replace(phase=CANCELLED)
                removed = True
            if state.refusing:
                return state, int(removed)
            removed = removed or state.pending is not None
            deferred = state.moves_to is not None or to != state.cpu
            return state._replace(pending=number, moves_to=to if deferred else None), int(removed)
        return state._replace(pending=number, cpu=to), int(state.pending is not None)

    @staticmethod
    def _stop(call: Asked, state: State) -> tuple[State, int]:
        removed = state.pending is not None
        state = state._replace(pending=None, moves_to=None)
        if state.run is None:
            return state, 1 if removed else -1
        if call.cancels and state.phase == WAITING:
            return state._replace(phase=CANCELLED), 1
        return state, 0

    def _drain(self, number: int, call: Asked, state: State) -> Iterator[tuple[State, bool]]:
        if number in state.tickets:
            return
        if number in state.woken:
            removed = number in state.removed
            if not call.sleeps_again:
                if call.result == (1 if removed else -1):
                    yield state, True
                return
        else:
            removed = False
        if state.run is None:
            removed = removed or state.pending is not None
            if call.result == (1 if removed else -1):
                yield state._replace(pending=None), True
            return
        if state.moves_to is not None:
            state = state._replace(pending=None, moves_to=None)
            if MOVE_DRAINED == 1:
                state = state._replace(removed=(*state.removed, number))
        yield state._replace(refusing=True, tickets=(*state.tickets, number), woken=state.woken - {number}), False

    def _softclock(self, state: State) -> Iterator[State]:
        """Yield what happens by itself."""
        if state.run is None:
            if state.pending is not None:
                phase = WAITING if self.history.locked else STARTED
                if phase == WAITING or state.pending in self.ran:
                    yield state._replace(pending=None, run=state.pending, phase=phase)
            return
        if state.phase == WAITING:
            if state.run in self.ran:
                yield state._replace(phase=STARTED)
            return
        removed = state.removed
        pending = state.pending
        for ticket in state.tickets:
            if self.history.calls[ticket].kind == DRAIN:
                if pending is not None:
                    pending = None
                    removed = (*removed, ticket)
                break
        yield State(
            pending=pending,
            cpu=state.cpu if pending is None or state.moves_to is None else state.moves_to,
            removed=removed,
            woken=state.woken | set(state.tickets),
        )


@lru_cache(maxsize=1 << 16)
def explained(history: History) -> bool:
    """Whether some order of steps explains the history. Remembered: most schedules look alike from outside."""
    return _Search(history).possible()
