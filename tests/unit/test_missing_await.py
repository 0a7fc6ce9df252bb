"""A missing ``await``: what has to be awaited is no result, says so when it is used as one, and warns if dropped."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    Callout,
    ClosedError,
    Event,
    LockHeldError,
    Mtx,
    NotAwaitedError,
    NotInitializedError,
    SelfDrainError,
    callout_barrier,
    callout_barrier_all,
    callout_drain,
    callout_init,
    callout_pending,
    callout_quiesce,
    callout_reset,
    callout_terminate,
    must_await,
    open_callouts,
)
from callout.testing import VirtualSMP

Wait = Callable[[Callout], Coroutine[Any, Any, int]]


def event_set() -> Event:
    """Return an event that was set."""
    event = Event()
    event.set()
    return event


WAITS: Final[dict[str, Wait]] = {
    "callout_drain": callout_drain,
    "callout_barrier": callout_barrier,
    "callout_terminate": callout_terminate,
    "callout_quiesce": callout_quiesce,
    "callout_barrier_all": lambda c: callout_barrier_all(),
    "wait": lambda c: event_set().wait(),
}
USES: Final[dict[str, Callable[[Any], object]]] = {  # Any: what mypy would not let pass
    "if": lambda it: 1 if it else 0,
    "not": lambda it: not it,
    "== 1": lambda it: it == 1,
    "-1 !=": lambda it: it != -1,
    "== False": lambda it: it == False,  # noqa: E712 - that is what is tested
    "+=": lambda it: 0 + it,
    "<": lambda it: it < 0,
    "<=": lambda it: it <= 0,
    ">": lambda it: it > 0,
    "0 >=": lambda it: 0 >= it,  # noqa: SIM300 - the other way round
    "-": lambda it: it - 1,
    "minus": operator.neg,
    "|": lambda it: it | 1,
    "int": int,
    "index": lambda it: [0, 1][it],
}


def ignore(_: object) -> None:
    """Be a callback."""


def refused_for(wait: Callable[[Any], object], c: object) -> None:  # Any: the wrong types are what is tested
    """Call what is to raise: nothing of it is awaited."""
    wait(c)


def armed() -> Callout:
    """Return a pending callout."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1000, ignore, None)
    return c


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("use", USES)
def test_a_wait_that_was_not_awaited_is_no_result(name: str, use: str) -> None:
    """Every way to use it as a number raises NotAwaitedError, and the callout is as it was."""
    with VirtualSMP(1, free_clock=False) as vm:
        c = armed()
        waiting = WAITS[name](c)
        with pytest.raises(NotAwaitedError) as caught:
            USES[use](waiting)

        assert callout_pending(c) == 1
        assert f"`await {name}(...)`" in str(caught.value)
        assert f"{name}_sync()" in str(caught.value)

        vm.run(lambda: waiting)


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_that_is_dropped_warns(name: str) -> None:
    """It is a coroutine, so the interpreter warns of it by the name of the call."""
    with VirtualSMP(1, free_clock=False):
        c = armed()

        def forget() -> None:
            waiting = WAITS[name](c)
            del waiting
            gc.collect()

        with pytest.warns(RuntimeWarning, match=f"'{name}' was never awaited"):
            forget()


def test_waits_are_unequal_and_can_be_kept_in_sets() -> None:
    """Among themselves waits compare by identity, as all coroutines do."""
    with VirtualSMP(1, free_clock=False) as vm:
        first, second = callout_drain(armed()), callout_drain(armed())

        assert first != second
        assert len({first, second, first}) == 2
        assert "callout_drain" in repr(first)

        vm.run(lambda: first)
        vm.run(lambda: second)


def test_a_wait_is_not_copied() -> None:
    """Copying and pickling are refused, as for every coroutine: two that await one would be one too many."""
    with VirtualSMP(1, free_clock=False) as vm:
        waiting = callout_drain(armed())
        for make in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"callout_drain.* cannot be copied or pickled"):
                make(waiting)
        with pytest.raises(AttributeError, match="'removed'; await it"):
            _ = waiting.removed  # type: ignore[attr-defined]  # that is the point

        vm.run(lambda: waiting)


@pytest.mark.trio
async def test_a_wait_is_a_coroutine_for_trio() -> None:
    """It can be started as a task, shows its frames there, and gives its result once."""
    async with open_callouts(), trio.open_nursery() as nursery:
        c = armed()
        nursery.start_soon(callout_drain, c)
        await trio.testing.wait_all_tasks_blocked()

        assert callout_pending(c) == 0

        waiting = callout_drain(c)

        assert await waiting == -1
        with pytest.raises(RuntimeError, match="already awaited"):
            await waiting


@pytest.mark.parametrize("name", ["callout_drain", "callout_barrier", "callout_terminate", "callout_quiesce"])
def test_what_is_wrong_is_raised_by_the_call(name: str) -> None:
    """An argument of the wrong type, a fresh callout, a held lock, the callout's own callback: raised without an
    await.
    """
    wait = WAITS[name]
    refused: list[type[BaseException]] = []

    def own(c: Callout) -> None:
        try:
            refused_for(wait, c)
        except SelfDrainError as error:
            refused.append(type(error))

    with VirtualSMP(1, free_clock=False) as vm:
        with pytest.raises(ArgumentTypeError, match=f"{name}: .* Callout, not 5"):
            refused_for(wait, 5)
        with pytest.raises(NotInitializedError):
            refused_for(wait, Callout())
        c = armed()
        with Mtx("held"), pytest.raises(LockHeldError, match=f"{name}: .*'held'"):
            refused_for(wait, c)

        assert callout_pending(c) == 1

        callout_reset(c, 1, own, c)
        vm.tick(2)

        assert refused == [SelfDrainError]


@pytest.mark.trio
async def test_after_the_close_the_call_is_refused() -> None:
    """After the block, the calls raise ClosedError; nothing is left to await."""
    async with open_callouts():
        c = armed()
    for name in ("callout_drain", "callout_barrier", "callout_terminate", "callout_quiesce"):
        with pytest.raises(ClosedError, match=name):
            refused_for(WAITS[name], c)


def test_must_await_wants_a_coroutine() -> None:
    """must_await() of what is no coroutine says what it wants."""
    with pytest.raises(ArgumentTypeError, match=r"must_await: give the coroutine that f\(\) returns"):
        refused_for(lambda five: must_await("f", five), 5)
