"""Direct callbacks: what runs in the clock interrupt, on top of other code of its CPU.

The first of Hans Petter Selasky's three rules: a direct callback needs a spin lock, or none.

Invariants: everything ends; a completion that was promised is called once.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

from .. import C_DIRECT_EXEC, SBT_1MS, Callout, callout_drain, callout_drain_sync, callout_init, callout_reset_sbt
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario, on_engine


def interrupted_holder(*, spin: bool) -> Scenario:
    """Return the model of a thread that holds the lock of a direct callout, which fires on the CPU of that thread.

    *spin*: it is a spin lock, and so interrupts are off while it is held.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            lock = vm.lock("the direct callout's lock")

        def thread() -> None:
            with vm.irqs_off() if spin else nullcontext(), lock:
                vm.point()

        def hardclock() -> None:
            with lock:
                pass  # the direct callback

        vm.interrupt(hardclock, of=vm.spawn(thread))

    return scenario


def waits_for_direct(*, interrupts: bool) -> Scenario:
    """Return the model of a thread that waits for a direct callback of its own CPU, with interrupts on or off."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            ran = vm.cell(False, "the direct callback has run")

        def thread() -> None:
            with nullcontext() if interrupts else vm.irqs_off():
                vm.wait_until(lambda: ran.value, "the direct callback")

        def hardclock() -> None:
            ran.value = True

        vm.interrupt(hardclock, of=vm.spawn(thread))

    return scenario


def drains_from_direct(*, waits: bool) -> Scenario:
    """Return the model of a direct callback that drains a callout of the softclock that it has interrupted.

    *waits*: it waits for that. Else softclock calls a completion when its callback has returned.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            current = vm.cell(True, "softclock's current callout")
            returned = vm.cell(False, "its callback has returned")
            wanted = vm.cell(False, "completion wanted")
            completed = vm.cell(0, "completions")

        def complete() -> None:
            assert returned.value, "the drain is completed while the callback runs"
            completed.update(lambda count: count + 1)

        def softclock() -> None:
            returned.value = True  # the end of its callback
            with vm.irqs_off():
                current.value = False
                promised = wanted.value
            if promised:
                complete()

        def hardclock() -> None:
            if not current.value:
                complete()
            elif waits:
                vm.wait_until(lambda: not current.value, "softclock's callback to return")
                complete()
            else:
                wanted.value = True

        vm.interrupt(hardclock, of=vm.spawn(softclock))
        vm.wait_until(lambda: completed.value, "the drain to complete")
        vm.settle()
        assert completed.value == 1, f"the drain has completed {completed.value} times"

    return scenario


def on_its_own_loop(*, blocks: bool) -> Scenario:
    """Return the scenario of a task that waits for a direct callout of its own CPU: blocking the loop, or draining."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        ran = drained = False

        def callback(_: None) -> None:
            nonlocal ran
            assert not drained, "the callback runs after the drain"
            ran = True

        async def task() -> None:
            nonlocal drained
            callout_reset_sbt(c, SBT_1MS, 0, callback, None, C_DIRECT_EXEC)
            if blocks:
                vm.wait_until(lambda: ran, "the direct callback")
            await callout_drain(c)
            drained = True

        with vm.setup():
            callout_init(c, 1)
            vm.spawn(task, cpu=0)
            vm.spawn(callout_drain_sync, c, name="thread")

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.13",
        title="direct callbacks: in the interrupt there is nobody to wait for",
        story=(
            "A direct callback runs in the clock interrupt, on top of whatever the CPU was doing. What it has "
            "interrupted cannot go on before it returns. If that code holds the lock which the callback needs, both "
            "wait for ever. So the first rule: the lock of a direct callback is a spin lock, with which interrupts are "
            "off. For the same reason a direct callback must not wait for the callback that it has interrupted. And "
            "code that keeps interrupts out, or here the loop of its CPU, must not wait for a direct callback of that "
            "CPU: it never comes."
        ),
        sources=(MAIL, "kern_timeout.c, callout_process()"),
        variants=(
            Variant(
                "plain-lock",
                "the callback's lock leaves interrupts on",
                interrupted_holder(spin=False),
                breaks="hardclock waits for the lock",
                preemptions=1,
            ),
            Variant("spin-lock", "interrupts are off while its lock is held", interrupted_holder(spin=True)),
            Variant(
                "waits-with-interrupts-off",
                "a thread waits for a direct callback of its CPU, with interrupts off",
                waits_for_direct(interrupts=False),
                breaks="thread waits for the direct callback",
            ),
            Variant("waits-with-interrupts-on", "the same with interrupts on", waits_for_direct(interrupts=True)),
            Variant(
                "drains-what-it-interrupted",
                "a direct callback drains a callout whose callback it has interrupted",
                drains_from_direct(waits=True),
                breaks="hardclock waits for softclock's callback to return",
            ),
            Variant(
                "drains-async",
                "it asks for a completion instead, and waits for nothing",
                drains_from_direct(waits=False),
            ),
            on_engine(
                "blocks-its-loop",
                "a task of a CPU blocks the loop until a direct callback of that CPU has run",
                on_its_own_loop(blocks=True),
                breaks="waits for the direct callback",
            ),
            on_engine(
                "awaits-the-drain", "the task awaits a drain, and the loop goes on", on_its_own_loop(blocks=False)
            ),
        ),
    ),
)
