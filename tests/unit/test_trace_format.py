"""Reading traces: what cannot be read is an error that gives file, line and reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from callout import TraceError
from callout.conformance import load, shipped

GOOD: Final[dict[str, Any]] = {
    "id": "x-1",
    "api": "freebsd",
    "tags": [],
    "ncpu": 1,
    "locks": {},
    "callouts": {"c0": {}},
    "fns": {"f0": [["stop", "c0"]]},
    "threads": ["t0"],
    "steps": [
        {"do": ["t0", "stop", "c0"], "ret": -1, "events": {}, "state": {"c0": [0, 0]}},
        {"do": ["clock", "advance", 1], "ret": None, "events": {}, "state": {"c0": [0, 0]}},
    ],
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


STEP: Final[dict[str, Any]] = {"ret": None, "events": {}, "state": {}}
WRONG: Final[list[tuple[str, str]]] = [
    (json.dumps(GOOD)[:-20], "not JSON (is the file truncated?)"),
    ("hello", "not JSON"),
    ("[1, 2]", "a scenario must be a JSON object"),
    ("[" * 100_000, "recursion"),
    *((without(name), f"the scenario has no '{name}'") for name in GOOD),
    (changed(lambda s: s.update(api="netbsd")), "unknown api 'netbsd'; known: freebsd, linux"),
    (changed(lambda s: s["fns"].update(f0=[["jump", "c0"]])), "unknown op 'jump'; known: "),
    (changed(lambda s: s["fns"].update(f0=[["stop"]])), "op 'stop' takes 1 arguments, got 0"),
    (changed(lambda s: s.update(threads=3)), "int"),
    (with_step({"do": ["t0", "jump", "c0"], **STEP}), "step 1: unknown op 'jump'; known: "),
    (with_step({"do": ["t0", "stop", "c0", 1], **STEP}), "step 1: op 'stop' takes 1 arguments, got 2"),
    (with_step({"do": ["t9", "stop", "c0"], **STEP}), "step 1: unknown actor 't9'; the scenario's threads are t0"),
    (with_step({"do": ["clock", "stop", "c0"], **STEP}), "step 1: unknown op 'stop'; known: advance"),
    (with_step({"do": ["t0"], **STEP}), "step 1: not enough values"),
    (with_step({"do": ["t0", "stop", "c0"], "events": {}, "state": {}}), "step 1: it has no 'ret'"),
    (with_step({"ret": 1, "events": {}, "state": {}}), "step 1: it has no 'do'"),
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
    """A file that is not UTF-8 is reported."""
    path = tmp_path / "binary.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"cannot be read: .*utf-8"):
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
