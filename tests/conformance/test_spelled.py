"""The recordings once more, with every call for which there is one spelled as a method.

A tick is a millisecond there, so seconds say the same. What the methods do not say (a lock at initialisation by flags,
direct execution, another CPU, the drain of FreeBSD 13, active) keeps its C name.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout import Callout, ResetResult, StopResult, callout_active
from callout._core.cpu import WAITING
from callout.conformance import Scenario
from callout.conformance._dialects.freebsd import FreeBSD
from callout.conformance._worlds.real import RealWorld
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World

from .test_recordings import failures

# C's results of what the methods return.
RESET = {ResetResult.ARMED: 0, ResetResult.REARMED: 1}
STOP = {StopResult.IDLE: -1, StopResult.REMOVED: 1, StopResult.RUNNING: 0, StopResult.BOTH: 0}


class Spelled(FreeBSD):
    """callout(9) through the methods of a callout."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        super().__init__(scenario, world)
        self.ops |= {
            "stop": lambda c: STOP[self.callouts[c].stop()],
            "drain": lambda c: 1 if self.callouts[c].drain_sync() else -1,
        }

    def state(self, callout: str) -> list[int]:
        """Return pending and active."""
        c = self.callouts[callout]
        assert (c.remaining() < 1e6) is c.pending
        return [int(c.pending), callout_active(c)]

    def _reset(self, name: str, ticks: int, fn: str, arg: int, cpu: int | None) -> int:
        if cpu is not None:
            return super()._reset(name, ticks, fn, arg, cpu)
        return self._told(name, lambda c: c.reset(max(ticks, 1) / 1000, self._fn(name, fn), arg))

    def _schedule(self, name: str, ticks: int, cpu: int | None) -> int:
        if cpu is not None:
            return super()._schedule(name, ticks, cpu)
        return self._told(name, lambda c: c.reset(max(ticks, 1) / 1000))

    def _told(self, name: str, reset: Callable[[Callout], ResetResult]) -> int:
        """Return what C returns for a reset: of one that is refused, 1 if it has cancelled a run at its lock."""
        c = self.callouts[name]
        waits = c.run is not None and c.run.state == WAITING
        result = reset(c)
        return int(waits) if result is ResetResult.REFUSED else RESET[result]


@pytest.mark.parametrize("world", [VirtualWorld, RealWorld])
def test_the_methods_do_what_the_kernel_did(world: Callable[[Scenario], World]) -> None:
    """Every scenario of FreeBSD passes in both worlds."""
    assert failures("freebsd", lambda scenario: Spelled(scenario, world(scenario))) == []
