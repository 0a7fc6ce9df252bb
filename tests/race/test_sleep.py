"""Wake-ups against timeouts against a second sleeper: sleep(9) and condvar(9) in every schedule, and planted bugs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

import pytest

from callout import (
    PDROP,
    Mtx,
    cv_broadcast,
    cv_init,
    cv_signal,
    cv_wait_sync,
    msleep,
    msleep_sync,
    wakeup,
    wakeup_one,
)
from callout._api import sleepqueue
from callout._core import sleep as sleeping
from callout.explore import Violation, explore
from callout.testing import VirtualSMP
from tests.race.linux_history import undisturbed
from tests.race.mutants import planted

Scenario = Callable[[VirtualSMP], None]


class Shop:
    """Items, a mutex that guards them, and customers who sleep until there is one for them."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.mtx = Mtx("shop")
        self.items = 0
        self.inside = 0
        self.posted = 0
        self.taken: list[str] = []
        self.gone: list[str] = []

    def enter(self) -> None:
        """Be in the shop: with the mutex held, and alone."""
        assert self.mtx.owned(), "the mutex is not held"
        self.inside += 1
        assert self.inside == 1, "two threads hold the mutex"
        self.vm.platform.point()
        self.inside -= 1

    def post(self, wake: Callable[[object], None]) -> None:
        """Put one item there, and wake."""
        with self.mtx:
            self.enter()
            self.items += 1
            self.posted += 1
        wake(self)

    def buy(self, name: str, timo: int = 0) -> None:
        """Take one item, and sleep until there is one, or until the patience is at its end."""
        with self.mtx:
            while not self.items:
                slept = msleep_sync(self, self.mtx, 0, name, timo)
                self.enter()
                assert slept == 0 or timo, "a time that was not set is over"
                if slept == errno.EWOULDBLOCK:
                    self.gone.append(name)  # and leaves what may be there to the next
                    return
                assert slept == 0
                assert self.posted, "woken, and nobody has called wakeup()"
            self.items -= 1
            self.taken.append(name)

    def verify(self) -> None:
        """Nobody sleeps any more, and the queues are empty."""
        self.vm.settle()
        assert sleepqueue.queues_of(self.vm.machine)._queues == {}, "somebody is left in a queue"
        assert not self.vm.machine.sleepers, "somebody is left on the machine's list"
        assert self.mtx._owner is None, "the mutex was left held"


def no_wake_up_is_lost(vm: VirtualSMP) -> None:
    """One customer, one item."""
    shop = Shop(vm)
    with undisturbed(vm):
        vm.spawn(shop.buy, "a", name="a")
        vm.spawn(shop.post, wakeup, name="post")
    shop.verify()
    assert shop.taken == ["a"]


def wakeup_against_timeout(vm: VirtualSMP) -> None:
    """One customer, whose patience may end at any moment, one item."""
    shop = Shop(vm)
    with undisturbed(vm):
        vm.spawn(shop.buy, "a", 1, name="a")
        vm.spawn(shop.post, wakeup_one, name="post")
    shop.verify()
    assert len(shop.taken) + len(shop.gone) == 1


def nobody_comes(vm: VirtualSMP) -> None:
    """Two customers, whose patience ends."""
    shop = Shop(vm)
    with undisturbed(vm):
        vm.spawn(shop.buy, "a", 1, name="a")
        vm.spawn(shop.buy, "b", 1, name="b", bound=1)
    shop.verify()
    assert sorted(shop.gone) == ["a", "b"]


def one_wake_up_for_two(vm: VirtualSMP) -> None:
    """Two customers, one without patience, and one item: the other gets it if the first goes away."""
    shop = Shop(vm)
    with undisturbed(vm):
        vm.spawn(shop.buy, "hasty", 1, name="hasty")
        vm.spawn(shop.buy, "patient", name="patient")
        vm.spawn(shop.post, wakeup_one, name="post")
    vm.settle()
    assert len(shop.taken) == 1, "an item, a customer asleep, and nobody wakes it"
    if shop.taken == ["hasty"]:
        shop.post(wakeup_one)
    shop.verify()
    assert shop.taken[-1] == "patient"


def all_are_woken(vm: VirtualSMP) -> None:
    """Two customers and two items that come at once."""
    shop = Shop(vm)

    def post() -> None:
        with shop.mtx:
            shop.items = shop.posted = 2
        wakeup(shop)

    with undisturbed(vm):
        vm.spawn(shop.buy, "a", name="a")
        vm.spawn(shop.buy, "b", name="b")
        vm.spawn(post, name="post")
    shop.verify()
    assert sorted(shop.taken) == ["a", "b"]


def a_task_and_a_thread(vm: VirtualSMP) -> None:
    """A task of CPU 0 and a thread sleep on the same channel; two items come one by one."""
    shop = Shop(vm)

    async def buy() -> None:
        with shop.mtx:
            while not shop.items:
                assert await msleep(shop, shop.mtx, 0, "task", 0) == 0
                shop.enter()
            shop.items -= 1
            shop.taken.append("task")

    def post_twice() -> None:
        shop.post(wakeup_one)
        shop.post(wakeup_one)

    with undisturbed(vm):
        vm.spawn(lambda: vm.run(buy), name="task", cpu=0)
        vm.spawn(shop.buy, "thread", name="thread", bound=1)
        vm.spawn(post_twice, name="post")
    shop.verify()
    assert sorted(shop.taken) == ["task", "thread"]


def dropped(vm: VirtualSMP) -> None:
    """With PDROP the sleeper comes back without the mutex, which another thread may hold at that moment."""
    mtx, chan = Mtx("m"), object()
    back: list[int] = []

    def sleeper() -> None:
        mtx.lock()
        back.append(msleep_sync(chan, mtx, PDROP, "drop", 1))
        assert not mtx.owned()

    def other() -> None:
        with mtx:
            wakeup(chan)
            vm.platform.point()

    with undisturbed(vm):
        vm.spawn(sleeper)
        vm.spawn(other)
    vm.settle()
    assert back in ([0], [errno.EWOULDBLOCK])
    assert mtx._owner is None


def condition_variables(vm: VirtualSMP) -> None:
    """A bounded buffer of one place: two condition variables, one mutex, a producer and a consumer."""
    mtx, filled, emptied = Mtx("buffer"), cv_init("filled"), cv_init("emptied")
    buffer: list[int] = []
    got: list[int] = []

    def produce() -> None:
        for number in range(2):
            with mtx:
                while buffer:
                    cv_wait_sync(emptied, mtx)
                buffer.append(number)
                cv_signal(filled)

    def consume() -> None:
        for _ in range(2):
            with mtx:
                while not buffer:
                    cv_wait_sync(filled, mtx)
                got.append(buffer.pop())
                cv_broadcast(emptied)

    with undisturbed(vm):
        vm.spawn(produce)
        vm.spawn(consume)
    vm.settle()
    assert got == [0, 1]


# scenario -> bound, least number of schedules
SCENARIOS: Final[dict[Scenario, tuple[int, int]]] = {
    no_wake_up_is_lost: (3, 49),
    wakeup_against_timeout: (2, 198),
    nobody_comes: (1, 179),
    one_wake_up_for_two: (1, 538),
    all_are_woken: (2, 831),
    a_task_and_a_thread: (1, 222),
    dropped: (2, 198),
    condition_variables: (2, 162),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_every_sleeper_is_woken_once_and_for_a_reason(scenario: Scenario) -> None:
    """In no schedule is a wake-up lost or given to one whose time is over, or the mutex not held afterwards."""
    bound, least = SCENARIOS[scenario]
    certificate = explore(scenario, bound=bound)

    assert certificate.exhausted
    assert certificate.schedules >= least


Mutant = tuple[Scenario, Callable[..., Any], tuple[tuple[str, str], ...]]  # Any: every function

MUTANTS: Final[dict[str, Mutant]] = {
    "the mutex is released before the sleeper is in the queue": (
        no_wake_up_is_lost,
        sleepqueue.sleep,
        (
            ("queues.join(chan, sleeper)", "pass"),
            ("released = not drop", "released = not drop; queues.join(chan, sleeper)"),
        ),
    ),
    "a wake-up for one is given to a sleeper whose time is over": (
        one_wake_up_for_two,
        sleepqueue.wakeup_one,
        (("if wake(machine, taken[0], Why.EVENT):", "if wake(machine, taken[0], Why.EVENT) or True:"),),
    ),
    "timeout and wake-up both end the sleep": (
        one_wake_up_for_two,
        sleeping.wake,
        (("if not claim(machine, sleeper):", "if not claim(machine, sleeper) and False:"),),
    ),
    "a wake-up for all wakes the first": (
        all_are_woken,
        sleepqueue.wakeup,
        (("queues_of(machine).take(chan, everybody=True)", "queues_of(machine).take(chan, everybody=False)"),),
    ),
    "a wake-up for one takes everybody off the queue": (
        a_task_and_a_thread,
        sleepqueue.SleepQueues.take,
        (("if len(taken) == len(queue):", "if True:"),),
    ),
    "the mutex is not acquired again": (
        no_wake_up_is_lost,
        sleepqueue.sleep,
        (("released = not drop", "released = False"),),
    ),
    "the mutex is acquired again in spite of PDROP": (
        dropped,
        sleepqueue.sleep,
        (("released = not drop", "released = True"),),
    ),
    "a sleeper whose time is over stays in the queue": (
        nobody_comes,
        sleepqueue.sleep,
        (("queues.leave(chan, sleeper)", "pass"),),
    ),
    "a sleep is said to have been woken when its time was over": (
        one_wake_up_for_two,
        sleepqueue._alarm,
        (("Why.TIMEOUT", "Why.EVENT"),),
    ),
    "a wake-up for one takes the last that came": (
        a_task_and_a_thread,
        sleepqueue.SleepQueues.take,
        (("taken = list(queue) if everybody else [queue[0]]", "taken = list(queue) if everybody else [queue[-1]]"),),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """The search finds the bug, in a scenario in which it finds nothing above."""
    scenario, function, changes = MUTANTS[name]
    with planted(function, *changes), pytest.raises(Violation):
        explore(scenario, bound=2, schedules=20_000)
