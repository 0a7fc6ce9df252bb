"""What start_soon() and call() of a CPU take: async functions, and what returns something to be awaited; or neither."""

from __future__ import annotations

import contextvars
import time
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final

import pytest

from callout import ArgumentTypeError, Callout, Event, callout_drain, callout_init, open_callouts
from callout.testing import VirtualSMP

Wrong = Callable[..., Any]  # Any: what mypy would not let pass

RAN: Final[list[object]] = []
CONTEXT: Final[Any] = contextvars.copy_context()  # Any: to make a partial of its method


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Forget what ran before."""
    RAN.clear()


async def asynchronous(arg: object) -> None:
    """Be a task."""
    RAN.append(arg)


def returns_a_coroutine(arg: object) -> Awaitable[None]:
    """Be a plain function, of which one cannot tell."""
    return asynchronous(arg)


@types.coroutine
def old_style(arg: object) -> Generator[Any, Any, None]:
    """Be a coroutine of the old kind."""
    yield from asynchronous(arg).__await__()


def generates(arg: object) -> Generator[None]:
    """Would have to be iterated over."""
    RAN.append(arg)
    yield


async def generates_asynchronously(arg: object) -> AsyncGenerator[None]:
    """Would have to be iterated over, asynchronously."""
    RAN.append(arg)
    yield


class Task:
    """A task in several shapes."""

    def __init__(self, arg: object = None) -> None:
        RAN.append(arg)

    async def method(self, arg: object) -> None:
        """Be a task."""
        RAN.append(arg)

    async def __call__(self, arg: object) -> None:
        """Be a task."""
        RAN.append(arg)

    def generates(self, arg: object) -> Generator[None]:
        """Would have to be iterated over."""
        RAN.append(arg)
        yield


class Waiting:
    """Something to be awaited that a class makes."""

    def __init__(self, arg: object) -> None:
        self._arg = arg

    def __await__(self) -> Generator[Any, Any, None]:
        return asynchronous(self._arg).__await__()


class Iterates:
    """Has a ``__call__()`` that is a generator function."""

    def __call__(self, arg: object) -> Generator[None]:
        """Would have to be iterated over."""
        RAN.append(arg)
        yield


@pytest.mark.trio
@pytest.mark.parametrize(
    "func",
    [
        print,
        partial(print, "ran"),
        time.sleep,
        len,
        Task,
        dict,
        generates,
        generates_asynchronously,
        Task(0).generates,
        Iterates(),
        None,
        5,
    ],
    ids=lambda it: type(it).__name__,
)
async def test_what_is_no_async_function_is_refused_unrun(func: Wrong, capsys: pytest.CaptureFixture[str]) -> None:
    """start_soon() refuses what is certainly no async function, and does not run it to find out."""
    RAN.clear()
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match=r"^start_soon: the first argument must be an async function"):
            system.cpu(0).start_soon(func, 1)

    assert RAN == []
    assert capsys.readouterr().out == ""


@pytest.mark.trio
@pytest.mark.parametrize(
    "func",
    [
        asynchronous,
        partial(asynchronous),
        returns_a_coroutine,
        lambda arg: asynchronous(arg),
        old_style,
        Task(0).method,
        Task(0),
        Waiting,
        partial(CONTEXT.run, asynchronous),
    ],
)
async def test_what_gives_something_to_await_is_a_task(func: Wrong) -> None:
    """start_soon() starts what returns something to be awaited, of whatever kind it is."""
    RAN.clear()
    async with open_callouts() as system:
        system.cpu(0).start_soon(func, 1)

    assert RAN == [1]


@pytest.mark.trio
async def test_waits_and_asynchronous_generators_are_tasks() -> None:
    """The waits of the package, which are plain functions that return what is to be awaited, can be started; so can the
    methods of an asynchronous generator, which are builtin.
    """
    async with open_callouts(2) as system:
        c, event = Callout(), Event()
        callout_init(c, 1)
        event.set()
        numbers = generates_asynchronously(1)
        system.cpu(1).start_soon(callout_drain, c)
        system.cpu(1).start_soon(event.wait)
        system.cpu(0).start_soon(anext, numbers)

    async with open_callouts() as system:
        system.cpu(0).start_soon(numbers.aclose)

    assert RAN == [1]
    assert [number async for number in numbers] == []


@pytest.mark.trio
async def test_a_plain_function_is_found_out_when_it_has_returned() -> None:
    """A plain function in Python runs; that it has returned nothing to be awaited leaves through the block."""
    wrong: Wrong = RAN.append
    with pytest.raises(ExceptionGroup) as caught:
        async with open_callouts() as system:
            system.cpu(0).start_soon(wrong, 1)

    (error,) = caught.value.exceptions
    assert RAN == [1]
    assert isinstance(error, ArgumentTypeError)
    assert "append is no async function: it returned None" in str(error)


@pytest.mark.trio
@pytest.mark.parametrize("func", [None, 5, asynchronous, partial(asynchronous), Task(0), generates])
async def test_call_refuses_what_would_run_nothing(func: Wrong) -> None:
    """call() of a CPU of either platform refuses what is no plain function before anything is sent."""
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match=r"^call: "):
            system.cpu(0).call(func, 1)
    with VirtualSMP(1) as vm, pytest.raises(ArgumentTypeError, match=r"^call: "):
        vm.call(0, func, 1)


@pytest.mark.trio
async def test_a_call_that_returns_a_coroutine_is_reported() -> None:
    """What a called function returns that nobody will run is an error of that call, on either platform."""
    errors: list[Exception] = []
    async with open_callouts(on_error=lambda error, _: errors.append(error)) as system:
        system.cpu(0).call(returns_a_coroutine, 1)
    with VirtualSMP(1) as vm:
        vm.call(0, returns_a_coroutine, 1)
        vm.settle()
        errors += [error for error in vm.errors if isinstance(error, Exception)]

    assert [type(error) for error in errors] == [ArgumentTypeError] * 2
    assert all("returns_a_coroutine has returned a coroutine, which nobody will run" in str(error) for error in errors)
    assert RAN == []
