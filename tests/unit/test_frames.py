"""Whose code is that: the place that is named when something goes wrong later."""

from __future__ import annotations

from functools import partial

import pytest

from callout import Callout, callout_init, callout_reset, callout_reset_on
from callout._core import frames
from callout.testing import VirtualSMP


def test_where_all_frames_are_the_packages_own_the_last_one_is_named() -> None:
    """A stack on which no code of the user's stands, as that of a new context, has a place all the same."""
    greenlet = pytest.importorskip("greenlet")

    assert greenlet.greenlet(partial(frames.caller, 0)).switch().f_code is frames.caller.__code__


@pytest.mark.parametrize("cpu", [0, 1])
def test_checking_mode_knows_where_a_running_callout_was_armed_again(cpu: int) -> None:
    """Also if that is a migration which is deferred until the end of the run."""
    with VirtualSMP(2, free_clock=False) as vm:
        c = Callout()
        origins = vm.machine.origins
        assert origins is not None
        places: list[str | None] = []

        def arms_again(_: object) -> None:
            callout_reset_on(c, 5, print, None, cpu)
            places.append(origins.get(c))

        callout_init(c, 1)
        callout_reset(c, 1, arms_again, None)
        vm.tick()

        assert [place is not None and place.endswith("arms_again()") for place in places] == [True]
