"""Callouts under Giant: how they are stopped, and on which CPU they wait.

The second of Hans Petter Selasky's three rules: a callback under Giant runs on CPU 0 only.

Invariants: after a stop that is certain the callback does not run; a callout that needs no lock is held up by none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .. import Callout, callout_drain_sync, callout_init, callout_reset, callout_reset_on, callout_stop, curcpu, giant
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario, on_engine


def stop(c: Callout) -> None:
    """Stop it, without Giant."""
    callout_stop(c)


def stop_with_giant(c: Callout) -> None:
    """Stop it with Giant held."""
    with giant():
        callout_stop(c)


def stop_or_drain(c: Callout) -> None:
    """Stop it without Giant, and drain it if it runs."""
    if callout_stop(c) == 0:
        callout_drain_sync(c)


def giant_callout_stopped(how: Callable[[Callout], None]) -> Scenario:
    """Return the scenario in which a Giant callout is stopped, and then is expected to be silent."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        stopped = False

        def callback(_: None) -> None:
            assert not stopped, "the callback runs after the stop"

        with vm.setup():
            callout_init(c, 0)
            callout_reset(c, 1, callback, None)

        def stopper() -> None:
            nonlocal stopped
            how(c)
            stopped = True

        vm.spawn(stopper)

    return scenario


def giant_on(cpus: tuple[int, int]) -> Scenario:
    """Return the model of two Giant callouts on these CPUs, and one without a lock behind that of CPU 1.

    Another thread holds Giant until the last one has run.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            mtx = vm.lock("Giant")
            ran = vm.cell(False, "the callout without a lock has run")
            under_giant = vm.cell(0, "how many callouts under Giant have run")

        def holder() -> None:
            with mtx:
                vm.wait_until(lambda: ran.value, "the callout without a lock to run")

        def softclock(cpu: int) -> None:
            for _ in range(cpus.count(cpu)):
                with mtx:
                    under_giant.value += 1
            if cpu == 1:
                ran.value = True

        vm.spawn(holder)
        vm.spawn(softclock, 0, name="softclock of CPU 0")
        vm.spawn(softclock, 1, name="softclock of CPU 1")
        vm.settle()
        if ran.value:  # else they wait for ever
            assert under_giant.value == 2, "a callout under Giant has not run"

    return scenario


def giant_on_the_engine(vm: VirtualSMP) -> None:
    """Arm a Giant callout and one without a lock for CPU 1, and wait for the latter with Giant held."""
    ran: list[int] = []
    ran_under_giant: list[int] = []
    under_giant, free = Callout(), Callout()

    def callback(_: None) -> None:
        ran_under_giant.append(curcpu())

    with giant():
        with vm.setup():
            callout_init(under_giant, 0)
            callout_reset_on(under_giant, 1, callback, None, 1)
            callout_init(free, 1)
            callout_reset_on(free, 1, ran.append, 1, 1)
        vm.wait_until(lambda: ran, "the callout without a lock to run")
    vm.settle()
    assert ran_under_giant == [0], "the callout under Giant has not run on CPU 0"


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.11",
        title="Giant: a stop without it, and a softclock that waits for it",
        story=(
            "A callout that was initialised as not MP-safe runs under Giant. The kernel lets a thread stop it without "
            "Giant. But then the stop cannot cancel a callback that already waits for Giant: it returns 0 and the "
            "callback runs, after the stop. With Giant held the stop cancels it and returns 1. The second rule is "
            "about the waiting itself. A softclock that waits for Giant runs nothing else. If Giant callouts run on "
            "every CPU, one thread that holds Giant for long holds up all of them. On CPU 0 only, the others go on."
        ),
        sources=(MAIL, "kern_timeout.c, _callout_stop_safe(), use_lock"),
        variants=(
            on_engine(
                "stop-without-giant",
                "stop without Giant, and the result is not looked at",
                giant_callout_stopped(stop),
                breaks="the callback runs after the stop",
                preemptions=1,
            ),
            on_engine("stop-with-giant", "stop with Giant held", giant_callout_stopped(stop_with_giant)),
            on_engine(
                "stop-or-drain", "stop without Giant, and drain if it says 0", giant_callout_stopped(stop_or_drain)
            ),
            Variant(
                "giant-on-two-cpus",
                "Giant callouts run on the CPU that they were armed for",
                giant_on((0, 1)),
                breaks="holder waits for the callout without a lock to run",
            ),
            Variant("giant-on-cpu-0", "Giant callouts run on CPU 0", giant_on((0, 0))),
            on_engine("giant-on-this-engine", "the same on the engine", giant_on_the_engine, cpus=2),
        ),
    ),
)
