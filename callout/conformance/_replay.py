"""Replaying a scenario step by step, and comparing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Protocol

from . import _words
from ._format import Scenario, Step
from ._schema import EVENTS

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
        """Throw everything away, whatever its state: threads may be blocked and callbacks may wait at gates."""
        ...


@dataclass(frozen=True)
class Mismatch:
    """Where an implementation differs: in which *step*, and in *what*: "result", "events" or "state".

    ``str()`` of it is a few short lines, with what was armed how.
    """

    scenario: Scenario
    step: int
    what: str
    expected: Any  # Any: JSON
    got: Any  # Any: JSON

    @property
    def kind(self) -> str:
        """Which kind of difference this is, in a few words: the same for all scenarios that differ so."""
        return self._difference()[0]

    @property
    def callouts(self) -> list[str]:
        """The names of the callouts that the difference is about."""
        step = self.scenario.steps[self.step]
        names = [*self._difference()[2], *(arg for arg in step.args[:1] if isinstance(arg, str))]
        return [name for name in dict.fromkeys(names) if name in self.scenario.callouts][:3]

    def lines(self) -> list[str]:
        """Return what to say of it, below the scenario's id."""
        return [
            _words.step(self.scenario, self.step),
            self._difference()[1],
            *(_words.armed_how(self.scenario, name, self.step) for name in self.callouts),
        ]

    def __str__(self) -> str:
        return "\n  ".join([_words.heading(self.scenario), *self.lines()])

    def _difference(self) -> tuple[str, str, list[str]]:
        """Return its kind, the line that shows it, and names that may be those of callouts."""
        if self.what == "result":
            return _different_results(f"result of {self.scenario.steps[self.step].op}", self.expected, self.got)
        if self.what == "state":
            return self._different_state()
        return self._different_events()

    def _different_state(self) -> tuple[str, str, list[str]]:
        names = [name for name, state in self.expected.items() if self.got[name] != state]
        first, second = self.expected[names[0]], self.got[names[0]]
        bit = f"state() must return a list of {len(first)} integers"
        if isinstance(second, list) and len(second) == len(first):
            at = next(at for at, each in enumerate(first) if second[at] != each)
            bit = f"state: {('pending', 'active')[at]}: {_expected(first[at], second[at])}"
        left, right = ({name: state[name] for name in names} for state in (self.expected, self.got))
        return bit, f"state: {_expected(left, right)}", names

    def _different_events(self) -> tuple[str, str, list[str]]:
        actor, at, want, have = _first_difference(self.expected, self.got)
        names = [name for event in (want, have) for name in (event or [])[1:3] if isinstance(name, str)]
        where = f"events: {actor}[{at}]: {_expected(want, have, nothing='nothing')}"
        if want is None or have is None:
            kind = f"events: missing {want[0]}" if want else f"events: unexpected {have[0] if have else ''}"
        elif want[0] != have[0]:
            kind = f"events: expected {_words.value(want[0])}, got {_words.value(have[0])}"
        elif want[0] == "op" and want[:3] == have[:3]:
            kind = _different_results(f"events: result of {want[1]} in a callback", want[3], have[3])[0]
        elif want[0] == "unblocked":
            kind = _different_results("events: result of a blocked op", want[1], have[1])[0]
        else:
            kind = f"events: another {want[0]}"
        return kind, where, names


def _first_difference(
    expected: dict[str, list[Event]], got: dict[str, list[Event]]
) -> tuple[str, int, Event | None, Event | None]:
    for actor in [*expected, *(name for name in got if name not in expected)]:
        for at, (want, have) in enumerate(zip_longest(expected.get(actor, []), got.get(actor, []))):
            if want is None or have is None or _plain(want) != _plain(have):
                return actor, at, want, have
    raise AssertionError("the events are the same")


def _expected(want: object, have: object, nothing: str = "null") -> str:
    left, right = (nothing if each is None else _words.value(each) for each in (want, have))
    return f"expected {left}, got {right}"


def _different_results(what: str, want: object, have: object) -> tuple[str, str, list[str]]:
    # The text of an error differs from one scenario to the next, and is not compared.
    left, right = ("an error" if _is_error(each) else _words.value(each, 40) for each in (want, have))
    return f"{what}: expected {left}, got {right}", f"{what.partition(' ')[0]}: {_expected(want, have)}", []


def replay(scenario: Scenario, subsystem: Subsystem) -> Mismatch | None:
    """Run *scenario*, and return the first difference, or None.

    Blocks until the implementation has done what it was told; it has no time limit. What the implementation raises
    comes out of it, and so does TypeError for what is not in the form that ``Subsystem`` asks for.
    """
    return replay_steps(scenario, subsystem, lambda number: None)


def replay_steps(scenario: Scenario, subsystem: Subsystem, note: Callable[[int], object]) -> Mismatch | None:
    """Do what ``replay`` does, and *note* each step before it is done."""
    for number, step in enumerate(scenario.steps):
        note(number)
        events: dict[str, list[Event]] = {}
        if step.actor == "clock":
            enough = sum(map(len, step.events.values())) + 1
            for _ in range(step.args[0]):
                subsystem.tick()
                _settle(subsystem, events)
                if sum(map(len, events.values())) > enough:
                    break  # it differs already: a callback that runs wild must not do so for all ticks
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
        state = {name: _json(subsystem.state(name)) for name in step.state}
        if state != step.state:
            return Mismatch(scenario, number, "state", step.state, state)
    return None


def _settle(subsystem: Subsystem, events: dict[str, list[Event]]) -> None:
    subsystem.settle()
    found: object = subsystem.events()  # object: it is somebody else's
    if not isinstance(found, Mapping):
        raise TypeError(f"events() must return a dict: actor -> list of events, not {_type(found)}")
    for actor, done in found.items():
        if not isinstance(actor, str) or not isinstance(done, list | tuple):
            raise TypeError(f"events() must map names of actors to lists, not {_type(actor)} to {_type(done)}")
        for event in done:
            plain = _json(event)
            word = plain[0] if isinstance(plain, list) and plain else None
            if not isinstance(word, str) or len(plain) != 1 + _WORDS.get(word, len(plain)):
                raise TypeError(f"events() has {_words.value(plain)}, which is no event of the format")
            events.setdefault(actor, []).append(plain)


_WORDS: Final[Mapping[str, int]] = {
    "ret": 1,
    "error": 1,
    **{name: len(kinds) for name, kinds in EVENTS.items() if name != "unblocked"},
}


def _type(value: object) -> str:
    return "None" if value is None else f"something of type {type(value).__name__}"


def _json(value: object, depth: int = 4) -> Any:  # noqa: ANN401 - JSON
    """Return a value of an implementation as JSON has it, so that a tuple is a list, and True is 1."""
    if isinstance(value, list | tuple) and depth:
        return [_json(each, depth - 1) for each in value]
    if isinstance(value, Mapping) and depth:
        return {str(key): _json(each, depth - 1) for key, each in value.items()}
    if isinstance(value, int):
        return int(value) if value.bit_length() < 4096 else "<a huge int>"  # str() refuses longer ones
    if value is None or isinstance(value, str):
        return value
    return f"<{type(value).__name__}>"


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
