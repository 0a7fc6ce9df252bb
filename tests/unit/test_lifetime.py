"""What the engine keeps alive, and for how long."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
import trio.testing

from callout import Callout, Mtx, callout_init, callout_init_mtx, callout_reset, open_callouts


@pytest.mark.trio
@pytest.mark.parametrize("locked", [False, True])
async def test_an_idle_softclock_keeps_no_callout_function_or_argument_alive(locked: bool) -> None:
    """What ran last is freed as soon as the application drops it."""

    class Argument:
        def __init__(self) -> None:
            self.ran = trio.Event()

        def run(self, _: object) -> None:
            self.ran.set()

    async with open_callouts():
        c = Callout()
        if locked:
            callout_init_mtx(c, Mtx("m"))
        else:
            callout_init(c, 1)
        argument = Argument()
        ran = argument.ran
        callout_reset(c, 1, argument.run, argument)
        callout_gone, argument_gone = weakref.ref(c), weakref.ref(argument)
        del c, argument
        await ran.wait()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()  # the argument of the test's own frame; the engine makes no cycles

        assert callout_gone() is None
        assert argument_gone() is None
