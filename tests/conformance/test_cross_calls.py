"""Cross-CPU calls: run this on that CPU, in its interrupt context, exactly once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial
from typing import Any

import pytest

from callout import (
    C_DIRECT_EXEC,
    SBT_1MS,
    ArgumentTypeError,
    callout_reset_on,
    callout_reset_sbt_on,
    cpu_call,
    curcpu,
)
from callout._core.calls import call_on, cross_call

from .world import Stage


def test_a_call_runs_once_on_its_cpu(s: Stage) -> None:
    """What is called runs on the CPU that was named, once, without the clock's moving."""
    for cpu in {0, s.last}:
        s.call(cpu, lambda: s.seen("call"))

        assert s.ran == ["call"]
        assert s.cpu_of == {"call": cpu}

        s.tick(3)

        assert s.ran == ["call"]
        s.ran.clear()


def test_many_calls_run_in_order(s: Stage) -> None:
    """Of many calls of one thread to one CPU each runs once, in the order in which they were made."""
    order: list[int] = []

    def make() -> None:
        for number in range(500):
            cross_call(s.world.machine.cpus[s.last], partial(order.append, number))

    s.do(make)

    assert order == list(range(500))


def test_the_same_function_twice(s: Stage) -> None:
    """A function that is called twice before it could run once runs twice."""

    def make() -> None:
        for _ in range(2):
            cross_call(s.world.machine.cpus[0], call)

    def call() -> None:
        s.seen("call")

    s.do(make)

    assert s.ran == ["call", "call"]


def test_calls_of_several_threads(s: Stage) -> None:
    """Calls that several threads make to both CPUs all run, each once."""
    done: list[int] = []
    for number, thread in enumerate((s.t0, s.t1, s.t2) * 5):
        cpu = s.world.machine.cpus[number % s.cpus]
        thread.do(cross_call, cpu, partial(done.append, number))

    assert sorted(done) == list(range(15))


def test_a_call_does_not_interrupt_a_callback(s: Stage) -> None:
    """A call to a CPU that runs a callback waits until that has returned; so it does for a direct one."""
    s.do(callout_reset_on, s.callout(), 1, s.halt, "plain", s.last)
    s.tick()
    s.call(s.last, lambda: s.seen("call 1"))

    assert s.ran == ["plain"]

    s.open("plain")

    assert s.ran == ["plain", "call 1"]

    s.do(callout_reset_sbt_on, s.callout(), SBT_1MS, 0, s.halt, "direct", 0, C_DIRECT_EXEC)
    s.tick()
    s.call(0, lambda: s.seen("call 2"))

    assert s.ran[2:] == ["direct"]

    s.open("direct")

    assert s.ran[2:] == ["direct", "call 2"]


def test_a_callback_may_call_any_cpu(s: Stage) -> None:
    """A callback's call to its own CPU or another runs there, and the callback does not wait for it."""
    machine = s.world.machine

    def run(gate: str) -> None:
        for cpu in machine.cpus:
            cross_call(cpu, lambda: s.ran.append(("called", curcpu())))
        s.halt(gate)

    s.do(callout_reset_on, s.callout(), 1, run, "run", 0)
    s.tick()

    assert s.ran.count(("called", 0)) == 0

    s.open("run")

    assert s.ran.count(("called", 0)) == 1
    assert s.ran.count(("called", s.last)) == 1


def test_a_call_may_make_calls(s: Stage) -> None:
    """What is called may call in turn, its own CPU included."""
    machine = s.world.machine

    def hop(left: int) -> None:
        s.ran.append(left)
        if left:
            cross_call(machine.cpus[left % s.cpus], lambda: hop(left - 1))

    s.call(0, lambda: hop(5))

    assert s.ran == [5, 4, 3, 2, 1, 0]


def test_a_call_that_fails(s: Stage) -> None:
    """The calls behind one that failed run, and the error is reported."""

    def make() -> None:
        cross_call(s.world.machine.cpus[s.last], fail)
        cross_call(s.world.machine.cpus[s.last], lambda: s.ran.append("next"))

    def fail() -> None:
        raise ValueError("oops")

    s.do(make)

    assert s.ran == ["next"]
    with pytest.raises(ValueError, match="oops"):
        raise s.error()


async def asynchronous(_: object) -> None:
    """Would have to be awaited."""


def generates(_: object) -> Generator[None]:
    """Would have to be iterated over."""
    yield


async def generates_asynchronously(_: object) -> AsyncGenerator[None]:
    """Would have to be iterated over, asynchronously."""
    yield


class Asynchronous:
    """Has an asynchronous ``__call__()``."""

    async def __call__(self, _: object) -> None:
        """Would have to be awaited."""


@pytest.mark.parametrize(
    "func", [None, 5, asynchronous, partial(asynchronous, 1), generates, generates_asynchronously, Asynchronous()]
)
def test_what_is_no_plain_function_is_refused(s: Stage, func: Callable[..., object]) -> None:
    """What cannot be called, or would run nothing when called, is refused by the call, and the next one runs."""
    with pytest.raises(ArgumentTypeError, match=r"^cpu_call: "):
        s.do(cpu_call, s.last, func, None)

    s.do(cpu_call, s.last, s.seen, "next")

    assert s.ran == ["next"]
    assert s.errors == []


@pytest.mark.parametrize("name", ["cpu_call", "call"])
def test_a_call_with_a_coroutine_is_refused(s: Stage, name: str) -> None:
    """What an asynchronous function has returned is no function; it is closed, so that nothing warns of it too."""
    made: list[Coroutine[Any, Any, None]] = []

    def make() -> None:
        made.append(asynchronous(None))
        if name == "cpu_call":
            cpu_call(0, made[0])  # type: ignore[arg-type]  # that is what is tested
        else:
            call_on("call", s.world.machine.cpus[0], made[0], ())  # type: ignore[arg-type]  # as above

    with pytest.raises(ArgumentTypeError, match=f"^{name}: give the function and its arguments"):
        s.do(make)

    assert made[0].cr_frame is None  # type: ignore[attr-defined]  # a coroutine of a function has it


@pytest.mark.parametrize(
    ("func", "what"),
    [
        (lambda _: asynchronous(_), "coroutine"),
        (lambda _: generates(_), "generator"),
        (lambda _: generates_asynchronously(_), "async_generator"),
    ],
)
def test_a_call_that_returns_what_nobody_runs(s: Stage, func: Callable[[object], object], what: str) -> None:
    """A plain function that returns a coroutine or generator is reported, as such a callback is."""
    s.do(cpu_call, s.last, func, None)

    with pytest.raises(ArgumentTypeError, match=f"has returned a {what}, which nobody will run"):
        raise s.error()
