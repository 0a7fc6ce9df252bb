"""The package's own implementations as Subsystem: what the recordings do not make them do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callout.conformance import builtin, load, replay
from callout.conformance._judge import Judge


@pytest.mark.parametrize("platform", ["virtual", "trio"])
def test_closing_opens_gates_that_nobody_has_come_to_yet(platform: str, tmp_path: Path) -> None:
    """The callback gets its lock only when close() has the thread release it, and then comes to a closed gate."""
    rest: dict[str, Any] = {"events": {}, "state": {}}
    scenario = {
        "id": "late-gate",
        "api": "freebsd",
        "tags": [],
        "ncpu": 1,
        "locks": {"L0": "mtx"},
        "callouts": {"c0": {"init": "lock", "lock": "L0", "flags": []}},
        "fns": {"f0": [["gate", "g0"]]},
        "threads": ["t0"],
        "steps": [
            {"do": ["t0", "lock", "L0"], "ret": None, **rest},
            {"do": ["t0", "reset", "c0", 1, "f0", 0, None], "ret": 0, **rest},
            {"do": ["clock", "advance", 1], "ret": None, **rest, "events": {"cpu0": [["waitlock", "L0"]]}},
        ],
    }
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(scenario))
    loaded = next(load(path))
    verdict = Judge(10).judge(loaded, lambda scenario: builtin(scenario, platform))

    assert verdict.failure is None


def test_replay_leaves_closing_to_its_caller(tmp_path: Path) -> None:
    """A subsystem can be asked for its state after the replay."""
    scenario = {
        "id": "a",
        "api": "freebsd",
        "tags": [],
        "ncpu": 1,
        "locks": {},
        "callouts": {"c0": {"init": "mpsafe"}},
        "fns": {"f0": []},
        "threads": ["t0"],
        "steps": [{"do": ["t0", "reset", "c0", 5, "f0", 0, None], "ret": 0, "events": {}, "state": {}}],
    }
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(scenario))
    loaded = next(load(path))
    subsystem = builtin(loaded)
    try:
        assert replay(loaded, subsystem) is None
        assert subsystem.state("c0") == [1, 1]
    finally:
        subsystem.close()
