"""What must hold after every step: no state between two steps goes unseen, with the reduction or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from callout import Callout, Mtx, callout_init_mtx, callout_pending, callout_reset
from callout.explore import Violation, explore, replay
from callout.testing import VirtualSMP

from .test_reduction import Scenario, program


def watched(seed: int, seen: set[tuple[object, ...]]) -> Scenario:
    """Return a random program, and have every state of its cells put into *seen*."""
    scenario = program(seed)

    def adapted(vm: VirtualSMP) -> object:
        cells = [vm.cell(0, f"c{number}") for number in range(3)]
        given = iter(cells)

        @vm.invariant
        def look() -> None:
            seen.add(tuple(cell.value for cell in cells))

        class Given:
            """The virtual CPUs, but for the cells, which are there already."""

            def __getattr__(self, name: str) -> object:
                return (lambda value, name="": next(given)) if name == "cell" else getattr(vm, name)

        return scenario(cast("VirtualSMP", Given()))

    return adapted


@pytest.mark.parametrize("bound", [0, 1, 2, None])
@pytest.mark.parametrize("seed", [0, 1, 2, 4, 7])
def test_the_reduction_leaves_no_state_between_two_steps_out(seed: int, bound: int | None) -> None:
    """With it an invariant sees the same states as in a plain search, not the last ones only."""
    plain: set[tuple[object, ...]] = set()
    reduced: set[tuple[object, ...]] = set()
    whole = explore(watched(seed, plain), cpus=1, bound=bound, reduce=False, schedules=2000)
    assert explore(watched(seed, reduced), cpus=1, bound=bound, cells_only=True).exhausted

    assert len(reduced) > 1
    if whole.exhausted:
        assert reduced == plain
    else:
        assert reduced >= plain


def transfer(vm: VirtualSMP) -> None:
    """Move 3 from one account to another, in two steps."""
    a, b = vm.cell(10, "a"), vm.cell(0, "b")
    vm.invariant(lambda: a.value + b.value == 10)

    def move() -> None:
        a.value -= 3
        b.value += 3

    vm.spawn(move)
    vm.settle()


@pytest.mark.parametrize("reduce", [True, False])
def test_what_is_wrong_between_two_steps_only_is_found(reduce: bool) -> None:
    """In the end the sum is right. The diagram ends with the step that made it wrong."""
    with pytest.raises(Violation) as caught:
        explore(transfer, reduce=reduce)

    assert isinstance(caught.value.__cause__, AssertionError)
    assert str(caught.value.__cause__) == "the invariant <lambda> does not hold"
    lines = [line.strip() for line in caught.value.diagram.splitlines()]
    at = lines.index("*** AssertionError: the invariant <lambda> does not hold")
    assert lines[at - 1] == "writes a = 7"
    with pytest.raises(AssertionError, match="the invariant"):
        replay(transfer, caught.value.schedule)


def test_a_state_of_python_and_of_a_cell_together() -> None:
    """An invariant may read what is no cell: the order of a step that changes it and of one of a cell matters."""

    def scenario(vm: VirtualSMP) -> None:
        cell = vm.cell(0, "cell")
        plain: list[int] = []

        def pure() -> None:
            cell.value = 1
            cell.value = 2

        def other() -> None:
            plain.append(1)
            vm.point()
            plain.append(2)

        vm.invariant(lambda: (cell.value, len(plain)) != (1, 2))
        vm.spawn(pure)
        vm.spawn(other)
        vm.settle()

    for reduce in (True, False):
        with pytest.raises(Violation):
            explore(scenario, reduce=reduce)


def test_the_engine_is_looked_at_in_the_middle_of_its_work() -> None:
    """A callout is pending, then its callback runs; and between the two it is not pending, and nothing has run."""

    def scenario(vm: VirtualSMP) -> list[tuple[bool, bool]]:
        mutex, c = Mtx("m"), Callout()
        seen: list[tuple[bool, bool]] = []
        runs = vm.cell(False, "runs")
        callout_init_mtx(c, mutex)

        def callback(arg: None) -> None:
            runs.value = True

        @vm.invariant
        def look() -> None:
            state = bool(callout_pending(c)), runs.value
            if seen[-1:] != [state]:
                seen.append(state)

        with mutex:
            callout_reset(c, 1, callback, None)
        vm.settle()
        return seen

    certificate = explore(scenario, cpus=1, bound=0)
    assert certificate.final_states == {
        f"returned {[(False, False), (True, False), (False, False), (False, True)]}; runs=True"
    }


def raises(vm: VirtualSMP) -> None:
    """Have an invariant that is wrong from the beginning."""

    @vm.invariant
    def never() -> None:
        raise ValueError("wrong from the beginning")

    vm.point()


def waits(vm: VirtualSMP) -> None:
    """Have an invariant that waits for a lock which another thread holds."""
    lock = vm.lock("l")

    def look() -> None:
        with lock:
            pass

    def holder() -> None:
        with lock:
            vm.point()

    vm.invariant(look)
    vm.spawn(holder)
    vm.settle()


async def _async() -> bool:
    return False


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (raises, "wrong from the beginning"),
        (waits, "would wait for the lock 'l', which holder holds"),
        (lambda vm: vm.invariant(3), "invariant: give a function, not 3"),
        (lambda vm: vm.invariant(_async), "invariant: give a plain function"),
        (lambda vm: vm.invariant(_async()), "invariant: give the coroutine function, not the coroutine"),
    ],
    ids=["raises", "waits", "no function", "async", "coroutine"],
)
def test_what_is_wrong_with_an_invariant_is_said(scenario: Callable[[VirtualSMP], object], says: str) -> None:
    """One clear error: its own, or that of the call."""
    with pytest.raises(Violation) as caught:
        explore(scenario)
    assert says in str(caught.value.__cause__)
