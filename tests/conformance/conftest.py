"""``s``: the stage of a test, once for each world and for one and two CPUs; ``s2``: only those with two."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from callout.conformance import Scenario
from callout.conformance._worlds.real import RealWorld
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World

from .world import Stage

WORLDS: dict[str, Callable[[Scenario], World]] = {"virtual": VirtualWorld, "trio": RealWorld}


@pytest.fixture(params=WORLDS)
def make_world(request: pytest.FixtureRequest) -> Callable[[Scenario], World]:
    """Each kind of world."""
    return WORLDS[request.param]


def play(make: Callable[[Scenario], World], cpus: int, *, origins: bool = False) -> Iterator[Stage]:
    """Give a stage, and have it left in order."""
    stage = Stage(make, cpus, origins=origins)
    yield stage
    stage.leave()


@pytest.fixture(params=[1, 2], ids=["1cpu", "2cpu"])
def s(request: pytest.FixtureRequest, make_world: Callable[[Scenario], World]) -> Iterator[Stage]:
    """Give the stage, in each world, with one CPU and with two."""
    yield from play(make_world, request.param)


@pytest.fixture
def s2(make_world: Callable[[Scenario], World]) -> Iterator[Stage]:
    """Give the stage, in each world, with two CPUs: for what has no sense with one."""
    yield from play(make_world, 2)
