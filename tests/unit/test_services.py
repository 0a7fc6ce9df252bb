"""The two tasks that run callbacks: which of them is at the event timer, and what becomes of it when one dies.

The clock is a fake one: how long the machine takes for a step must not decide which task takes an interrupt.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from callout import (
    C_DIRECT_EXEC,
    SBT_1MS,
    Callout,
    CalloutSystem,
    Mtx,
    callout_drain,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_sbt,
    open_callouts,
)
from callout._worlds.trio.services import LIVES


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self.count += 1

    def here(self) -> tuple[int, str]:
        """Return in which step this is, and of which task."""
        return self.count, trio.lowlevel.current_task().name


@pytest.fixture
async def steps() -> AsyncIterator[Steps]:
    """Count."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    yield steps
    trio.lowlevel.remove_instrument(steps)


class Told:
    """What a callback has told."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.ran = trio.Event()
        self.at = (0, "")

    def __call__(self, _: object) -> None:
        """Run."""
        self.at = self.steps.here()
        self.ran.set()


def interrupts(system: CalloutSystem, steps: Steps) -> list[tuple[int, str]]:
    """Return a list of where each clock interrupt of CPU 0 will have been taken."""
    taken: list[tuple[int, str]] = []
    services = system._platform.loops[0].services
    fire = services._fire

    def note(again: bool) -> bool:
        taken.append(steps.here())
        return fire(again)

    services._fire = note
    return taken


async def run_in_a_ms(steps: Steps) -> tuple[int, str]:
    """Arm a callout for the next tick, and return where it ran."""
    told, c = Told(steps), Callout()
    callout_init(c, 1)
    callout_reset(c, 1, told, None)
    await told.ran.wait()
    return told.at


@pytest.mark.trio
async def test_what_an_interrupt_finds_due_runs_in_the_same_step(steps: Steps, autojump_clock: MockClock) -> None:
    """An idle softclock takes the interrupt itself: the loop does not go round between it and the callback."""
    async with open_callouts() as system:
        taken = interrupts(system, steps)
        for _ in range(3):
            assert await run_in_a_ms(steps) in taken

        assert {task for _, task in taken} == {"softclock of cpu 0"}


@pytest.mark.trio
async def test_while_softclock_waits_for_a_lock_another_task_takes_the_interrupts(
    steps: Steps, autojump_clock: MockClock
) -> None:
    """Direct callouts run in that; and when softclock has its lock, and is idle again, it is at the event timer."""
    async with open_callouts() as system:
        taken = interrupts(system, steps)
        held, release = threading.Event(), threading.Event()
        mtx = Mtx("m")

        def hold() -> None:
            with system.bound(), mtx:
                held.set()
                release.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hold)
            await trio.to_thread.run_sync(held.wait)
            locked, waits = Told(steps), Callout()
            callout_init_mtx(waits, mtx)
            callout_reset(waits, 1, locked, None)
            direct_at: list[tuple[int, str]] = []
            for _ in range(3):
                told, direct = Told(steps), Callout()
                callout_init(direct, 1)
                callout_reset_sbt(direct, 2 * SBT_1MS, 0, told, None, C_DIRECT_EXEC)
                await told.ran.wait()
                direct_at.append(told.at)
            waited = not locked.ran.is_set()
            release.set()
            await locked.ran.wait()

        assert waited
        assert set(direct_at) <= set(taken)
        assert {task for _, task in direct_at} == {"the clock interrupt of cpu 0"}

        assert locked.at[1] == "softclock of cpu 0"

        await run_in_a_ms(steps)  # the one that stands in takes this interrupt, and leaves

        at = await run_in_a_ms(steps)
        assert at in taken
        assert at[1] == "softclock of cpu 0"
        await callout_drain(waits)


@pytest.mark.trio
async def test_a_clock_interrupt_that_dies_is_taken_again(steps: Steps, autojump_clock: MockClock) -> None:
    """At once: what it has left is not late. The exception leaves through the block."""
    with pytest.RaisesGroup(MemoryError, flatten_subgroups=True):
        async with open_callouts() as system:
            services = system._platform.loops[0].services
            fire = services._fire

            def broken(again: bool) -> bool:
                services._fire = fire
                raise MemoryError("in the engine")

            services._fire = broken
            with trio.CancelScope(shield=True):
                await run_in_a_ms(steps)


@pytest.mark.trio
async def test_a_clock_interrupt_that_always_dies_is_left_dead(autojump_clock: MockClock) -> None:
    """After the last of its lives softclock waits for the close only, and the block can be left."""
    died: list[int] = []
    with pytest.RaisesGroup(*[MemoryError] * LIVES, flatten_subgroups=True):
        async with open_callouts() as system:
            dead = trio.Event()

            def broken(again: bool) -> bool:
                died.append(1)
                if len(died) == LIVES:
                    dead.set()
                raise MemoryError("in the engine")

            system._platform.loops[0].services._fire = broken
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, 1, died.append, 2)
            with trio.CancelScope(shield=True):
                await dead.wait()
            callout_reset(c, 1, died.append, 2)

    assert died == [1] * LIVES
