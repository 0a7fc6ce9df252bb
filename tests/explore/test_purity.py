"""Which functions can share nothing that the platform does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType

import pytest

import callout
from callout import Callout, Mtx, callout_init, callout_reset, callout_stop
from callout._worlds.virtual.purity import is_pure
from callout.explore import Violation, explore
from callout.testing import VirtualSMP


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give virtual CPUs."""
    with VirtualSMP(1) as vm:
        yield vm


LIMIT = 3
SHARED: list[int] = []
counter = 0


def only_calls(c: Callout) -> None:
    """Use a callout, and nothing else."""
    for _ in range(LIMIT):
        callout_stop(c)


def uses_a_list() -> None:
    """Use a global list."""
    SHARED.append(1)


def reads_a_variable() -> int:
    """Read a global variable that others may write."""
    return counter


def writes_a_variable() -> None:
    """Write a global variable."""
    global counter  # noqa: PLW0603 - the very thing
    counter = 1


def has_a_default(shared: list[int] = SHARED) -> None:
    """Have a list as a default."""
    shared.append(1)


def calls_another() -> None:
    """Call a function that uses a list."""
    uses_a_list()


def test_what_uses_only_callouts_locks_and_constants_is_pure(vm: VirtualSMP) -> None:
    """Functions of the package, of a module, and closures over a lock."""
    lock, c = Mtx("m"), Callout()
    callout_init(c, 1)

    def holds() -> None:
        with lock:
            vm.point()

    assert is_pure(only_calls, (c,))
    assert is_pure(callout_stop, (c,))
    assert is_pure(holds, ())


def test_what_may_share_something_else_is_not(vm: VirtualSMP) -> None:
    """Whatever can reach a list, a variable, an object of yours, or code of which nothing is known."""
    own: list[int] = []

    def appends() -> None:
        own.append(1)

    def rebinds() -> None:
        nonlocal own
        own = []

    for func in (uses_a_list, reads_a_variable, writes_a_variable, has_a_default, calls_another, appends, rebinds):
        assert not is_pure(func, ()), func.__name__
    assert not is_pure(own.append, (1,))
    assert not is_pure(only_calls, (own,))
    assert not is_pure(partial(only_calls, Callout()), ())
    assert not is_pure(print, ())


def wrapped_by_the_package(func: Callable[[VirtualSMP], object]) -> Callable[[VirtualSMP], object]:
    """Return a function of the package's own code that has been given one of yours, as the pytest plugin makes them."""
    source = "def wrap(func):\n    def call(vm):\n        return func(vm)\n    return call\n"
    namespace: dict[str, FunctionType] = {}
    file = Path(callout.__file__).parent / "testing" / "wraps.py"
    exec(compile(source, str(file), "exec"), namespace)  # noqa: S102 - our own text
    wrapped: Callable[[VirtualSMP], object] = namespace["wrap"](func)
    return wrapped


def test_code_of_the_package_that_was_given_yours_is_not() -> None:
    """A race of a scenario is found, too, when a function of the package runs it."""

    def scenario(vm: VirtualSMP) -> None:
        ran: list[int] = []
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1, ran.append, 1)
        vm.point()
        assert not ran

    for each in (scenario, wrapped_by_the_package(scenario)):
        with pytest.raises(Violation):
            explore(each, cpus=1, bound=1)
