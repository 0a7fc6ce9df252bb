"""With ``results=True`` what the calls return is judged, in a scenario that asserts nothing."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

import pytest

from callout import (
    ArgumentTypeError,
    Callout,
    Mtx,
    ResultError,
    callout_deactivate,
    callout_dequeue,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    callout_schedule,
    callout_stop,
    callout_terminate_sync,
)
from callout._core import drain, runs, short, stop
from callout.explore import Violation, _profile, explore, replay
from callout.freebsd13 import callout_async_drain
from callout.testing import VirtualSMP
from callout_linux.timer import mod_timer, timer_delete_sync_blocking, timer_list, timer_setup
from tests.race.mutants import Mutant


def ignore(arg: object) -> None:
    """Be a callback."""


def operations(ops: tuple[str, ...], locked: str, vm: VirtualSMP) -> None:
    """Have each operation called by a thread of its own; the results are thrown away."""
    c, mtx = Callout(), Mtx("m")
    with vm.setup():
        if locked == "mutex":
            callout_init_mtx(c, mtx)
        else:
            callout_init(c, locked != "Giant")
        callout_reset(c, 1, ignore, 0)

    def call(op: str) -> None:
        if op in HELD and locked == "mutex":
            with mtx:
                HELD[op](c)
        elif op in HELD:
            HELD[op](c)
        else:
            FREE[op](c)

    for op in ops:
        vm.spawn(call, op)


HELD: Final[dict[str, Callable[[Callout], object]]] = {
    "stop": callout_stop,
    "reset": lambda c: callout_reset(c, 1, ignore, 1),
    "reset on CPU 1": lambda c: callout_reset_on(c, 1, ignore, 2, 1),
    "schedule": lambda c: callout_schedule(c, 2),
    "drain_async": lambda c: callout_drain_async(c, ignore, None),
    "async_drain": lambda c: callout_async_drain(c, ignore),
}
FREE: Final[dict[str, Callable[[Callout], object]]] = {
    "drain": callout_drain_sync,
    "terminate": callout_terminate_sync,
    "deactivate": callout_deactivate,
}


@pytest.mark.parametrize("locked", ["mpsafe", "mutex", "Giant"])
@pytest.mark.parametrize(
    "ops",
    [
        ("stop", "reset"),
        ("reset on CPU 1", "drain"),
        ("schedule", "drain_async"),
        ("async_drain", "stop"),
        ("terminate", "reset"),
        ("deactivate", "reset on CPU 1"),
    ],
    ids="+".join,
)
def test_the_engine_does_not_lie(ops: tuple[str, ...], locked: str) -> None:
    """Whatever races."""
    judged = explore(partial(operations, ops, locked), bound=1, results=True)

    assert judged.exhausted
    assert judged.final_states == explore(partial(operations, ops, locked), bound=1).final_states


DOES_NOT_WAIT: Final = Mutant("a drain does not wait", drain.begin, "run is None", "True")
LIES: Final[list[tuple[Mutant, tuple[str, ...], str]]] = [
    (
        Mutant("the short path of stop says that nothing was there", short.callout_stop, "return 1", "return -1"),
        ("stop",),
        "mpsafe",
    ),
    (
        Mutant(
            "the long way of stop says that it was removed, and it runs",
            stop.stop_locked,
            "facts |= RUNNING",
            "facts |= REMOVED",
        ),
        ("stop",),
        "mpsafe",
    ),
    (
        Mutant("a reset that replaces a run says that there was none", short.callout_reset, "return 1", "return 0"),
        ("reset",),
        "mutex",
    ),
    (
        Mutant("a run that a reset has cancelled takes place", runs.confirm, "run.state == CANCELLED", "False"),
        ("reset",),
        "mutex",
    ),
    (
        Mutant(
            "a drain does not say that it has removed a reset of the run",
            runs.answer_tickets,
            "ticket.removed = True",
            "pass",
        ),
        ("reset", "drain"),
        "mpsafe",
    ),
    (
        Mutant("a drain says that nothing was removed", drain.begin, "REMOVED if removed else 0", "0"),
        ("drain",),
        "mpsafe",
    ),
    (DOES_NOT_WAIT, ("drain",), "mpsafe"),
    (
        Mutant(
            "an asynchronous drain says that nothing is outstanding",
            drain.drain_async,
            "facts if c.run is None else facts | RUNNING",
            "0",
        ),
        ("drain_async",),
        "mpsafe",
    ),
    (
        Mutant("what was deactivated is active", stop.deactivate, "c.state &= ~ACTIVE", "pass"),
        ("deactivate",),
        "mpsafe",
    ),
]


@pytest.mark.parametrize(("mutant", "ops", "locked"), LIES, ids=[lie[0].name for lie in LIES])
@pytest.mark.parametrize("shrink", [True, False])
def test_a_lie_is_found(mutant: Mutant, ops: tuple[str, ...], locked: str, *, shrink: bool) -> None:
    """Nothing else finds it, and the schedule that shows it can be replayed."""
    scenario = partial(operations, ops, locked)
    with mutant.planted():
        with pytest.raises(Violation) as caught:
            explore(scenario, bound=1, results=True, shrink=shrink)
        assert isinstance(caught.value.__cause__, ResultError)
        assert "no order of the calls for the callout of ignore explains" in str(caught.value.__cause__)
        with pytest.raises(ResultError):
            replay(scenario, caught.value.schedule, results=True)
        assert explore(scenario, bound=1).exhausted
        replay(scenario, caught.value.schedule)
    replay(scenario, caught.value.schedule, results=True)


def test_what_is_not_of_callout9_is_not_judged() -> None:
    """Nor is a callout that was initialised anew; it is no error."""

    def scenario(vm: VirtualSMP) -> None:
        timer, c, again = timer_list(), Callout(), Callout()
        timer_setup(timer, ignore, 0)
        mod_timer(timer, 5)
        for each in (c, again):
            callout_init(each, 1)
            callout_reset(each, 1, ignore, None)
        callout_dequeue(c)
        callout_drain_sync(again)
        callout_init_mtx(again, Mtx("m"))
        vm.spawn(timer_delete_sync_blocking, timer)

    assert explore(scenario, bound=1, results=True).exhausted


def test_processes_judge_as_well() -> None:
    """The workers are told."""
    scenario = partial(operations, ("stop", "reset"), "mutex")
    with ProcessPoolExecutor(1) as executor:
        parts = explore(scenario, bound=1, results=True, executor=executor)

    assert parts.final_states == explore(scenario, bound=1).final_states


@pytest.mark.parametrize("results", [True, False])
def test_a_profiler_that_runs_goes_on(*, results: bool) -> None:
    """It has missed what it could not see, and a violation is told with it and without."""

    def fails(vm: VirtualSMP) -> None:
        vm.point()
        raise ValueError("wrong")

    scenario = partial(operations, ("drain",), "mpsafe") if results else fails
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        with DOES_NOT_WAIT.planted(), pytest.raises(Violation) as caught:
            explore(scenario, bound=1, results=results)
        sorted([])
    finally:
        profiler.disable()

    assert isinstance(caught.value.__cause__, ResultError if results else ValueError)
    assert any("sorted" in str(entry.code) for entry in profiler.getstats())


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_it_is_true_or_false(wrong: bool) -> None:
    """Nothing else."""
    with pytest.raises(ArgumentTypeError, match="results"):
        explore(partial(operations, ("stop",), "mpsafe"), results=wrong)
    with pytest.raises(ArgumentTypeError, match="results"):
        replay(partial(operations, ("stop",), "mpsafe"), "v4,operations,cpus=2,hz=1000,paths=short:", results=wrong)


def test_where_every_tool_is_taken_a_profile_function_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what there is up to CPython 3.11."""
    monkeypatch.setattr(_profile, "TOOLS", ())
    with DOES_NOT_WAIT.planted(), pytest.raises(Violation) as caught:
        explore(partial(operations, ("drain",), "mpsafe"), bound=1, results=True)

    assert isinstance(caught.value.__cause__, ResultError)
