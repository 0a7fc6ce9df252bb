"""A slow function that frees its own timer: the report of an expensive callback must not look at the freed timer."""

from __future__ import annotations

import pytest
import trio

from callout import open_callouts
from callout.testing import Slab
from callout_linux.timer import DEFINE_TIMER, jiffies, mod_timer, timer_list, timer_setup


@pytest.mark.trio
async def test_a_slow_function_that_freed_its_timer_is_reported_and_softclock_goes_on() -> None:
    """The report of an expensive callback uses what was kept of the run: the next timer of that CPU runs."""
    slab: Slab[timer_list] = Slab("timers")
    ran = trio.Event()
    errors: list[BaseException] = []

    def slow(timer: timer_list) -> None:  # by the option below anything is
        slab.free(timer)

    with trio.fail_after(10):
        async with open_callouts(cpus=1, expensive=1e-9, on_error=lambda error, _: errors.append(error)):
            timer = slab.alloc(timer_list)
            timer_setup(timer, slow, 0)
            mod_timer(timer, jiffies + 0)
            del timer
            mod_timer(DEFINE_TIMER(lambda _: ran.set()), jiffies + 5)
            await ran.wait()

    assert errors == []
    assert not slab.reports
