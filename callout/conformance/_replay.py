"""Replaying a scenario step by step, and comparing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from ._format import Scenario, Step

Event = list[Any]  # Any: JSON


class Subsystem(Protocol):
    """One freshly started timer subsystem that has the locks, callouts and threads of a scenario: what you write to
    be judged.

    Operations are *begun*; what came of them is asked after ``settle()``. Threads are called by their names in the
    scenario, CPUs ``cpu0``, ``cpu1`` …
    """

    def begin(self, thread: str, op: str, args: tuple[Any, ...]) -> None:
        """Have a thread begin an operation, and do not wait for it. Ops and arguments are those of ``FORMAT.md``."""
        ...

    def open_gate(self, gate: str) -> None:
        """Open a gate, for good, and do not wait."""
        ...

    def tick(self) -> None:
        """Move time by one tick: every CPU with a deadline that has come takes its clock interrupt. Do not wait."""
        ...

    def settle(self) -> None:
        """Wait until every CPU and thread is idle or blocked.

        Never by sleeping: from what each is known to wait for.
        """
        ...

    def events(self) -> dict[str, list[Event]]:
        """Return what each actor did since the last call, in its order.

        Events are those of ``FORMAT.md``, and two more: ``["ret", value]`` when a thread's operation returned, with
        ``{"error": text}`` if it was refused, and ``["error", text]`` of a CPU when a callback's misuse was found
        after it had returned.
        """
        ...

    def state(self, callout: str) -> list[int]:
        """Return the state of a callout: ``[pending, active]``, for Linux ``[pending]``."""
        ...

    def close(self) -> None:
        """Throw everything away, whatever its state: threads may be blocked and callbacks may stand at gates."""
        ...


@dataclass(frozen=True)
class Mismatch:
    """Where an implementation differs."""

    scenario: Scenario
    step: int
    what: str
    expected: object
    got: object

    def __str__(self) -> str:
        do = self.scenario.steps[self.step]
        return (
            f"{self.scenario.id}: {self.scenario.name}\n"
            f"  step {self.step}: {do.actor} {do.op} {' '.join(map(json.dumps, do.args))}\n"
            f"  {self.what}: expected {json.dumps(self.expected)}, got {json.dumps(self.got)}"
        )


def replay(scenario: Scenario, subsystem: Subsystem) -> Mismatch | None:
    """Run *scenario*, and return the first difference, or None."""
    for number, step in enumerate(scenario.steps):
        events: dict[str, list[Event]] = {}
        if step.actor == "clock":
            for _ in range(step.args[0]):
                subsystem.tick()
                _settle(subsystem, events)
        else:
            if step.actor == "gate":
                subsystem.open_gate(step.args[0])
            else:
                subsystem.begin(step.actor, step.op, step.args)
            _settle(subsystem, events)
        ret = _result(step, events)
        for actor, done in events.items():
            events[actor] = [["unblocked", *event[1:]] if event[0] == "ret" else event for event in done]
        events = {actor: done for actor, done in events.items() if done}
        if not _same_result(step.ret, ret):
            return Mismatch(scenario, number, "result", step.ret, ret)
        if not _same_events(step.events, events, "sametick" in scenario.tags):
            return Mismatch(scenario, number, "events", step.events, events)
        state = {name: subsystem.state(name) for name in step.state}
        if state != step.state:
            return Mismatch(scenario, number, "state", step.state, state)
    return None


def _settle(subsystem: Subsystem, events: dict[str, list[Event]]) -> None:
    subsystem.settle()
    for actor, done in subsystem.events().items():
        events.setdefault(actor, []).extend(done)


def _result(step: Step, events: dict[str, list[Event]]) -> object:
    """Take the step's own result out of the events."""
    for actor, done in events.items():
        for event in done:
            if event[0] == "error":
                events[actor] = [other for other in done if other[0] != "error"]
                return {"error": event[1]}
    if step.actor in ("clock", "gate"):
        return None
    mine = events.get(step.actor, [])
    for event in mine:
        if event[0] == "ret":
            mine.remove(event)
            return event[1]
    return "blocked"


def _is_error(value: object) -> bool:
    return isinstance(value, dict) and "error" in value


def _same_result(expected: object, got: object) -> bool:
    """Of an error only that it is one is compared."""
    return (_is_error(expected) and _is_error(got)) or expected == got


def _plain(event: Event) -> Event:
    return [{"error": ""} if _is_error(value) else value for value in event]


def _groups(events: list[Event]) -> list[list[Event]]:
    groups: list[list[Event]] = [[]]
    for event in events:
        if event[0] in ("call", "waitlock"):
            groups.append([])
        groups[-1].append(event)
    return sorted(groups, key=json.dumps)


def _same_events(expected: dict[str, list[Event]], got: dict[str, list[Event]], as_sets: bool) -> bool:
    if expected.keys() != got.keys():
        return False
    for actor, want in expected.items():
        left, right = [_plain(event) for event in want], [_plain(event) for event in got[actor]]
        if left != right and not (as_sets and actor.startswith("cpu") and _groups(left) == _groups(right)):
            return False
    return True
