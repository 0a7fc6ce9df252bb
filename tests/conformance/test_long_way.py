"""The recordings once more: every call the long way, and without checking mode.

The replays of test_recordings.py are in checking mode and take the short paths wherever those fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from callout._core.machine import Machine
from callout.conformance import Scenario, load, replay, shipped
from callout.conformance._dialects.freebsd import Dialect, FreeBSD
from callout.conformance._dialects.linux import Linux
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World

DIALECTS: Final[dict[str, Callable[[Scenario, World], Dialect]]] = {"freebsd": FreeBSD, "linux": Linux}


def the_long_way(machine: Machine) -> None:
    """Have no call take a short path."""
    machine.careful = True


def unchecked(machine: Machine) -> None:
    """Have no arming noted."""
    machine.origins = None


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("way", [the_long_way, unchecked])
def test_every_scenario_passes(way: Callable[[Machine], None], seed: int | None, api: str) -> None:
    """In this way, too, and in another order, everything is as the kernel did it."""
    failures = []
    for path in shipped(api):
        for scenario in load(path):
            world = VirtualWorld(scenario, seed)
            way(world.machine)
            subsystem = DIALECTS[api](scenario, world)
            try:
                mismatch = replay(scenario, subsystem)
            finally:
                subsystem.close()
            if mismatch is not None:
                failures.append(str(mismatch))

    assert failures == []


def test_the_recordings_take_the_short_paths() -> None:
    """A replay is in checking mode, and its callouts are those that a short path takes."""
    world = VirtualWorld(next(iter(load(shipped("freebsd")[0]))))

    assert world.machine.origins is not None
    assert not world.machine.careful
    world.close()
