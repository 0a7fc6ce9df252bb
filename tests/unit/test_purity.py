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

pytestmark = pytest.mark.pure


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
    assert is_pure(partial(only_calls, c), ())
    assert is_pure(only_calls, ((c, lock, 1),))
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
    assert not is_pure(partial(pushes, vm, own), ())
    assert not is_pure(partial(print, 1), ())
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


# -- each way to share something shows with the reduction as it does without -------------------------------------------


class Connection(Callout):
    """A callout with an attribute of its own."""

    n = 0


class Counter(Mtx):
    """A lock with one."""

    n = 0


OPEN = True


def tally() -> None:
    """Have an attribute."""


def adds(vm: VirtualSMP, thing: Connection | Counter) -> None:
    """Add 1, in two steps."""
    seen = thing.n
    vm.point()
    thing.n = seen + 1


def attribute_of_a_callout(vm: VirtualSMP) -> object:
    """A class of one's own."""
    c = Connection()
    for _ in range(2):
        vm.spawn(adds, vm, c)
    vm.settle()
    return c.n


def attribute_of_a_lock(vm: VirtualSMP) -> object:
    """The same with a lock."""
    m = Counter("m")
    for _ in range(2):
        vm.spawn(adds, vm, m)
    vm.settle()
    return m.n


def pushes(vm: VirtualSMP, log: list[int]) -> None:
    """Append to what it was given."""
    vm.point()
    log.append(1)


def list_that_is_given(vm: VirtualSMP) -> object:
    """The main thread shares what it gives to another."""
    log: list[int] = []
    vm.spawn(pushes, vm, log)
    vm.point()
    return len(log)


def list_in_a_cell(vm: VirtualSMP) -> object:
    """What is in a cell can be kept, and used without it."""
    cell = vm.cell([0], "log")

    def thread() -> None:
        log = cell.value
        seen = log[0]
        vm.point()
        log[0] = seen + 1

    vm.spawn(thread)
    vm.spawn(thread)
    vm.settle()
    return cell.peek()[0]


def closes(vm: VirtualSMP) -> None:
    """Assign a constant."""
    global OPEN  # noqa: PLW0603 - the very thing
    vm.point()
    OPEN = False


def looks(vm: VirtualSMP) -> bool:
    """Read it."""
    vm.point()
    return OPEN


def constant_that_is_assigned(vm: VirtualSMP) -> object:
    """A global variable whose name says that it is none."""
    global OPEN  # noqa: PLW0603 - the very thing
    OPEN = True
    vm.spawn(closes, vm)
    look = vm.spawn(looks, vm)
    vm.settle()
    return look.result


def attribute_of_a_function(vm: VirtualSMP) -> object:
    """A function is an object, too."""
    vars(tally)["n"] = 0

    def thread() -> None:
        seen = tally.n  # type: ignore[attr-defined]  # the very thing
        vm.point()
        tally.n = seen + 1  # type: ignore[attr-defined]

    vm.spawn(thread)
    vm.spawn(thread)
    vm.settle()
    return vars(tally)["n"]


def variable_that_is_rebound(vm: VirtualSMP) -> object:
    """The scenario assigns what a thread reads."""
    a, b = vm.cell(1, "a"), vm.cell(2, "b")
    which = a

    def look() -> int:
        vm.point()
        return which.value

    thread = vm.spawn(look)
    vm.point()
    which = b
    vm.settle()
    return thread.result


def variable_of_a_loop(vm: VirtualSMP) -> object:
    """A loop assigns it again and again."""
    cells = [vm.cell(number, "c") for number in range(2)]
    threads = []
    for cell in cells:

        def look() -> int:
            return cell.value  # noqa: B023 - the very thing

        threads.append(vm.spawn(look))
        vm.point()
    vm.settle()
    return [thread.result for thread in threads]


def function_in_a_function(vm: VirtualSMP) -> object:
    """What it uses, the function around it uses."""
    SHARED.clear()

    def thread() -> None:
        def push() -> None:
            SHARED.append(1)

        vm.point()
        push()

    def look() -> int:
        def length() -> int:
            return len(SHARED)

        vm.point()
        return length()

    vm.spawn(thread)
    seen = vm.spawn(look)
    vm.settle()
    return seen.result


def cell_that_is_looked_at(vm: VirtualSMP) -> object:
    """``peek()`` is no step, and a use."""
    cell = vm.cell(0, "cell")

    def write() -> None:
        cell.value = 1

    def look() -> int:
        vm.point()
        return cell.peek()

    vm.spawn(write)
    seen = vm.spawn(look)
    vm.settle()
    return seen.result


@pytest.mark.parametrize("bound", [1, None])
@pytest.mark.parametrize(
    "scenario",
    [
        attribute_of_a_callout,
        attribute_of_a_lock,
        list_that_is_given,
        list_in_a_cell,
        constant_that_is_assigned,
        attribute_of_a_function,
        variable_that_is_rebound,
        variable_of_a_loop,
        function_in_a_function,
        cell_that_is_looked_at,
    ],
)
def test_what_is_shared_is_seen(scenario: Callable[[VirtualSMP], object], bound: int | None) -> None:
    """The same final states with the reduction and without, and more than one."""
    reduced = explore(scenario, cpus=1, bound=bound)
    plain = explore(scenario, cpus=1, bound=bound, reduce=False)

    assert len(plain.final_states) > 1
    assert reduced.final_states == plain.final_states


def test_the_machine_has_no_attributes_of_yours(vm: VirtualSMP) -> None:
    """Threads would share them."""
    with pytest.raises(AttributeError, match="open"):
        vm.open = True  # type: ignore[attr-defined]  # the very thing


def test_a_number_of_the_function_around_it_is_a_constant() -> None:
    """So the reduction knows all that its threads share: three lock sections of two threads, in 20 orders."""

    def program(sections: int) -> Callable[[VirtualSMP], None]:
        def scenario(vm: VirtualSMP) -> None:
            mutex = Mtx("m")

            def thread() -> None:
                for _ in range(sections):
                    with mutex:
                        pass

            vm.spawn(thread)
            vm.spawn(thread)

        return scenario

    assert explore(program(3), cpus=1, bound=None).schedules == 20
