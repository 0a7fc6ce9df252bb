"""How parts of a scenario are written for a reader: on one line each, never longer than a terminal can bear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ._format import Scenario, Step
from ._schema import ARMING, GIANT, NAME

LONGEST = 160  # characters of one value


def text(value: str, limit: int = 300) -> str:
    """Return a text for a terminal: what is not printable is escaped, what is too long is cut."""
    cut = value if len(value) <= limit else f"{value[: limit - 1]}…"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)


def value(thing: object, limit: int = LONGEST) -> str:
    """Return a value as JSON, cut."""
    return text(json.dumps(thing, ensure_ascii=False), limit)


def word(thing: object) -> str:
    """Return an argument: a name as it is, anything else as JSON."""
    return thing if isinstance(thing, str) and NAME.fullmatch(thing) else value(thing)


def heading(scenario: Scenario) -> str:
    """Return its id, and its title if it has one."""
    return f"{scenario.id}: {text(scenario.title)}" if scenario.title else scenario.id


def step(scenario: Scenario, number: int) -> str:
    """Return what is done in a step."""
    return f"step {number}: {done(scenario.steps[number])}"


def done(this: Step) -> str:
    """Return what a step does."""
    return " ".join([this.actor, this.op, *map(word, this.args)])


def operation(op: list[Any]) -> str:
    """Return an operation of a callback's program."""
    return " ".join([str(op[0]), *map(word, op[1:])])


def program(scenario: Scenario, fn: str) -> str:
    """Return the program of a function."""
    return ", ".join(map(operation, scenario.fns[fn])) or "(just returns)"


def callout(scenario: Scenario, name: str) -> str:
    """Return how a callout was initialised."""
    how = scenario.callouts[name]
    words = {"mpsafe": "no lock (mpsafe)", "giant": "under Giant", "timer": "a timer"}.get(how["init"], "")
    if "lock" in how:
        kind = "" if how["lock"] == GIANT else f"{scenario.locks[how['lock']]} "
        words = f"under the lock {kind}{how['lock']}"
    flags = how.get("flags", [])
    return ", ".join([words, *flags, *([f"fn {how['fn']}"] if "fn" in how else [])])


def armings(scenario: Scenario, name: str) -> Iterator[tuple[int, str]]:
    """Yield each arming of a callout in the recording: the number of the step, and how it was armed."""
    for number, this in enumerate(scenario.steps):
        if this.op in ARMING and this.args[0] == name:
            yield number, done(this)
        for actor, events in this.events.items():
            in_progress = ""
            for event in events:
                in_progress = event[1] if event[0] == "call" else in_progress
                if event[0] == "op" and event[1] in ARMING and event[2] == name:
                    by = f" in the callback of {in_progress}" if in_progress else " in a callback"
                    yield number, f"{actor} {event[1]} {name}{by}"


def armed_how(scenario: Scenario, name: str, number: int) -> str:
    """Return how a callout was initialised, and armed last up to a step."""
    last = [each for each in armings(scenario, name) if each[0] <= number]
    how = f"last armed in step {last[-1][0]}: {last[-1][1]}" if last else "never armed"
    return f"{name}: {callout(scenario, name)}; {how}"
