"""Judging implementations that raise, hang, exit, or are no implementation."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callout.conformance import Adapter, Event, Scenario, Subsystem, builtin, load, replay, shipped
from callout.conformance import _judge as judging
from callout.conformance._judge import Failure, Judge

MINUTES = 600.0  # for what does not hang: no test depends on how long it takes
MOMENT = 0.05  # for what hangs for ever


def one() -> Scenario:
    """Return a short scenario."""
    return next(scenario for path in shipped("freebsd") for scenario in load(path) if scenario.id == "fbs-0001")


class Wrapped:
    """A built-in implementation of which some methods do something else."""

    def __init__(self, scenario: Scenario, **changed: Callable[..., Any]) -> None:
        self.inner: Subsystem = builtin(scenario)
        self.changed = changed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of any type
        return self.changed.get(name) or getattr(self.inner, name)


def wrapped(**changed: Callable[..., Any]) -> Any:  # noqa: ANN401 - not everything here is a Subsystem
    """Return a factory of built-in implementations with these methods changed."""
    return lambda scenario: Wrapped(scenario, **changed)


def fail(timeout: float | None = MINUTES, **changed: Callable[..., Any]) -> Failure:
    """Return why a built-in implementation with these methods changed fails."""
    failure = Judge(timeout).judge(one(), wrapped(**changed)).failure
    assert failure is not None
    return failure


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """Return an event that is set when the test is over."""
    event = threading.Event()
    before = len(judging.abandoned)
    yield event
    event.set()
    for thread in judging.abandoned[before:]:
        thread.join()
    del judging.abandoned[before:]


def raise_(error: BaseException) -> object:
    """Raise it."""
    raise error


@pytest.mark.parametrize("timeout", [MINUTES, None])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit(), MemoryError()])
def test_what_an_implementation_raises_fails_the_scenario(error: BaseException, timeout: float | None) -> None:
    """Whatever it is, the failure has its type, the line of the file, and the step."""
    failure = fail(timeout, tick=lambda: raise_(error))

    assert failure.kind.startswith(f"raised {type(error).__name__} at test_judge.py:")
    assert failure.step == 1
    assert failure.lines[0] == "step 1: clock advance 2"


@pytest.mark.parametrize("timeout", [MINUTES, None])
def test_an_interrupt_is_no_failure(timeout: float | None) -> None:
    """KeyboardInterrupt leaves the judge, as Ctrl-C means the run and not the scenario."""
    with pytest.raises(KeyboardInterrupt):
        fail(timeout, tick=lambda: raise_(KeyboardInterrupt()))


def test_what_is_not_implemented_is_a_kind_of_its_own() -> None:
    """NotImplementedError is told apart by its text, not by its place."""
    failure = fail(begin=lambda *args: raise_(NotImplementedError("reset")))

    assert failure.kind == "raised NotImplementedError: reset"


@pytest.mark.parametrize("method", ["settle", "close"])
def test_what_hangs_fails_the_scenario_and_says_where(method: str, forever: threading.Event) -> None:
    """The failure has the phase, and the line at which the thread is; close() may hang, too."""

    def hang() -> None:
        forever.wait()

    failure = fail(MOMENT, **{method: hang})

    phase = "close()" if method == "close" else "a step"
    assert failure.kind == f"{phase} did not end within {MOMENT} s"
    assert "the replay is at test_judge.py:" in failure.lines[-1]
    assert failure.lines[-1].endswith("in hang()")


def test_a_factory_that_hangs_fails_the_scenario(forever: threading.Event) -> None:
    """There is no step yet, and no subsystem."""
    failure = Judge(MOMENT).judge(one(), lambda scenario: raise_(SystemExit(forever.wait()))).failure  # type: ignore[return-value,arg-type]

    assert failure is not None
    assert failure.kind == f"the factory did not end within {MOMENT} s"
    assert failure.step is None


def test_an_endless_loop_is_ended(forever: threading.Event) -> None:
    """The thread that was left behind ends, so that it does not slow the others down; the fixture joins it."""

    def spin() -> None:
        while not forever.is_set():
            pass

    failure = fail(MOMENT, settle=spin)
    thread = judging.abandoned[-1]
    thread.join()  # although nothing has set the event

    assert "did not end" in failure.kind
    assert not forever.is_set()


def test_the_run_goes_on_after_a_hang(forever: threading.Event) -> None:
    """The same judge judges the next scenario on a new thread."""
    judge = Judge(MOMENT)
    hangs = judge.judge(one(), wrapped(settle=forever.wait))
    judge._timeout = MINUTES
    passes = judge.judge(one(), builtin)

    assert hangs.failure is not None
    assert passes.failure is None


def test_the_first_thing_that_went_wrong_counts(forever: threading.Event) -> None:
    """A mismatch stays one when close() hangs after it, and says so, too."""
    failure = fail(MOMENT, state=lambda callout: [0, 0], close=forever.wait)

    assert failure.kind == "state: pending: expected 1, got 0"
    assert f"close() then did not return within {MOMENT} s" in failure.lines


def test_a_process_does_not_wait_for_what_hangs(tmp_path: Path) -> None:
    """The command ends although a thread that is no daemon is left behind, which the interpreter would join."""
    (tmp_path / "stuck.py").write_text(
        "import threading\n"
        "from callout.conformance import builtin\n"
        "def make(scenario):\n"
        "    made = builtin(scenario)\n"
        "    def close():\n"
        "        thread = threading.Thread(target=threading.Event().wait, daemon=False)\n"
        "        thread.start()\n"
        "        thread.join()\n"
        "    made.close = close\n"
        "    return made\n"
    )
    command = [sys.executable, "-m", "callout", "conformance", "--impl", "stuck:make", "--id", "fbs-0001"]
    done = subprocess.run(
        [*command, "--timeout", "0.05"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 1
    assert done.stdout.endswith("0 passed, 1 failed\n")


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        (None, "type NoneType, which has no begin(), open_gate(), tick(), settle(), events(), state(), close()"),
        (threading.Lock(), "type lock, which has no begin()"),
    ],
)
def test_what_a_factory_made_is_looked_at(made: object, missing: str) -> None:
    """Something that is no Subsystem is told what it lacks."""
    failure = Judge(MINUTES).judge(one(), lambda scenario: made).failure  # type: ignore[arg-type,return-value]

    assert failure is not None
    assert f"the factory returned something of {missing}" in failure.kind


def test_an_async_factory_is_told_so() -> None:
    """Its coroutine is closed, so that there is no warning; warnings are errors here."""

    async def factory(scenario: Scenario) -> Subsystem:
        return builtin(scenario)

    failure = Judge(MINUTES).judge(one(), factory).failure  # type: ignore[arg-type]

    assert failure is not None
    assert failure.kind == "the factory returned a coroutine: it must not be async"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (3, "events() must return a dict: actor -> list of events, not something of type int"),
        ({"t0": None}, "events() must map names of actors to lists, not something of type str to None"),
        ({1: []}, "events() must map names of actors to lists"),
        ({"t0": [[]]}, "events() has [], which is no event of the format"),
        ({"t0": [["ret"]]}, 'events() has ["ret"], which is no event of the format'),
        ({"t0": [[["ret"], 1]]}, "which is no event of the format"),
        ({"t0": ["ret"]}, 'events() has "ret", which is no event of the format'),
    ],
)
def test_events_of_another_form_are_refused(events: object, reason: str) -> None:
    """What events() returns is looked at before it is used."""
    failure = fail(events=lambda: events)

    assert reason in failure.lines[-1]


def test_tuples_and_booleans_are_taken_as_what_they_mean() -> None:
    """An implementation may return True for 1, and tuples for lists."""

    class Loose(Wrapped):
        def state(self, callout: str) -> object:
            return tuple(map(bool, self.inner.state(callout)))

        def events(self) -> object:
            return {actor: tuple(map(tuple, done)) for actor, done in self.inner.events().items()}

    assert Judge(MINUTES).judge(one(), Loose).failure is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [10**10_000, object(), [[[[[[]]]]]], {1: 2}, 1.5, "\ud800"],
    ids=["huge", "object", "nested", "dict", "float", "surrogate"],
)
def test_a_result_that_is_no_json_is_told_all_the_same(value: object) -> None:
    """Whatever an operation returns, the failure is a short mismatch that can be written in each report."""
    failure = fail(events=lambda: {"t0": [["ret", value]]})

    assert failure.kind.startswith("result of reset: expected 0, got ")
    assert failure.mismatch is not None
    assert len(json.dumps(failure.mismatch.got)) < 100


def test_an_arming_on_a_thread_of_its_own_is_told_so() -> None:
    """A callback on a thread that is not of the workbench, as a real threading.Timer makes, fails with the remedy."""

    class Own(Adapter):
        def set_up(self) -> None:
            pass

        def state(self, callout: str) -> list[int]:
            return [1, 1]

        def op_reset(self, name: str, ticks: int, fn: str, arg: int, cpu: int | None) -> int:
            thread = threading.Thread(target=self.callback, args=(name, fn, arg))
            thread.start()
            thread.join()
            return 0

    failure = Judge(MINUTES).judge(one(), Own).failure

    assert failure is not None
    assert "which is no thread of self.bench: use self.bench.Thread and self.bench.Timer" in failure.lines[-1]


def test_an_adapter_without_an_operation_is_told_which() -> None:
    """What a subclass does not have fails the scenarios that need it, by its name."""

    class Bare(Adapter):
        def set_up(self) -> None:
            pass

    failures = [Judge(MINUTES).judge(one(), adapter).failure for adapter in (Bare, Adapter)]

    assert [failure.kind for failure in failures if failure] == [
        "raised NotImplementedError: op_reset",
        "raised NotImplementedError: set_up",
    ]


def test_a_callback_that_runs_wild_ends_the_step() -> None:
    """Ticks stop as soon as there are more events than the recording has: the rest would say nothing new."""
    ticks = []

    class Wild(Wrapped):
        def tick(self) -> None:
            ticks.append(1)
            self.inner.tick()

        def events(self) -> dict[str, list[Event]]:
            log = self.inner.events()
            log.setdefault("cpu0", []).extend([["waitlock", "L0"]] * 5 if ticks else [])
            return log

    scenario = next(s for path in shipped("freebsd") for s in load(path) if ("advance", (700,)) in _done(s))
    subsystem = Wild(scenario)
    try:
        mismatch = replay(scenario, subsystem)
    finally:
        subsystem.close()

    assert mismatch is not None
    assert len(ticks) < 10


def _done(scenario: Scenario) -> list[tuple[str, tuple[Any, ...]]]:
    return [(step.op, step.args) for step in scenario.steps if step.op != "gate"]
