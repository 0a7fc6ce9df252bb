"""The recorded runs of the real kernels, on both platforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from callout.conformance import Scenario, Subsystem, builtin, load, replay, shipped

ORDERS = 2  # the command replays them in ten; nox runs that


def scenarios(api: str) -> Iterator[Scenario]:
    """Yield every shipped scenario."""
    for path in shipped(api):
        yield from load(path)


def failures(api: str, make: Callable[[Scenario], Subsystem]) -> list[str]:
    """Replay everything, and return what differed."""
    out = []
    for scenario in scenarios(api):
        subsystem = make(scenario)
        try:
            mismatch = replay(scenario, subsystem)
        finally:
            subsystem.close()
        if mismatch is not None:
            out.append(str(mismatch))
    return out


def test_the_freebsd_recordings_are_complete() -> None:
    """All 1270 scenarios of FreeBSD 13 and 15 are in the package."""
    ids = [scenario.id for scenario in scenarios("freebsd")]

    assert len(ids) == len(set(ids)) == 93 + 982 + 36 + 159


def test_the_linux_recordings_are_complete() -> None:
    """All 657 scenarios of Linux 6.12 are in the package."""
    ids = [scenario.id for scenario in scenarios("linux")]

    assert len(ids) == len(set(ids)) == 45 + 612


@pytest.mark.parametrize("api", ["freebsd", "linux"])
@pytest.mark.parametrize("seed", [None, *range(1, ORDERS + 1)])
def test_every_scenario_passes_on_virtual_cpus(seed: int | None, api: str) -> None:
    """Each dialect does what the kernel did, in whatever order runnable actors go."""
    assert failures(api, partial(builtin, seed=seed)) == []


@pytest.mark.parametrize("api", ["freebsd", "linux"])
def test_every_scenario_passes_on_real_loops_and_threads(api: str) -> None:
    """Each dialect does on trio what the kernel did."""
    assert failures(api, partial(builtin, platform="trio")) == []
