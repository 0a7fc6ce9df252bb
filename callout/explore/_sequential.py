"""The sequential reference: what one callout returns if every call is one step.

``explained(history)`` looks for an order of steps, each call's within the time that the call took, in which every
result is the one that was returned and every run that took place is one that had to. If there is none, two results
contradict each other, or one contradicts what ran: whatever an engine does inside, it has to look like some order.

The steps that nobody calls: softclock begins a run (from then on it waits for the callout's lock), it finds that it was
not cancelled and starts it, it ends it.

An arming is known by a label for its function and argument: one that keeps these has the label of that from which it
has them.

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
ASYNC_DRAIN: Final = "async_drain"  # of FreeBSD 11 to 13
TERMINATE: Final = "terminate"
DEACTIVATE: Final = "deactivate"
CLOSE: Final = "close"  # of the whole system
WAITS: Final = (DRAIN, TERMINATE)

WAITING: Final = "waiting"  # at the callout's lock
CANCELLED: Final = "cancelled"
STARTED: Final = "started"

MOVE_DRAINED: int = -1  # what a drain returns that has removed nothing but a deferred migration

FOR_EVER: Final = 1 << 62
REFUSED: Final = -98  # the result of a call that finds the system closed


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
    label: int = 0  # of an arming: which function and argument
    keeps: bool = False  # an arming that keeps these, and has no label of its own


class Happened(NamedTuple):
    """One run: of which function and argument, and when."""

    label: int
    begun: int
    ended: int


# How far the closing of the system has come.
OPEN: Final = 0
QUIESCING: Final = 1  # arming is refused
STOPPED: Final = 2  # and nothing is pending
CLOSED: Final = 3


class History(NamedTuple):
    """Everything that was seen of one callout."""

    locked: bool  # it has a lock, so a run waits before it starts
    calls: tuple[Asked, ...]
    runs: tuple[Happened, ...]  # in their order
    active: bool | None = None  # whether the callout was active in the end; None: nobody has looked


class State(NamedTuple):
    """One callout, and the calls that wait for the end of its run."""

    pending: int | None = None  # the label of the arming that is scheduled
    arg: int = 0  # of that from which the callout has its function and argument
    moves_to: int | None = None  # it is scheduled as a migration, deferred until the run has ended
    run: int | None = None  # of that whose run is in progress
    phase: str = ""
    refusing: bool = False
    cpu: int = 0
    tickets: tuple[int, ...] = ()  # drains that wait, oldest first
    removed: tuple[int, ...] = ()  # those of them to which a run was removed
    woken: frozenset[int] = frozenset()  # drains and completions whose run has ended
    started: int = 0  # how many runs have
    active: bool = False
    terminated: bool = False
    closing: int = OPEN


class _Search:
    def __init__(self, history: History) -> None:
        self.history = history
        moments: list[tuple[int, str, int]] = []
        for number, call in enumerate(history.calls):
            moments += [(call.begun, "begun", number), (call.ended, "ended", number)]
            if call.completed:
                moments.append((call.completed, "completed", number))
        for number, run in enumerate(history.runs):
            moments += [(run.begun, "run", number), (run.ended, "run", number)]
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
                if self._may_end(state):
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

    def _may_end(self, state: State) -> bool:
        idle = state.run is None and state.pending is None
        return idle and state.started == len(self.history.runs) and self.history.active in (None, state.active)

    def _agrees(self, what: str, number: int, state: State, done: frozenset[int]) -> bool:
        if what == "ended":
            return number in done
        if what == "completed":
            return number in state.woken
        in_progress = state.run is not None and state.phase == STARTED and state.started == number + 1
        return in_progress and state.run == self.history.runs[number].label

    # -- the steps -----------------------------------------------------------------------------------------------

    def _step(self, number: int, state: State) -> Iterator[tuple[State, bool]]:
        """Yield what a call can do, and whether it has returned then; only if the result is the one that was
        returned.
        """
        call = self.history.calls[number]
        if call.kind == CLOSE:
            yield from self._close(state)
        elif call.result == REFUSED:
            if state.closing == CLOSED:
                yield state, True
        elif call.kind == ARM:
            for after, result in self._arm(call, state):
                if result == call.result:
                    yield after, True
        elif call.kind in WAITS:
            yield from self._drain(number, call, state)
        elif call.kind == DEACTIVATE:
            yield state._replace(active=False), True
        else:
            after, result = self._stop(number, call, state)
            if result == call.result:
                yield after, True

    @staticmethod
    def _close(state: State) -> Iterator[tuple[State, bool]]:
        if state.closing == OPEN:
            yield state._replace(closing=QUIESCING), False
        elif state.closing == QUIESCING:
            active = state.active and state.pending is None
            yield state._replace(closing=STOPPED, pending=None, moves_to=None, active=active), False
        elif state.closing == STOPPED and state.run is None:
            yield state._replace(closing=CLOSED), True

    @staticmethod
    def _arm(call: Asked, state: State) -> Iterator[tuple[State, int]]:
        if state.terminated or state.closing >= QUIESCING:
            yield state, 0
            if state.terminated or state.pending is None or state.run is not None:
                return  # else it may be replaced as long as it has not been stopped
        to = state.cpu if call.cpu is None else call.cpu
        label = state.arg if call.keeps else call.label
        removed = False
        if state.run is not None:
            if state.phase == WAITING:
                state = state._replace(phase=CANCELLED)
                removed = True
            if state.refusing:
                yield state, int(removed)
                return
            removed = removed or state.pending is not None
            state = state._replace(pending=label, active=True)
            if state.moves_to is not None or to != state.cpu:
                yield state._replace(moves_to=to), int(removed)
            else:
                yield state._replace(arg=label), int(removed)
            return
        yield state._replace(pending=label, arg=label, cpu=to, active=True), int(state.pending is not None)

    @staticmethod
    def _stop(number: int, call: Asked, state: State) -> tuple[State, int]:
        """Do what a stop or an asynchronous drain does."""
        removed = state.pending is not None
        active = state.active and not removed and state.run is None
        state = state._replace(pending=None, moves_to=None, active=active)
        result = (1 if removed else -1) if state.run is None else 0
        if call.kind != ASYNC_DRAIN and call.cancels and state.run is not None and state.phase == WAITING:
            state = state._replace(phase=CANCELLED)
            result = 1
        if call.kind != STOP and state.run is not None:
            state = state._replace(refusing=True, tickets=(*state.tickets, number))
        return state, int(state.run is not None) if call.kind == DRAIN_ASYNC else result

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
                active = state.active and state.pending is None
                terminated = state.terminated or call.kind == TERMINATE
                yield state._replace(pending=None, active=active, terminated=terminated), True
            return
        state = state._replace(terminated=state.terminated or call.kind == TERMINATE)
        if state.moves_to is not None:
            state = state._replace(pending=None, moves_to=None, active=False)
            if MOVE_DRAINED == 1:
                state = state._replace(removed=(*state.removed, number))
        yield state._replace(refusing=True, tickets=(*state.tickets, number), woken=state.woken - {number}), False

    def _softclock(self, state: State) -> Iterator[State]:
        """Yield what happens by itself."""
        ran = self.history.runs[state.started].label if state.started < len(self.history.runs) else None
        if state.run is None:
            if state.pending is not None:
                after = state._replace(pending=None, run=state.pending)
                if self.history.locked:
                    yield after._replace(phase=WAITING)
                elif ran == after.run:
                    yield after._replace(phase=STARTED, started=state.started + 1)
            return
        if state.phase == WAITING:
            if ran == state.run:
                yield state._replace(phase=STARTED, started=state.started + 1)
            return
        removed, pending, active, arg = state.removed, state.pending, state.active, state.arg
        for ticket in state.tickets:
            if self.history.calls[ticket].kind in WAITS:
                if pending is not None:
                    pending, active = None, False
                    removed = (*removed, ticket)
                break
        if pending is not None and state.moves_to is not None:
            if state.closing >= QUIESCING:
                pending, active = None, False
            else:
                arg = pending
        yield state._replace(
            pending=pending,
            arg=arg,
            active=active,
            cpu=state.cpu if pending is None or state.moves_to is None else state.moves_to,
            moves_to=None,
            run=None,
            phase="",
            refusing=False,
            tickets=(),
            removed=removed,
            woken=state.woken | set(state.tickets),
        )


@lru_cache(maxsize=1 << 16)
def explained(history: History) -> bool:
    """Whether some order of steps explains the history. Remembered: most schedules look alike from outside."""
    return _Search(history).possible()
