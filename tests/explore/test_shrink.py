"""Of a schedule that goes wrong the shortest is made: with as few preemptions as the race needs."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from callout import ArgumentTypeError, UseAfterFree
from callout._worlds.virtual.context import Context
from callout.explore import NondeterminismError, Violation, _shrink, explore, replay
from callout.explore._run import Block, Script, run
from callout.explore._schedule import Setting
from callout.explore._search import Failure
from callout.explore._shrink import RUNS, Shrinker, joined, shortest
from callout.museum import EXHIBITS, Variant
from callout.testing import VirtualSMP

STEPS: Final = 3000


class Wild(Script):
    """A chooser that chooses at random."""

    def __init__(self, seed: int) -> None:
        super().__init__(())
        self._rng = random.Random(seed)
        self.script: dict[int, str] = {}

    def choice(self, order: Sequence[Context]) -> int:
        """Return any."""
        choice = self._rng.randrange(len(order))
        self.script[self.platform.steps] = order[choice].name
        return choice


def setting_of(variant: Variant) -> Setting:
    """Return how a variant is run."""
    return Setting(variant.cpus, 1000, short_paths=True, name="x")


def wild(variant: Variant, seeds: int) -> Iterator[tuple[Failure, int]]:
    """Yield random schedules of a variant that go wrong, and how many preemptions each has."""
    for seed in range(seeds):
        chooser = Wild(seed)
        problem = run(variant.scenario, setting_of(variant), chooser, STEPS).problem
        if problem is not None:
            yield Failure(chooser.script, type(problem), repr(problem)), chooser.moment_of(problem).preemptions


def named(number: str, name: str) -> Variant:
    """Return that variant."""
    return next(variant for variant in EXHIBITS[number].buggy if variant.name == name)


RACES: Final = [
    pytest.param(variant, id=f"{exhibit.number}-{variant.name}")
    for exhibit in EXHIBITS.values()
    for variant in exhibit.buggy
    if "spins" not in variant.name  # a livelock is long, whatever is done
]


@pytest.mark.parametrize("variant", RACES)
def test_what_the_search_finds_is_made_minimal(variant: Variant) -> None:
    """Searched for with three preemptions, each race is reported with as many as its exhibit says that it takes."""
    with pytest.raises(Violation) as caught:
        explore(variant.scenario, cpus=variant.cpus, cells_only=variant.cells_only)

    assert caught.value.preemptions == variant.preemptions
    assert "\nminimal: " in caught.value.diagram
    cause = caught.value.__cause__
    assert cause is not None
    with pytest.raises(type(cause)) as again:
        replay(variant.scenario, caught.value.schedule)
    assert str(again.value) == str(cause)


WILD: Final = [
    ("R4.1", "stop"),
    ("R4.8", "sleeps-at-the-old-cpu"),
    ("R4.10", "yields"),
    ("R3.1", "naive"),
    ("R3.4", "delete-then-wait"),
]


@pytest.mark.parametrize(("number", "name"), WILD)
def test_a_random_schedule_becomes_minimal_within_a_hundred_runs(number: str, name: str) -> None:
    """However many preemptions it has, as few are left as the race needs, and that is shown by a search."""
    variant = named(number, name)
    setting = setting_of(variant)
    before = []
    for failure, preemptions in wild(variant, 30):
        before.append(preemptions)
        shrunk = shortest(
            variant.scenario,
            setting,
            failure,
            steps=STEPS,
            reduces=True,
            world=not variant.cells_only,
            seconds=None,
        )

        assert (shrunk.preemptions, shrunk.minimal) == (variant.preemptions, True)
        assert shrunk.runs <= RUNS
        if len(before) == 4:
            break

    assert max(before) >= variant.preemptions + 3


def test_where_no_single_change_helps_the_search_does() -> None:
    """Some schedules get stuck with more preemptions than it takes, and only the search with one less shows that."""
    variant = named("R3.4", "delete-then-wait")
    stuck = []
    for failure, _ in wild(variant, 30):
        shrinker = Shrinker(variant.scenario, setting_of(variant), STEPS, failure.kind)
        shrinker.start(failure)
        shrinker.shrink()
        stuck.append(shrinker.best.moment.preemptions > variant.preemptions)

    assert True in stuck


def test_a_search_that_is_given_up_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report claims no more than was shown."""
    variant = named("R4.10", "yields")
    monkeypatch.setattr(_shrink, "SCHEDULES", 3)

    with pytest.raises(Violation) as caught:
        explore(variant.scenario, cpus=variant.cpus, cells_only=True)

    assert "not shown to be minimal: the search for one with fewer preemptions ends" in caught.value.diagram


def two_mistakes(vm: VirtualSMP) -> None:
    """One thread is wrong if it is overtaken, the other if it is not and then waits for a third."""
    a, b = vm.cell(0, "a"), vm.cell(0, "b")

    def one() -> None:
        a.value = 1
        if b.value:
            raise KeyError("it takes a preemption")
        a.value = 2

    def other() -> None:
        if a.value == 1:
            b.value = 1
        elif a.value == 2:
            raise ValueError("it takes none")

    vm.spawn(one)
    vm.spawn(other)


def test_another_error_is_no_shorter_form_of_this() -> None:
    """A schedule that ends in an error of another type does not count, though it has fewer preemptions."""
    setting = Setting(1, 1000, short_paths=True, name="x")
    variant = Variant("x", "", two_mistakes)
    failure = next(failure for failure, _ in wild(variant, 100) if failure.kind is KeyError)

    shrunk = shortest(two_mistakes, setting, failure, steps=STEPS, reduces=True, world=True, seconds=None)

    assert (shrunk.preemptions, shrunk.minimal) == (1, True)
    with pytest.raises(Violation) as caught:
        explore(two_mistakes, bound=0)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_follows_the_error_is_no_part_of_the_schedule() -> None:
    """A preemption that comes after it is dropped, and neither counted nor shown."""

    def scenario(vm: VirtualSMP) -> None:
        n = vm.cell(0, "n")

        def fails() -> None:
            n.value = 1
            raise ValueError("it")

        def goes_on() -> None:
            for _ in range(20):
                n.value = 2

        vm.spawn(fails)
        vm.spawn(goes_on)

    with pytest.raises(Violation) as caught:
        explore(scenario)

    assert caught.value.preemptions == 0
    assert "goes_on" not in caught.value.diagram.partition("\n\n")[0]


def test_a_livelock_is_shrunk_with_few_runs() -> None:
    """It takes no preemption, and each of its runs is as long as a run may be: nothing can be shorter."""
    runs = 0

    def scenario(vm: VirtualSMP) -> None:
        nonlocal runs
        runs += 1
        n = vm.cell(0, "n")
        while not n.value:
            pass

    with pytest.raises(Violation) as caught:
        explore(scenario, steps=500)

    assert "*** LivelockError" in caught.value.diagram
    assert runs == 3  # found, run again, told


def test_what_does_not_go_wrong_again_is_nondeterminism() -> None:
    """The scenario is to blame, and both ends are named."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("only once")

    for shrink in (True, False):
        runs.clear()
        with pytest.raises(
            NondeterminismError, match=r"ended in ValueError\('only once'\), and run again it went well"
        ):
            explore(scenario, shrink=shrink)


def test_a_schedule_may_be_reported_as_it_was_found() -> None:
    """Then nothing is told, and it can be replayed all the same."""
    variant = named("R4.1", "stop")
    with pytest.raises(Violation) as caught:
        explore(variant.scenario, cpus=1, shrink=False)
    violation = caught.value

    assert violation.diagram == ""
    assert str(violation).startswith(
        f"schedule {violation.number} went wrong; replay it with {violation.schedule!r}; order: main "
    )
    with pytest.raises(UseAfterFree):
        replay(variant.scenario, violation.schedule)


@pytest.mark.parametrize("shrink", [True, False])
def test_a_violation_can_be_sent_from_another_process(shrink: bool) -> None:
    """Pickled and unpickled it says the same, with its diagram and its picture."""
    variant = named("R4.1", "stop")
    with pytest.raises(Violation) as caught:
        explore(variant.scenario, cpus=1, shrink=shrink)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - it is our own

    for said in (str, Violation.svg, lambda it: (it.schedule, it.number, it.preemptions, it.diagram)):
        assert said(again) == said(caught.value)


def test_shrink_is_a_flag() -> None:
    """Anything else is refused before anything runs."""
    with pytest.raises(ArgumentTypeError, match="shrink must be True or False, not 1"):
        explore(two_mistakes, shrink=1)  # type: ignore[arg-type]  # that is the point


def test_neighbours_of_one_context_are_one_block() -> None:
    """They have as many steps together, or go on until they cannot."""
    a, b = Block("a", 2), Block("b", None)

    assert joined(()) == ()
    assert joined((a, b, a)) == (a, b, a)
    assert joined((a, a, b)) == (Block("a", 4), b)
    assert joined((a, Block("a", None), b, b)) == (Block("a", None), b)
