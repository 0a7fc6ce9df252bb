"""Making and arming a callout in one step, while others do the same, while what is armed falls due, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from callout import Callout, ClosedError, Mtx
from callout._core.levels import COARSE
from callout._core.lifecycle import close, enter, quiesce
from callout._core.phases import Phase
from callout._core.short import arm_new
from callout._core.state import FIELDS, PENDING, QUEUED
from callout._locks.lock import Lock
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from tests.race.history import undisturbed
from tests.race.mutants import Mutant

TICK: Final = 1_000_000  # ns
EARLY: Final = "cpu.busy = False; raw.release(); raw.acquire(); cpu.busy = True; last = at.prev"
_state_of: Final = FIELDS["state"].__get__  # no switch point

LOCKS: Final[dict[str, Callable[[VirtualSMP], Lock | None]]] = {
    "no lock": lambda vm: None,
    "a mutex": lambda vm: Mtx("m"),
    "Giant": lambda vm: vm.machine.giant,
}


def new(vm: VirtualSMP, cpu: int, delay: int, func: Callable[[object], object], lock: Lock | None = None) -> Callout:
    """Make a callout on a CPU, and arm it."""
    return arm_new("call_later", vm.machine.cpus[cpu], delay, func, None, lock)


def ignore(arg: object) -> None:
    """Do nothing."""


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("kind", LOCKS)
def test_each_runs_once_on_its_cpu(kind: str, target: int) -> None:
    """One that a thread makes, while that CPU takes the interrupt of an older one that arms a third."""

    def scenario(vm: VirtualSMP) -> None:
        lock = LOCKS[kind](vm)
        home = 0 if kind == "Giant" else target
        ran: list[str] = []

        def run(name: str) -> Callable[[object], None]:
            def called(_: object) -> None:
                assert lock is None or lock.owned()
                assert vm.platform.current_cpu() == home
                ran.append(name)
                if name == "old":
                    new(vm, target, TICK, run("third"), lock)

            return called

        with undisturbed(vm):
            new(vm, target, TICK, run("old"), lock)
            vm.spawn(lambda: new(vm, target, TICK, run("young"), lock))
        vm.settle()

        assert sorted(ran) == ["old", "third", "young"]

    certificate = explore(scenario, cpus=2, bound=2)

    assert certificate.exhausted


@pytest.mark.parametrize("others", ["late", "soon"])
def test_the_event_timer_is_set_for_the_first_of_two(others: str) -> None:
    """Both are armed at the same time; a slot of the wheel is in use, so that the short path finds its bucket."""

    def scenario(vm: VirtualSMP) -> None:
        begins = (vm.platform.time >> COARSE) + 3 << COARSE
        when = {"soon": begins + 10 * TICK, "late": begins + 400 * TICK}

        def arm_one(name: str) -> None:
            c = new(vm, 0, when[name] - vm.platform.time, ignore)
            waits = _state_of(c) & (PENDING | QUEUED) == PENDING
            assert not waits or vm.platform.serving[0] or vm.platform.events[0] <= c.time

        with undisturbed(vm):
            new(vm, 0, when["late"] - vm.platform.time, ignore)
            vm.spawn(lambda: arm_one(others))
        arm_one("soon")
        vm.settle()

    certificate = explore(scenario, cpus=1, bound=2)

    assert certificate.exhausted


@pytest.mark.parametrize("cpus", [1, 2])
def test_while_the_system_is_closed(cpus: int) -> None:
    """It runs before the end or never, and nothing is left pending; or making it is refused."""

    def scenario(vm: VirtualSMP) -> None:
        made: list[Callout] = []
        ended: list[bool] = []

        def run(_: object) -> None:
            assert not ended, "a callback after the close"

        async def leave() -> None:
            enter(vm.machine, Phase.CANCELLING)
            await quiesce(vm.machine)
            await close(vm.machine)
            ended.append(True)

        def act() -> None:
            try:
                made.append(new(vm, cpus - 1, TICK, run))
            except ClosedError:
                pass

        vm.spawn(leave, cpu=0, name="leave")
        vm.spawn(act, name="thread")
        vm.settle()

        assert ended
        for c in made:
            assert c.prev is c.next is None
            assert c.run is None
        with pytest.raises(ClosedError, match="call_later"):
            new(vm, 0, TICK, run)

    certificate = explore(scenario, cpus=cpus, bound=1)

    assert certificate.exhausted


FOUND_BY: Final[list[tuple[Mutant, Callable[[], None]]]] = [
    (
        Mutant("it does not set the event timer", arm_new, "at is None or when < cpu.deadline", "at is None"),
        partial(test_the_event_timer_is_set_for_the_first_of_two, "late"),
    ),
    (
        Mutant("it is armed although all was stopped", arm_new, "cpu.plain is cpu", "True"),
        partial(test_while_the_system_is_closed, 1),
    ),
    (
        Mutant("its place is found under another hold of the lock", arm_new, "last = at.prev", EARLY),
        partial(test_each_runs_once_on_its_cpu, "no lock", 0),
    ),
]


@pytest.mark.parametrize("paths", ["short"], indirect=True)  # the long way is that of others
@pytest.mark.parametrize(("mutant", "test"), FOUND_BY, ids=[str(row[0]) for row in FOUND_BY])
def test_a_planted_bug_is_found(mutant: Mutant, test: Callable[[], None], paths: str) -> None:
    """Each test can fail."""
    assert paths == "short"
    with mutant.planted(), pytest.raises(Violation):
        test()
