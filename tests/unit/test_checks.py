"""What is asked of a callback and of what it returns, and how messages name it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import pytest

from callout import ArgumentTypeError
from callout._core.checks import check_func, machine_of, refuse_unrun
from callout._core.describe import name_of, shown


async def coroutine(_: object = None) -> None:
    """Be what a callback must not be."""


def generator(_: object = None) -> Generator[None]:
    """Be what a callback must not be."""
    yield


async def async_generator(_: object = None) -> AsyncGenerator[None]:
    """Be what a callback must not be."""
    yield


def plain(_: object) -> None:
    """Be a callback."""


class Object:
    """Has callbacks in every form."""

    def method(self, _: object) -> None:
        """Be a callback."""

    async def coroutine(self, _: object) -> None:
        """Be none."""

    def __call__(self, _: object) -> None:
        """Be a callback."""


class AsyncCall:
    """An object whose call is a coroutine."""

    async def __call__(self, _: object) -> None:
        """Be none."""


class BuiltinCall:
    """An object whose call is not written in Python."""

    __call__ = print


class Compiled(BuiltinCall):
    """A coroutine function as a compiler of Python makes it: its call is not written in Python, its code is known."""

    __code__ = coroutine.__code__


class Meta(type):
    """Makes classes whose call is a coroutine."""

    async def __call__(cls, _: object) -> None:
        """Make nothing."""


class AsyncClass(metaclass=Meta):
    """A class that is called in vain."""


class Imposter:
    """Has what a callout has of which its machine is asked, and is none."""

    cpu = SimpleNamespace(id=0, machine=None)


@pytest.mark.parametrize(
    "func", [plain, partial(plain), partial(partial(plain)), Object().method, Object(), Object, print, BuiltinCall()]
)
def test_whatever_can_be_called_with_one_argument_is_a_callback(func: object) -> None:
    """Functions, methods, partials, classes, objects and what is not written in Python are accepted."""
    check_func("call", func)


@pytest.mark.parametrize(
    "func",
    [
        coroutine,
        generator,
        async_generator,
        partial(coroutine),
        partial(partial(generator)),
        Object().coroutine,
        AsyncCall(),
        partial(AsyncCall()),
        Compiled(),
        AsyncClass,
    ],
)
def test_what_would_run_nothing_is_no_callback(func: object) -> None:
    """A coroutine or generator function is refused, however it is wrapped."""
    with pytest.raises(ArgumentTypeError, match=r"^call: .* is a coroutine or generator function"):
        check_func("call", func)


@pytest.mark.parametrize("func", [None, 5, "plain", partial(plain).keywords])
def test_what_cannot_be_called_is_no_callback(func: object) -> None:
    """Anything else is refused for what it is."""
    with pytest.raises(ArgumentTypeError, match=r"^call: the callback must be a function of one argument, not "):
        check_func("call", func)


def test_the_machine_of_what_is_no_callout_is_not_asked_for() -> None:
    """Nor is what looks like one taken for a callout."""
    imposter: Any = Imposter()  # Any: a type checker would refuse it
    with pytest.raises(ArgumentTypeError, match="must be a Callout, not "):
        machine_of(imposter)


@pytest.mark.parametrize(("number", "text"), [((1 << 256) - 1, "11579"), (1 << 256, "an int of 257 bits")])
def test_a_very_long_int_is_shown_by_its_length(number: int, text: str) -> None:
    """Python refuses to write very long ones in decimal, so they are not tried."""
    assert shown(number).startswith(text)


CLOSED: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]] = {  # Any: of three kinds
    "coroutine": (coroutine, lambda it: inspect.getcoroutinestate(it) == inspect.CORO_CLOSED),
    "generator": (generator, lambda it: inspect.getgeneratorstate(it) == inspect.GEN_CLOSED),
    "async_generator": (async_generator, lambda it: it.ag_frame is not None),  # only a loop can close it
}


@pytest.mark.parametrize("kind", CLOSED)
def test_what_nobody_will_run_is_refused_and_closed(kind: str) -> None:
    """A result that still wants to be run is reported by what it is, and does not warn that it was not awaited."""
    make, is_closed = CLOSED[kind]
    result = make()
    with pytest.raises(ArgumentTypeError, match=f"callback plain has returned a {kind}, which nobody will run"):
        refuse_unrun(plain, result)

    assert is_closed(result)


@pytest.mark.parametrize("result", [0, "text", [], object(), plain])
def test_any_other_result_is_nobodys_business(result: object) -> None:
    """Whatever else a callback returns is ignored."""
    refuse_unrun(plain, result)


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (plain, "plain"),
        (print, "print"),
        (partial(partial(plain)), "plain"),
        (Object().method, "Object.method"),
        (partial(Object().method), "Object.method"),
        (Object, "Object"),
        (Object(), "a Object"),
        (None, "None"),
    ],
)
def test_how_messages_name_a_function(func: object, name: str) -> None:
    """By its own name, whatever it is wrapped in; an object by its class."""
    assert name_of(func) == name
