"""Reading traces: what cannot be read is an error that gives file, line and reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from callout import TraceError, conformance
from callout.conformance import _schema, load, shipped

GOOD: Final[dict[str, Any]] = {
    "id": "x-1",
    "api": "freebsd",
    "tags": ["stop"],
    "ncpu": 1,
    "locks": {"L0": "mtx", "R0": "rw"},
    "callouts": {"c0": {"init": "mpsafe"}, "c1": {"init": "lock", "lock": "L0", "flags": ["TRYLOCK"]}},
    "fns": {"f0": [["stop", "c0"], ["gate", "g0"]]},
    "threads": ["t0"],
    "steps": [
        {"do": ["t0", "stop", "c0"], "ret": -1, "events": {}, "state": {"c0": [0, 0]}},
        {"do": ["clock", "advance", 1], "ret": None, "events": {}, "state": {"c0": [0, 0]}},
    ],
}
LINUX: Final[dict[str, Any]] = {
    **GOOD,
    "api": "linux",
    "locks": {},
    "callouts": {"c0": {"init": "timer", "flags": ["PINNED"], "fn": "f0"}},
    "fns": {"f0": [["mod", "c0", 5]], "f1": []},
    "steps": [{"do": ["t0", "add", "c0", 5], "ret": None, "events": {}, "state": {"c0": [1]}}],
}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the good scenario with a change, as a line."""
    scenario = json.loads(json.dumps(GOOD))
    change(scenario)
    return json.dumps(scenario)


def with_step(step: dict[str, Any]) -> str:
    """Return the good scenario with another second step."""
    return changed(lambda scenario: scenario["steps"].__setitem__(1, step))


def without(name: str) -> str:
    """Return the good scenario without one of its keys."""
    return changed(lambda scenario: scenario.pop(name))


def raw(old: str, new: str) -> str:
    """Return the good scenario with a change to its text."""
    text = json.dumps(GOOD)
    assert old in text
    return text.replace(old, new, 1)


def linux(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the good scenario of Linux with a change, as a line."""
    scenario = json.loads(json.dumps(LINUX))
    change(scenario)
    return json.dumps(scenario)


def events(actor: str, *what: object) -> str:
    """Return the good scenario with these events in its second step."""
    return with_step({**STEP, "do": ["clock", "advance", 1], "events": {actor: [*what]}})


STEP: Final[dict[str, Any]] = {"ret": None, "events": {}, "state": {}}
CALL: Final = ["call", "c0", "f0", 1]
OP: Final = ["op", "stop", "c0", -1]
WRONG: Final[list[tuple[str, str]]] = [
    (json.dumps(GOOD)[:-20], "not JSON (is the file truncated?)"),
    ("hello", "not JSON"),
    ("\0", "not JSON"),
    ("\ufeff" + json.dumps(GOOD), "not JSON"),
    ("[1, 2]", "a scenario must be a JSON object, not a list"),
    ("[" * 100_000, "recursion"),
    ('{"a":' * 40_000, "recursion"),
    ("x" * 300_000, "the line has more than 262144 bytes"),
    # JSON
    (raw('"ncpu": 1', '"ncpu": 1, "ncpu": 1'), "duplicate key 'ncpu'"),
    (raw('"L0": "mtx"', '"L0": "mtx", "L0": "rw"'), "duplicate key 'L0'"),
    (raw('"ncpu": 1', '"ncpu": 1.0'), "'1.0': only integers are allowed as numbers"),
    (raw('"ncpu": 1', '"ncpu": NaN'), "'NaN': only integers"),
    (raw('"ncpu": 1', '"ncpu": -Infinity'), "'-Infinity': only integers"),
    (raw('"ncpu": 1', f'"ncpu": {"9" * 5000}'), "a number of 5000 digits"),
    (raw('"ncpu": 1', '"ncpu": 99999999999'), "ncpu must be 1 to 4, not 99999999999"),
    (changed(lambda s: s.update(title="\ud800")), "title has half of a surrogate pair in it"),
    # the scenario
    *((without(name), f"the scenario has no '{name}'") for name in GOOD),
    (changed(lambda s: s.update(extra=1)), "unknown key of the scenario: 'extra'; known: alloweddeviation, api"),
    (changed(lambda s: s.update(api="netbsd")), "unknown api 'netbsd'; known: freebsd, linux"),
    (changed(lambda s: s.update(api=["freebsd"])), "unknown api a list; known: "),
    (changed(lambda s: s.update(id="")), "id must be a name"),
    (changed(lambda s: s.update(id="a b")), "id must be a name"),
    (changed(lambda s: s.update(title=3)), "title must be a text, not 3"),
    (changed(lambda s: s.update(title="x" * 1001)), "title has 1001 characters, at most 1000 are allowed"),
    (changed(lambda s: s.update(tags=[["unhashable"]])), "tags[0] must be a name"),
    (changed(lambda s: s.update(tags=["a", "a"])), "tags names 'a' twice"),
    (changed(lambda s: s.update(tags=["a"] * 65)), "tags: 65 of them, at most 64 are allowed"),
    (changed(lambda s: s.update(ncpu=5)), "ncpu must be 1 to 4, not 5"),
    (changed(lambda s: s.update(ncpu=True)), "ncpu must be an integer, not true"),
    (changed(lambda s: s.update(alloweddeviation=101)), "alloweddeviation must be 0 to 100"),
    (changed(lambda s: s.update(threads=3)), "threads must be a list, not 3"),
    (changed(lambda s: s.update(threads=["t0", "clock"])), "threads: 'clock' is the name of another actor"),
    (changed(lambda s: s.update(threads=["t0", "cpu0"])), "threads: 'cpu0' is the name of another actor"),
    (changed(lambda s: s.update(thread_cpu={"t1": 0})), "unknown thread 't1'; thread_cpu: the scenario's are t0"),
    (changed(lambda s: s.update(thread_cpu={"t0": 1})), "thread_cpu: t0 must be 0 to 0, not 1"),
    (changed(lambda s: s.update(locks=[])), "locks must be a JSON object, not a list"),
    (changed(lambda s: s["locks"].update(L0="sx")), "unknown kind of lock for L0: 'sx'; known: mtx, rw, spin"),
    (changed(lambda s: s["locks"].update(Giant="mtx")), "Giant always exists"),
    (changed(lambda s: s["locks"].update({f"L{n}": "mtx" for n in range(17)})), "at most 16 are allowed"),
    (
        changed(lambda s: s["callouts"].update(c0={"init": "banana"})),
        "unknown init of c0: 'banana'; known: giant, lock",
    ),
    (changed(lambda s: s["callouts"].update(c0={"init": {}})), "unknown init of c0: an object"),
    (changed(lambda s: s["callouts"].update(c0={})), "callouts: c0 has no 'init'"),
    (changed(lambda s: s["callouts"].update(c0=None)), "callouts: c0 must be a JSON object, not null"),
    (changed(lambda s: s["callouts"]["c0"].update(lock="L0")), "unknown key of callouts: c0: 'lock'"),
    (changed(lambda s: s["callouts"]["c1"].pop("flags")), "callouts: c1 has no 'flags'"),
    (changed(lambda s: s["callouts"]["c1"].update(lock="L9")), "unknown lock 'L9'; the scenario's are Giant, L0, R0"),
    (changed(lambda s: s["callouts"]["c1"].update(flags=["NOLOCK"])), "unknown flag of c1: 'NOLOCK'; known: RETURN"),
    (changed(lambda s: s["fns"].update(f0="stop")), "fns: f0 must be a list, not 'stop'"),
    (changed(lambda s: s["fns"].update(f0=["stop"])), "fns: f0: op 0: an op must be a list, not 'stop'"),
    (changed(lambda s: s["fns"].update(f0=[[]])), "fns: f0: op 0: unknown op null"),
    (changed(lambda s: s["fns"].update(f0=[["jump", "c0"]])), "unknown op 'jump'; in a callback: async_drain, "),
    (changed(lambda s: s["fns"].update(f0=[["drain", "c0"]])), "unknown op 'drain'; in a callback: async_drain, "),
    (changed(lambda s: s["fns"].update(f0=[["stop"]])), "op 'stop' takes 1 arguments, got 0"),
    (changed(lambda s: s["fns"].update(f0=[["stop", "c9"]])), "unknown callout 'c9'; the scenario's are c0, c1"),
    (changed(lambda s: s["fns"].update(f0=[["reset", "c0", 1, "f0", 1, 4]])), "the CPU must be 0 to 0, not 4"),
    (changed(lambda s: s["fns"].update(f0=[["stop", "c0"]] * 17)), "fns: f0: 17 of them, at most 16 are allowed"),
    # steps
    (with_step([]), "step 1: a step must be a JSON object, not a list"),  # type: ignore[arg-type]
    (with_step({"do": ["t0", "jump", "c0"], **STEP}), "step 1: unknown op 'jump'; known: "),
    (with_step({"do": ["t0", ["stop"], "c0"], **STEP}), "step 1: unknown op a list; known: "),
    (with_step({"do": ["t0", "gate", "g0"], **STEP}), "step 1: unknown op 'gate'; known: "),
    (with_step({"do": ["t0", "stop", "c0", 1], **STEP}), "step 1: op 'stop' takes 1 arguments, got 2"),
    (with_step({"do": ["t9", "stop", "c0"], **STEP}), "step 1: unknown actor 't9'; the scenario's threads are t0"),
    (with_step({"do": [{}, "stop", "c0"], **STEP}), "step 1: unknown actor an object"),
    (with_step({"do": ["clock", "stop", "c0"], **STEP}), "step 1: unknown op 'stop'; known: advance"),
    (with_step({"do": ["clock", "advance", 10**6], **STEP}), "the number of ticks must be 1 to 2000, not 1000000"),
    (with_step({"do": ["clock", "advance", 0], **STEP}), "the number of ticks must be 1 to 2000, not 0"),
    (with_step({"do": ["gate", "open", ["g"]], **STEP}), "the word must be a name"),
    (with_step({"do": ["t0"], **STEP}), "step 1: do needs an actor and an op, and has 1 elements"),
    (with_step({"do": ["t0", "rlock", "L0"], **STEP}), "step 1: lock 'L0' is not of kind 'rw'"),
    (with_step({"do": ["t0", "reset", "c0", "1", "f0", 1, None], **STEP}), "the number must be an integer, not '1'"),
    (with_step({"do": ["t0", "reset", "c0", 1, "f9", 1, None], **STEP}), "unknown fn 'f9'; the scenario's are f0"),
    (with_step({"do": ["t0", "reset", "c0", 2**31, "f0", 1, None], **STEP}), "the number must be -2147483648 to"),
    (
        with_step({**STEP, "do": ["t0", "reset", "c0", 1, "f0", 1, 7], "ret": 0}),
        "there is no CPU 7, so ret must be an error",
    ),
    (with_step({"do": ["t0", "stop", "c0"], "events": {}, "state": {}}), "step 1: it has no 'ret'"),
    (with_step({"ret": 1, "events": {}, "state": {}}), "step 1: it has no 'do'"),
    (with_step({"do": ["t0", "stop", "c0"], **STEP, "x": 1}), "step 1: unknown key of it: 'x'"),
    # results
    (with_step({**STEP, "do": ["t0", "stop", "c0"], "ret": None}), "ret must be an integer, not null"),
    (with_step({**STEP, "do": ["t0", "stop", "c0"], "ret": "blocked"}), "ret: this op never blocks"),
    (with_step({**STEP, "do": ["t0", "stop", "c0"], "ret": {"error": 1}}), "ret: error must be a text, not 1"),
    (with_step({**STEP, "do": ["t0", "stop", "c0"], "ret": {}}), "ret has no 'error'"),
    (with_step({**STEP, "do": ["t0", "lock", "L0"], "ret": 0}), "ret must be null, as this op returns nothing, not 0"),
    (with_step({**STEP, "do": ["t0", "stop", "c0"], "ret": 2}), "ret must be -1 or 0 or 1, not 2"),
    (with_step({**STEP, "do": ["t0", "schedule", "c0", 1, None], "ret": -1}), "ret must be 0 or 1, not -1"),
    (with_step({**STEP, "do": ["t0", "unlock", "L0"]}), "t0 does not hold L0, so the result must be an error"),
    (with_step({**STEP, "do": ["t0", "runlock", "R0"]}), "t0 does not hold R0 shared, so the result must be an error"),
    # events
    (events("cpu1", CALL), "unknown actor 'cpu1'; events: the scenario's are cpu0, t0"),
    (events("cpu0"), "events: cpu0 has an empty list"),
    (events("cpu0", "call"), "events: cpu0[0]: an event must be a list, not 'call'"),
    (events("cpu0", ["jump"]), "events: cpu0[0]: unknown event 'jump'; known: call"),
    (events("cpu0", [["call"]]), "events: cpu0[0]: unknown event a list"),
    (events("cpu0", ["call", "c0"]), "event 'call' has 3 elements after its name, got 1"),
    (events("cpu0", ["call", "c0", "f0", None]), "the argument must be an integer, not null"),
    (events("cpu0", CALL, CALL), "events: cpu0[1]: cpu0 is still in the callback of c0"),
    (events("cpu0", OP), "'op' belongs into a callback, and cpu0 is in none"),
    (events("cpu0", CALL, ["return", "c0"]), "events: cpu0[1]: the next thing in the program of f0 is stop c0"),
    (events("cpu0", CALL, ["gate", "g0"]), "the next thing in the program of f0 is stop c0"),
    (events("cpu0", CALL, OP, OP), "the next thing in the program of f0 is the return"),
    (events("cpu0", CALL, OP, ["gate", "g1"]), "the next thing in the program of f0 is the return"),
    (events("cpu0", CALL, OP, ["return", "c1"]), "the callback that returns is that of c0, not of c1"),
    (events("cpu0", CALL, ["op", "stop", "c0", None]), "the result must be an integer, not null"),
    (events("cpu0", CALL, ["op", "stop", "c0", 7]), "the result must be -1 or 0 or 1, not 7"),
    (events("cpu0", CALL, ["drained", "c0"]), "'drained' cannot be in the middle of the callback of c0"),
    (events("cpu0", ["waitlock", "L9"]), "unknown lock 'L9'"),
    (events("cpu0", ["unblocked", 1]), "a CPU has no event 'unblocked'"),
    (events("t0", CALL), "a thread has no event 'call'"),
    (events("t0", ["unblocked", 1]), "t0 was not blocked before this step"),
    # state
    (with_step({**STEP, "do": ["clock", "advance", 1], "state": {"c9": [0, 0]}}), "unknown callout 'c9'; state: the"),
    (with_step({**STEP, "do": ["clock", "advance", 1], "state": {"c0": [0]}}), "state: c0 must have 2 elements, not 1"),
    (with_step({**STEP, "do": ["clock", "advance", 1], "state": {"c0": [0, 2]}}), "state: c0: each must be 0 to 1"),
    (with_step({**STEP, "do": ["clock", "advance", 1], "state": {"c0": [False, 0]}}), "each must be an integer"),
    # Linux
    (linux(lambda s: s["callouts"].update(c0={"init": "mpsafe"})), "unknown init of c0: 'mpsafe'; known: timer"),
    (linux(lambda s: s["callouts"]["c0"].update(fn="f9")), "unknown fn 'f9'"),
    (linux(lambda s: s["steps"][0].update(do=["t0", "add", "c0", -1])), "the delta must be 0 to 2147483647, not -1"),
    (linux(lambda s: s["steps"][0].update(do=["t0", "stop", "c0"])), "unknown op 'stop'"),
    (linux(lambda s: s["steps"][0].update(state={"c0": [1, 1]})), "state: c0 must have 1 elements, not 2"),
    (linux(lambda s: s["steps"][0].update(events={"cpu0": [["call", "c0", "f1", None]]})), "c0 was set up with f0"),
    (linux(lambda s: s["steps"][0].update(events={"cpu0": [["call", "c0", "f0", 1]]})), "must be null, not 1"),
]


@pytest.mark.parametrize(("line", "reason"), WRONG, ids=range(len(WRONG)))
def test_a_line_that_cannot_be_read(tmp_path: Path, line: str, reason: str) -> None:
    """A line that is no scenario is reported with its file, its number and what is wrong with it."""
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{line}\n", encoding="utf-8")
    scenarios = load(path)

    assert next(scenarios).id == "x-1"
    with pytest.raises(TraceError) as caught:
        next(scenarios)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert reason in str(caught.value)


def test_a_blocked_thread_begins_nothing(tmp_path: Path) -> None:
    """A thread that does something before it was unblocked is an error of the file."""
    with_lock = {"do": ["t0", "lock", "L0"], "ret": "blocked", "events": {}, "state": {}}
    path = tmp_path / "traces.jsonl"
    path.write_text(changed(lambda s: s.update(steps=[with_lock, with_lock])))
    with pytest.raises(TraceError, match=r":1: step 1: t0 begins an op, but it is still blocked in another"):
        list(load(path))


def step(thread: str, op: str, lock: str, ret: object = None, **events: object) -> dict[str, Any]:
    """Return a step that does something with a lock."""
    return {"do": [thread, op, lock], "ret": ret, "events": events, "state": {}}


def in_callback(op: str, lock: str, result: object, callout: str = "c1", fn: str = "f0") -> dict[str, Any]:
    """Return a step in which a callback releases a lock."""
    return {
        **STEP,
        "do": ["clock", "advance", 1],
        "events": {"cpu0": [["call", callout, fn, 0], ["op", op, lock, result]]},
    }


ERROR: Final = {"error": "not held"}
# What threads and callbacks do with locks, and what is wrong with it; "" for nothing.
LOCKING: Final[list[tuple[list[dict[str, Any]], str]]] = [
    ([step("t0", "lock", "L0"), step("t0", "unlock", "L0")], ""),
    ([step("t0", "lock", "L0"), step("t0", "unlock", "L0"), step("t0", "unlock", "L0")], "step 2: t0 does not hold L0"),
    ([step("t0", "unlock", "L0", ERROR)], ""),
    ([step("t0", "lock", "L0"), step("t1", "unlock", "L0")], "step 1: t1 does not hold L0"),
    ([step("t0", "rlock", "R0"), step("t0", "unlock", "R0")], "step 1: t0 does not hold R0"),
    ([step("t0", "rlock", "R0"), step("t1", "rlock", "R0"), step("t1", "runlock", "R0")], ""),
    ([step("t0", "lock", "L0"), step("t1", "lock", "L0")], "step 1: t1 cannot have acquired L0, which t0 holds"),
    ([step("t0", "lock", "R0"), step("t1", "rlock", "R0")], "step 1: t1 cannot have acquired R0, which t0 holds"),
    ([step("t0", "rlock", "R0"), step("t1", "lock", "R0")], "step 1: t1 cannot have acquired R0, which t0 holds"),
    (
        [
            step("t0", "lock", "L0"),
            step("t1", "lock", "L0", "blocked"),
            step("t0", "unlock", "L0", t1=[["unblocked", None]]),
            step("t1", "unlock", "L0"),
        ],
        "",
    ),
    (
        [
            step("t0", "lock", "L0"),
            step("t1", "lock", "L0", "blocked"),
            step("t0", "lock", "Giant", t1=[["unblocked", None]]),
        ],
        "step 2: events: t1[0]: t1 cannot have acquired L0, which t0 holds",
    ),
    ([in_callback("unlock", "L0", None)], ""),
    ([in_callback("unlock", "L0", None, callout="c0")], "cpu0 does not hold L0 in the callback of c0"),
    ([in_callback("unlock", "L0", ERROR, callout="c0")], ""),
    ([in_callback("unlock", "Giant", None, fn="f1")], "cpu0 does not hold Giant in the callback of c1"),
]


@pytest.mark.parametrize(("steps", "reason"), LOCKING, ids=range(len(LOCKING)))
def test_a_lock_is_released_by_its_owner(tmp_path: Path, steps: list[dict[str, Any]], reason: str) -> None:
    """A release of a lock that is not held, and an acquisition of one that another thread holds, are no results of a
    kernel.
    """
    path = tmp_path / "traces.jsonl"
    path.write_text(
        changed(
            lambda s: s.update(
                threads=["t0", "t1"], fns={"f0": [["unlock", "L0"]], "f1": [["unlock", "Giant"]]}, steps=steps
            )
        )
    )
    if reason:
        with pytest.raises(TraceError, match=re.escape(reason)):
            list(load(path))
    else:
        assert len(list(load(path))) == 1


def test_the_ticks_of_a_scenario_are_counted_together(tmp_path: Path) -> None:
    """The clock moves by 2000 ticks in all, in however many steps."""
    steps = [{**STEP, "do": ["clock", "advance", ticks]} for ticks in (1500, 500, 1)]
    path = tmp_path / "traces.jsonl"
    path.write_text(changed(lambda s: s.update(steps=steps[:2])))

    assert len(list(load(path))) == 1

    path.write_text(changed(lambda s: s.update(steps=steps)))
    with pytest.raises(TraceError, match="step 2: the scenario's clock moves by more than 2000 ticks"):
        list(load(path))


def test_an_id_stands_once(tmp_path: Path) -> None:
    """Two scenarios with one id are an error that names both lines."""
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n")
    with pytest.raises(TraceError, match=r"traces.jsonl:3: the id 'x-1' is also in line 1"):
        list(load(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """What is not a regular file is refused at once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(TraceError, match="it is not a regular file"):
        list(load(path))


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """The size is looked at before anything is read."""
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse
    with pytest.raises(TraceError, match="it has 1000000000000 bytes, at most 8388608 are allowed: split it"):
        list(load(path))


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """A NUL in a file's name is an error as any other."""
    with pytest.raises(TraceError, match="cannot be read"):
        list(load("a\0b"))


@pytest.mark.parametrize("scenario", [GOOD, LINUX], ids=["freebsd", "linux"])
def test_the_good_scenarios_are_good(scenario: dict[str, Any], tmp_path: Path) -> None:
    """What the wrong lines differ from can be read."""
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(scenario))

    assert [each.id for each in load(path)] == ["x-1"]


def test_the_format_page_names_all_of_the_schema() -> None:
    """FORMAT.md has each key, op, event, kind, flag and limit of the tables."""
    text = (Path(conformance.__file__).parent / "FORMAT.md").read_text("utf-8")
    words = {*_schema.KEYS, *_schema.STEP_KEYS, *_schema.EVENTS, *_schema.LOCK_KINDS}
    words |= {op for ops in _schema.OPS.values() for op in ops}
    words |= {flag for kinds in _schema.CALLOUTS.values() for _, flags in kinds.values() for flag in flags}
    words |= {init for kinds in _schema.CALLOUTS.values() for init in kinds}
    limits = {
        f"{_schema.MAX_FILE_BYTES >> 20} MiB",
        f"{_schema.MAX_LINE_BYTES >> 10} KiB",
        f"{_schema.MAX_NAMES} locks",
        f"{_schema.MAX_PROGRAM} ops",
        f"{_schema.MAX_TAGS} tags",
        f"{_schema.MAX_STEPS:,} steps",
        f"{_schema.MAX_TICKS:,} ticks",
        f"{_schema.MAX_TEXT:,} characters",
        f"{_schema.INT_BITS + 1} bits",
    }

    assert sorted(word for word in words if f"`{word}`" not in text and f'"{word}"' not in text) == []
    assert sorted(limit for limit in limits if limit not in text) == []


def test_the_format_page_says_which_operations_may_block() -> None:
    """FORMAT.md lists the ops that return nothing, and those that may block, as the tables do."""
    text = " ".join((Path(conformance.__file__).parent / "FORMAT.md").read_text("utf-8").split())
    ops = {name: op for api in _schema.OPS.values() for name, op in api.items() if name != "gate"}
    ops |= {name: op for device in _schema.DEVICES.values() for name, op in device.items()}
    void = re.search(r"or `null` for (.*?), or an error;", text)
    blocking = re.search(r'`"blocked"` only of (.*?)\.', text)
    assert void
    assert blocking

    assert set(re.findall(r"`(\w+)`", void[1])) == {name for name, op in ops.items() if not op.results}
    assert set(re.findall(r"`(\w+)`", blocking[1])) == {name for name, op in ops.items() if op.blocks}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be opened is reported with its name and the system's reason."""
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(TraceError) as caught:
        list(load(path))

    assert str(caught.value).startswith(f"{path}: cannot be read: ")
    assert "No such file" in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in place of a file is reported."""
    with pytest.raises(TraceError, match="cannot be read"):
        list(load(tmp_path))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """A file that is not UTF-8 is reported with its line."""
    path = tmp_path / "binary.jsonl"
    path.write_bytes(b"\n\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"binary.jsonl:2: .*utf-8"):
        list(load(path))


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    """Characters that Python takes for ends of lines, and JSON does not, may stand in a scenario's title."""
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({**GOOD, "title": "two\u2028lines\x85"}, ensure_ascii=False), encoding="utf-8")

    assert [scenario.name for scenario in load(path)] == ["two\u2028lines\x85"]


@pytest.mark.parametrize(
    "path", [*shipped("freebsd"), *shipped("linux")], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_is_shipped_can_be_read(path: Path) -> None:
    """Every trace file of the package can be read, and no two scenarios of one file have the same id."""
    ids = [scenario.id for scenario in load(path)]

    assert ids
    assert len(ids) == len(set(ids))
