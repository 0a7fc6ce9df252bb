"""The recordings once more, on the short paths: those that arm and stop without a look at who armed, and where.

Checking mode notes the place of each arming and so takes the long paths only; an application takes the short ones.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callout.conformance import Scenario, load, replay, shipped
from callout.conformance._dialects.freebsd import Dialect, FreeBSD
from callout.conformance._dialects.linux import Linux
from callout.conformance._worlds.real import RealWorld
from callout.conformance._worlds.virtual import VirtualWorld
from callout.conformance._worlds.world import World

DIALECTS: dict[str, Callable[[Scenario, World], Dialect]] = {"freebsd": FreeBSD, "linux": Linux}
WORLDS: dict[str, Callable[[Scenario], World]] = {
    "virtual": VirtualWorld,
    "another order": lambda scenario: VirtualWorld(scenario, 1),
    "trio": RealWorld,
}


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS.keys())
def test_every_scenario_passes(api: str, make: Callable[[Scenario], World]) -> None:
    """Without checking mode's notes, too, everything is as the kernel did it."""
    failures = []
    for path in shipped(api):
        for scenario in load(path):
            world = make(scenario)
            world.machine.origins = None
            subsystem = DIALECTS[api](scenario, world)
            try:
                mismatch = replay(scenario, subsystem)
            finally:
                subsystem.close()
            if mismatch is not None:
                failures.append(str(mismatch))

    assert failures == []
