"""Callouts that are due at the same time on one CPU run in the order in which they were armed; direct ones first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import pytest

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    Callout,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_reset_sbt_on,
    callout_stop,
    sbinuptime,
)
from callout._core import arm as engine
from callout._core.units import SBT_1S
from callout.explore import Violation, explore
from callout.explore._sequential import FOR_EVER
from callout.testing import VirtualSMP
from tests.race.history import undisturbed
from tests.race.mutants import Mutant

PLAIN: Final = "plain"
MUTEX: Final = "mutex"
DIRECT: Final = "direct"


@dataclass
class Armed:
    """One arming, and what became of it."""

    name: str
    kind: str
    begun: int
    ended: int = FOR_EVER
    earliest: int = 0  # when it is due, as far as one can tell from outside
    latest: int = 0
    ran: int = 0
    replaced: bool = False
    before_all: bool = False  # armed before the clock could fire


class Order:
    """Some callouts of one CPU, and the order in which they are armed and run."""

    def __init__(self, vm: VirtualSMP, cpu: int, kinds: dict[str, str]) -> None:
        self.vm = vm
        self.cpu = cpu
        self.kinds = kinds
        self.moment = 0
        self.all: list[Armed] = []
        self.last: dict[str, Armed] = {}
        self.callouts = {name: Callout() for name in kinds}
        with undisturbed(vm):
            self.when = sbinuptime() + SBT_1S
            for name, kind in kinds.items():
                if kind == MUTEX:
                    callout_init_mtx(self.callouts[name], Mtx(name))
                else:
                    callout_init(self.callouts[name], 1)

    def _now(self) -> int:
        self.moment += 1
        return self.moment

    def _begin(self, name: str) -> Armed:
        if name in self.last:
            self.last[name].replaced = True
        armed = self.last[name] = Armed(name, self.kinds[name], self._now())
        self.all.append(armed)
        return armed

    def arm(self, name: str) -> Armed:
        """Arm it for the time that is the same for all."""
        armed = self._begin(name)
        flags = C_ABSOLUTE | (C_DIRECT_EXEC if armed.kind == DIRECT else 0)
        callout_reset_sbt_on(self.callouts[name], self.when, 0, self._run, armed, self.cpu, flags)
        armed.earliest = armed.latest = self.when
        armed.ended = self._now()
        return armed

    def push_out(self, name: str) -> None:
        """Arm it anew by a number of ticks: the short path."""
        armed = self._begin(name)
        armed.earliest = self.vm.platform.time
        callout_reset(self.callouts[name], 1, self._run, armed)
        armed.latest = self.vm.platform.time
        armed.ended = self._now()

    def stop(self, name: str) -> None:
        """Stop it."""
        callout_stop(self.callouts[name])

    def _run(self, armed: Armed) -> None:
        assert self.vm.platform.current_cpu() == self.cpu
        armed.ran = self._now()
        self.vm.platform.point()

    def verify(self) -> None:
        """Look at each pair."""
        self.vm.settle()
        for one, other in combinations(self.all, 2):
            if one.replaced or other.replaced or not (one.ran and other.ran):
                continue
            if DIRECT in (one.kind, other.kind):
                if one.kind != other.kind and one.before_all and other.before_all:
                    direct, plain = (one, other) if one.kind == DIRECT else (other, one)
                    assert direct.ran < plain.ran, f"{direct.name} is direct and ran after {plain.name}"
                if one.kind != other.kind:
                    continue
            if one.ended < other.begun and one.latest <= other.earliest:
                assert one.ran < other.ran, f"{one.name} was armed first, for the same time, and ran after {other.name}"


def armed_by_two(cpu: int, *kinds: str) -> Callable[[VirtualSMP], None]:
    """Return the scenario in which one thread arms some callouts, and another the last."""

    def scenario(vm: VirtualSMP) -> None:
        names = dict(zip("abcd", kinds, strict=False))
        order = Order(vm, cpu, names)
        with undisturbed(vm):
            vm.spawn(order.arm, list(names)[-1], name="other")
        for name in list(names)[:-1]:
            order.arm(name)
        order.verify()

    return scenario


def armed_before(cpu: int, *kinds: str) -> Callable[[VirtualSMP], None]:
    """Return the scenario in which all are armed before the clock can fire, and one is stopped meanwhile."""

    def scenario(vm: VirtualSMP) -> None:
        names = dict(zip("abcd", kinds, strict=False))
        order = Order(vm, cpu, names)
        with undisturbed(vm):
            for name in names:
                order.arm(name).before_all = True
        vm.platform.point()
        order.stop("b")
        order.verify()

    return scenario


def pushed_out(vm: VirtualSMP) -> None:
    """A callout that is armed anew for the time for which it is armed goes behind the others of that time."""
    order = Order(vm, 0, {"a": PLAIN, "b": PLAIN, "c": PLAIN})
    with undisturbed(vm):
        for name in "abc":
            order.push_out(name)
        time = vm.platform.time
        order.push_out("a")
        assert vm.platform.time == time, "the clock fired"
        for armed in order.last.values():
            armed.earliest = armed.latest = time
    vm.platform.point()
    order.stop("b")
    order.verify()


SCENARIOS: Final = {
    "two threads, two plain": armed_by_two(0, PLAIN, PLAIN),
    "two threads, three plain": armed_by_two(0, PLAIN, PLAIN, PLAIN),
    "two threads, one with a mutex": armed_by_two(0, MUTEX, PLAIN),
    "two threads, direct ones": armed_by_two(0, DIRECT, DIRECT),
    "two threads, another CPU": armed_by_two(1, PLAIN, PLAIN),
    "three plain": armed_before(0, PLAIN, PLAIN, PLAIN),
    "direct ones and plain": armed_before(0, PLAIN, PLAIN, DIRECT, DIRECT),
    "with a mutex": armed_before(0, MUTEX, PLAIN, MUTEX),
    "another CPU": armed_before(1, PLAIN, PLAIN, MUTEX),
    "pushed out": pushed_out,
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_callouts_of_one_time_run_in_the_order_of_arming(scenario: Callable[[VirtualSMP], None]) -> None:
    """No schedule with one preemption runs one that was armed later, for the same time, before one armed earlier."""
    certificate = explore(scenario, bound=1)

    assert certificate.exhausted
    assert certificate.schedules >= 6


SAME_ORDER: Final = Mutant(
    "a callout that is armed does not go behind those that are due at the same time",
    engine.prepare,
    "seq = cpu.seq = cpu.seq + 1",
    "cpu.seq += 1; seq = (1 << 32) - cpu.seq",
)


def test_another_order_is_found() -> None:
    """An engine that runs callouts of one time in another order is told from ours."""
    with SAME_ORDER.planted(), pytest.raises(Violation) as caught:
        explore(SCENARIOS["three plain"], bound=1)
    assert "armed first" in str(caught.value.__cause__)
