"""The package's own implementations as ``Subsystem``, on either platform."""

from __future__ import annotations

from .._core.errors import ArgumentValueError
from ._dialects.freebsd import Dialect, FreeBSD
from ._format import Scenario
from ._replay import Subsystem
from ._worlds.world import World

PLATFORMS = ("virtual", "trio")


def builtin(scenario: Scenario, platform: str = "virtual", seed: int | None = None) -> Subsystem:
    """Return callout(9), or for a scenario of Linux the shim, with what *scenario* asks for.

    *platform*: "virtual", which needs the extra ``callout[explore]``, or "trio": real loops and real threads under a
    hand-driven clock. *seed*: on virtual CPUs, have runnable actors go in a random order, the same for the same seed.
    Never blocks on "virtual"; on "trio" until the loops have come up.

    Raises:
        ArgumentValueError: there is no such platform, or a seed was given for "trio".
    """
    dialect = _dialect(scenario)
    world: World
    if platform == "trio" and seed is None:
        from ._worlds.real import RealWorld

        world = RealWorld(scenario)
    elif platform == "virtual":
        from ._worlds.virtual import VirtualWorld

        world = VirtualWorld(scenario, seed)
    else:
        raise ArgumentValueError(
            f"builtin: no platform {platform!r}{'' if seed is None else ' that takes a seed'}; "
            "there are 'virtual', which takes one, and 'trio'"
        )
    return dialect(scenario, world)


def _dialect(scenario: Scenario) -> type[Dialect]:
    if scenario.api == "linux":
        from ._dialects.linux import Linux

        return Linux
    return FreeBSD
