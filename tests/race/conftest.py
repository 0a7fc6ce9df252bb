"""Every scenario is explored twice, with the short paths, which most applications take, and the long way; and every
write to the engine's records is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callout.explore import explore
from tests.race.lockset import lockset

BOTH = ("short", "long")


# The search itself; calls that arm nothing; a shim on the engine; timers of tasks; and the matrix, which says itself
# which way it goes.
ONE_WAY = ("test_explore", "test_linux_races", "test_linux_smp", "test_linux_timers", "test_matrix", "test_starting")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test both ways, but for those of these modules, and those that say themselves which way."""
    says = any(mark.args[0] == "paths" for mark in metafunc.definition.iter_markers("parametrize"))
    if not says and not metafunc.module.__name__.endswith(ONE_WAY):
        if "paths" not in metafunc.fixturenames:
            metafunc.fixturenames.append("paths")
        metafunc.parametrize("paths", BOTH, indirect=True)


@pytest.fixture(autouse=True)
def _lockset() -> Iterator[None]:
    """Have no field written without its lock."""
    with lockset():
        yield


@pytest.fixture
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have ``explore()`` go one way by default; give which."""
    way = str(request.param)
    defaults = explore.__kwdefaults__
    assert defaults is not None
    assert "short_paths" in defaults
    monkeypatch.setitem(defaults, "short_paths", way == "short")
    return way
