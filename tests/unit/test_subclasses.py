"""A subclass of a callout or a mutex may have anything of its own, but not under the names of the engine's fields."""

from __future__ import annotations

import types

import pytest

from callout import (
    ArgumentTypeError,
    Callout,
    Mtx,
    NotInitializedError,
    callout_active,
    callout_init,
    callout_pending,
    callout_reset,
    callout_terminated,
)
from callout._core.state import FIELDS
from callout.testing import VirtualSMP


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("what", [property(lambda c: None), "a value", None])
def test_the_fields_of_a_callout_are_the_engines(name: str, what: object) -> None:
    """A property would be asked by some modules, and not by what is compiled."""
    with pytest.raises(ArgumentTypeError, match=f"^Timer: '{name}' is the name of a field of every Callout"):
        type("Timer", (Callout,), {name: what})


def test_neither_a_slot_nor_a_class_beside_it_has_one() -> None:
    """However it comes to be found before the field."""
    with pytest.raises(ArgumentTypeError, match="'lock' is the name of a field"):
        type("Timer", (Callout,), {"__slots__": ("lock",)})
    beside = type("Beside", (), {"time": 3})
    with pytest.raises(ArgumentTypeError, match="'time' is the name of a field"):
        type("Timer", (beside, Callout), {})
    timer = type("Timer", (Callout,), {})
    with pytest.raises(ArgumentTypeError, match="'arg' is the name of a field"):
        type("Other", (timer,), {"arg": 3})


@pytest.mark.parametrize("name", ["_raw", "kind", "machine", "me", "name", "parked", "since", "_depth", "_owner"])
def test_the_fields_of_a_mutex_are_the_engines(name: str) -> None:
    """As those of a callout."""
    with pytest.raises(ArgumentTypeError, match=f"'{name}' is the name of a field of every Mtx"):
        type("Guard", (Mtx,), {name: property(lambda m: None)})


def test_anything_else_may_be_had() -> None:
    """Slots, a dict, properties and methods."""

    class Timer(Callout):
        __slots__ = ("__dict__", "owner")

        owner: str

        @property
        def due(self) -> int:
            return self.time

    class Guard(Mtx):
        owner = "somebody"

    ran: list[str] = []
    with VirtualSMP(1) as vm:
        c = Timer()
        c.owner = "me"
        c.anything = 3  # type: ignore[attr-defined]  # it has a dict
        callout_init(c, 1)
        callout_reset(c, 1, ran.append, c.owner)
        assert c.due == c.time > 0
        with Guard("g"):
            pass
        vm.settle()

    assert ran == ["me"]


@pytest.mark.parametrize("call", [callout_pending, callout_active, callout_terminated])
def test_what_was_never_made_says_so(call: object) -> None:
    """Made by __new__() alone, it has no fields, or those of C code without a CPU."""
    with pytest.raises(NotInitializedError, match=rf"{call.__name__}: this Callout was never made"):  # type: ignore[attr-defined]
        call(Callout.__new__(Callout))  # type: ignore[operator]


@pytest.mark.parametrize("base", [Callout, Mtx])
def test_the_classes_beside_it_hear_of_a_subclass(base: type) -> None:
    """With the arguments that are for them."""
    heard: list[dict[str, object]] = []

    class Beside:
        def __init_subclass__(cls, **more: object) -> None:
            heard.append(more)

    types.new_class("Timer", (base, Beside), {"word": 3})

    assert heard == [{"word": 3}]
