"""The recordings once more: every call the long way, and without checking mode.

The replays of test_recordings.py are in checking mode and take the short paths wherever those fit.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout._core.machine import Machine
from callout.conformance import Scenario, Subsystem, load, shipped
from callout.conformance._builtin import _dialect
from callout.conformance._worlds.virtual import VirtualWorld

from .test_recordings import failures


def the_long_way(machine: Machine) -> None:
    """Have no call take a short path."""
    machine.careful = True


def unchecked(machine: Machine) -> None:
    """Have no arming noted."""
    machine.origins = None


@pytest.mark.parametrize("api", ["freebsd", "linux"])
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("way", [the_long_way, unchecked])
def test_every_scenario_passes(way: Callable[[Machine], None], seed: int | None, api: str) -> None:
    """In this way, too, and in another order, everything is as the kernel did it."""

    def make(scenario: Scenario) -> Subsystem:
        world = VirtualWorld(scenario, seed)
        way(world.machine)
        return _dialect(scenario)(scenario, world)

    assert failures(api, make) == []


def test_the_recordings_take_the_short_paths() -> None:
    """A replay is in checking mode, and its callouts are those that a short path takes."""
    world = VirtualWorld(next(iter(load(shipped("freebsd")[0]))))

    assert world.machine.origins is not None
    assert not world.machine.careful
    world.close()
