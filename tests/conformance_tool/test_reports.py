"""The reports: kinds, messages, tags, JSON, JUnit XML, --show."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from callout.conformance import Mismatch, Scenario, load, shipped
from callout.conformance._export import as_json, as_junit
from callout.conformance._judge import Failure, Verdict
from callout.conformance._report import report, show
from callout.conformance._tally import Tally


def named(name: str, api: str = "freebsd") -> Scenario:
    """Return a shipped scenario."""
    return next(scenario for path in shipped(api) for scenario in load(path) if scenario.id == name)


def step_of(scenario: Scenario, op: str) -> int:
    """Return the first step that does this op."""
    return next(number for number, step in enumerate(scenario.steps) if step.op == op)


ONE = named("fbs-0001")
CALL = ["call", "c0", "f0", 7]


@pytest.mark.parametrize(
    ("what", "expected", "got", "kind"),
    [
        ("result", 0, 1, "result of reset: expected 0, got 1"),
        ("result", {"error": "some text"}, 0, "result of reset: expected an error, got 0"),
        ("result", 0, "blocked", 'result of reset: expected 0, got "blocked"'),
        ("state", {"c0": [1, 1]}, {"c0": [0, 1]}, "state: pending: expected 1, got 0"),
        ("state", {"c0": [1, 1]}, {"c0": [1, 0]}, "state: active: expected 1, got 0"),
        ("state", {"c0": [1, 1]}, {"c0": None}, "state() must return a list of 2 integers"),
        ("events", {"cpu0": [["waitlock", "L0"]]}, {}, "events: missing waitlock"),
        ("events", {}, {"cpu0": [CALL]}, "events: unexpected call"),
        ("events", {"cpu0": [CALL]}, {"cpu0": [["waitlock", "L0"]]}, 'events: expected "call", got "waitlock"'),
        ("events", {"cpu0": [CALL]}, {"cpu0": [["call", "c1", "f0", 7]]}, "events: another call"),
        (
            "events",
            {"cpu0": [["op", "stop", "c0", 1]]},
            {"cpu0": [["op", "stop", "c0", 0]]},
            "events: result of stop in a callback: expected 1, got 0",
        ),
        ("events", {"t0": [["unblocked", 1]]}, {"t0": [["unblocked", -1]]}, "events: result of a blocked op: expected"),
    ],
)
def test_a_mismatch_has_a_kind(what: str, expected: object, got: object, kind: str) -> None:
    """What differs first is told in a few words that are the same for all scenarios that differ so."""
    assert Mismatch(ONE, 0, what, expected, got).kind.startswith(kind)


def test_a_mismatch_tells_what_was_armed_how() -> None:
    """The message has the callout's initialisation, lock and flags, and its last arming."""
    scenario = named("fn15-0004")
    number = step_of(scenario, "advance")
    callout = next(iter(scenario.callouts))
    message = str(Mismatch(scenario, number, "state", {callout: [1, 1]}, {callout: [0, 1]}))

    assert message.startswith("fn15-0004: TRYLOCK, short delay")
    assert f"\n  step {number}: clock advance " in message
    assert f"\n  {callout}: under the lock mtx L0, TRYLOCK; last armed in step 1: t0 reset {callout} " in message


def test_an_arming_in_a_callback_is_found() -> None:
    """The last arming may be an op of a callback."""
    scenario = next(
        s for path in shipped("freebsd") for s in load(path) if "rearm" in s.tags and "gate" not in s.tags and s.title
    )
    last = len(scenario.steps) - 1
    message = str(Mismatch(scenario, last, "state", {"c0": [0, 1]}, {"c0": [1, 1]}))

    assert " in the callback of c0" in message


def test_a_scenario_without_a_title_is_named_once() -> None:
    """Its id does not stand in its message twice."""
    message = str(Mismatch(replace(ONE, title=""), 0, "result", 0, 1))

    assert message.splitlines()[0] == "fbs-0001"
    assert message.count("fbs-0001") == 1


def test_messages_are_short() -> None:
    """However much an implementation did, its message is cut."""
    long = "c0" * 50_000
    flood = {"cpu0": [["call", long, "f0", number] for number in range(10_000)]}
    result = str(Mismatch(ONE, 0, "result", 0, "x" * 100_000))
    events = str(Mismatch(ONE, 0, "events", {}, flood))
    state = str(Mismatch(ONE, 0, "state", {"c0": [1, 1]}, {"c0": ["x" * 100_000, 1]}))

    assert max(map(len, (result, events, state))) < 1000


def tally(*failures: Failure | None, scenario: Scenario = ONE) -> Tally:
    """Return a run of one scenario with these outcomes."""
    made = Tally("mine:make", None, len(failures))
    for failure in failures:
        made.add(Verdict(scenario, None, 0.5, failure))
    return made


def test_failures_are_grouped_by_kind_and_the_commonest_comes_first() -> None:
    """Three of a kind are shown, the others named."""
    scenarios = [scenario for path in shipped("freebsd") for scenario in load(path)][:12]
    made = Tally("mine:make", None, 13)
    made.add(Verdict(scenarios[0], None, 0, Failure("rare", ("line",))))
    for scenario in scenarios:
        made.add(Verdict(scenario, None, 0, Failure("common", ("line",))))
    lines = list(report(made, with_summary=False))

    assert [line for line in lines if line.startswith("FAILED")] == ["FAILED common (12)", "FAILED rare (1)"]
    assert sum(line == "    line" for line in lines) == 4
    assert (
        "  also: fn15-0004, fn15-0005, fn15-0006, fn15-0007, fn15-0008, fn15-0009, fn15-0010, fn15-0011 and 1 more"
        in (lines)
    )
    assert lines[-1] == "0 passed, 13 failed"


def test_a_report_is_bounded_however_many_kinds_there_are() -> None:
    """The commonest kinds are shown with scenarios, some more are listed, and the rest is counted."""
    lines = list(report(tally(*(Failure(f"kind {number}", ()) for number in range(500))), with_summary=False))

    assert sum(line.startswith("FAILED") for line in lines) == 25
    assert "and 475 more kinds:" in lines
    assert len(lines) < 200


def test_the_summary_counts_by_tag() -> None:
    """Tags with failures have a row; those without are listed."""
    made = tally(None, Failure("k", ()))
    made.add(Verdict(replace(ONE, tags=("fine",)), None, 0, None))
    made.planned += 1
    lines = list(report(made, with_summary=False))

    assert "  idle_reset       1       1" in lines
    assert lines[-4:] == ["Tags of which all passed:", "  fine 1", "", "2 passed, 1 failed"]


def test_without_failures_the_last_line_is_the_only_one() -> None:
    """The summary is printed on request."""
    assert list(report(tally(None), with_summary=False)) == ["1 passed, 0 failed"]
    assert "Tags of which all passed:" in list(report(tally(None), with_summary=True))


def test_json_has_what_the_manual_says() -> None:
    """Each key of the table in the manual is there, and the whole can be written."""
    mismatch = Mismatch(ONE, 0, "result", 0, 1)
    made = tally(None, Failure(mismatch.kind, tuple(mismatch.lines()), 0, mismatch))
    found = json.loads(json.dumps(as_json(made)))

    assert (found["format"], found["passed"], found["failed"], found["not_run"]) == (1, 1, 1, 0)
    assert found["kinds"] == [{"kind": "result of reset: expected 0, got 1", "count": 1, "ids": ["fbs-0001"]}]
    assert found["tags"]["reset"] == {"passed": 1, "failed": 1}
    assert found["scenarios"][0]["failure"] is None
    failure = found["scenarios"][1]["failure"]
    assert (failure["step"], failure["what"], failure["expected"], failure["got"]) == (0, "result", 0, 1)


def test_what_json_has_of_a_flood_is_bounded() -> None:
    """A result without end is cut, and then a string."""
    mismatch = Mismatch(ONE, 0, "events", {}, {"cpu0": [CALL] * 100_000})
    text = json.dumps(as_json(tally(Failure("k", (), 0, mismatch))))

    assert len(text) < 20_000


def test_junit_is_valid_whatever_is_in_a_message() -> None:
    """Control characters, which XML cannot hold, are escaped; an XML parser reads the rest as it was."""
    made = tally(None, Failure("kind <&> \x00\x1b[31m\ufffe", ("line one \x08", "line two é")))
    root = ET.fromstring(as_junit(made))  # noqa: S314 - our own
    suite = root[0]

    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.000000")
    assert [case.get("classname") for case in suite] == ["callout.conformance.freebsd"] * 2
    assert str(suite[0].get("name")).startswith("fbs-0001 A callout set for n ticks")
    failure = suite[1][0]
    assert failure.get("message") == "kind <&> \\x00\\x1b[31m\\ufffe"
    assert failure.text == "line one \\x08\nline two é"


def test_show_tells_a_scenario() -> None:
    """Callouts, locks, programs, and of each step its result, events, and changes of state."""
    lines = list(show(named("fn15-0004")))

    assert lines[0].startswith("fn15-0004: TRYLOCK, short delay")
    assert "  freebsd, 1 CPU, alloweddeviation 5 %" in lines
    assert "  locks: L0 (mtx)" in lines
    assert "  callout c0: under the lock mtx L0, TRYLOCK" in lines
    assert "  fn f0: (just returns)" in lines
    assert "  step 0: t0 lock L0 -> null" in lines
    assert "      c0: pending, active" in lines
    assert "      cpu0: return c0" in lines


def test_show_tells_a_scenario_of_linux() -> None:
    """Threads have CPUs there, timers a function."""
    lines = list(show(named("ls-000000", "linux")))

    assert "  threads: t0 (on CPU 0), t1 (on CPU 1), t2 (on CPU 0)" in lines or any("on CPU" in line for line in lines)
    assert any(line.startswith("  callout c0: a timer") and line.endswith("fn f0") for line in lines)
