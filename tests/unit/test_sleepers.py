"""The core of every wait for an event: it ends once, says truly why, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from callout import ClosedError, ForkedError, ReentrantCallError
from callout._core.drain import run_blocking
from callout._core.machine import Machine
from callout._core.phases import Phase
from callout._core.platform import Waiter
from callout._core.sleep import Why, enlist, sleep, wake, wake_all
from callout.testing import VirtualSMP


class Ready:
    """A waiter whose wait ends at once, with something done meanwhile."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    def set(self) -> None:
        """Be set."""

    set_here = set

    async def wait(self) -> None:
        """Let the others do it."""
        self._meanwhile()


def nothing() -> None:
    """Do nothing meanwhile."""


@pytest.fixture
def machine() -> Iterator[Machine]:
    """An open machine of one CPU, whose clock stands still."""
    with VirtualSMP(1, free_clock=False) as vm:
        yield vm.machine
        vm.machine.phase = Phase.OPEN


def test_a_wait_of_a_closed_system_is_refused_before_anything_is_made(machine: Machine) -> None:
    """ClosedError, or ForkedError, is what it says, also where no waiter could be made."""

    def never() -> NoReturn:
        raise AssertionError("a waiter was made")

    for phase in (Phase.CLOSED, Phase.FORKED):
        machine.phase = phase
        with pytest.raises((ClosedError, ForkedError)):
            enlist("wait", machine, never)

    assert machine.sleepers == {}


def test_a_wait_that_meets_the_close_is_refused(machine: Machine) -> None:
    """A sleeper that comes when the close has woken all the others does not sleep for ever, and is not kept."""

    def closed_meanwhile() -> Waiter:
        machine.phase = Phase.CLOSED
        wake_all(machine)
        return Ready(nothing)

    with pytest.raises(ClosedError):
        enlist("wait", machine, closed_meanwhile)

    assert machine.sleepers == {}


def test_what_comes_first_ends_the_wait(machine: Machine) -> None:
    """The second of two that wake a sleeper is told that it was not this, and what the first has said stands."""
    sleeper = enlist("wait", machine, lambda: Ready(nothing))

    assert wake(machine, sleeper, Why.EVENT)
    assert not wake(machine, sleeper, Why.TIMEOUT)
    assert sleeper.why is Why.EVENT


def test_a_wait_that_was_over_when_the_system_was_closed_is_no_error(machine: Machine) -> None:
    """The event came, then the close, then the sleeper ran: the result is the event."""

    def event_and_close() -> None:
        wake(machine, sleeper, Why.EVENT)
        machine.phase = Phase.CLOSED

    sleeper = enlist("wait", machine, lambda: Ready(event_and_close))

    assert run_blocking(sleep("wait", machine, sleeper, None)) is Why.EVENT


def test_a_wait_that_is_over_leaves_no_timeout(machine: Machine) -> None:
    """The callout of a timeout is stopped when the event comes first."""
    (cpu,) = machine.cpus
    pending: list[int] = []

    def event() -> None:
        pending.append(len(cpu.wheel))
        wake(machine, sleeper, Why.EVENT)

    sleeper = enlist("wait", machine, lambda: Ready(event))

    assert run_blocking(sleep("wait", machine, sleeper, 10**9)) is Why.EVENT
    assert pending == [1]
    assert len(cpu.wheel) == 0


def test_a_sleeper_whose_timeout_cannot_be_stopped_is_off_the_list(machine: Machine) -> None:
    """If the end of a wait is cut short at its timeout, nobody takes the sleeper for one that can still be woken."""
    (cpu,) = machine.cpus

    def interrupted() -> None:
        cpu.lock.acquire()
        cpu.busy = True

    sleeper = enlist("wait", machine, lambda: Ready(interrupted))
    with pytest.raises(ReentrantCallError):
        run_blocking(sleep("wait", machine, sleeper, 10**9))
    cpu.busy = False
    cpu.lock.release()

    assert not wake(machine, sleeper, Why.EVENT)
