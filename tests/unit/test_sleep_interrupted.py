"""Ctrl-C at every line of a sleep: the mutex is held again, the queues are empty, and no wake-up is lost."""

from __future__ import annotations

import outcome
import trio

from callout import Mtx, msleep, open_callouts
from callout._api.sleepqueue import queues_of
from tests.unit.test_robustness import Interruption, interrupt, leaves


def test_ctrl_c_at_any_line_of_a_sleep() -> None:
    """Wherever it comes, KeyboardInterrupt leaves the `with` block of the mutex in order, and nobody in a queue."""
    lines = happened = 0

    async def main(interruption: Interruption) -> None:
        held: list[bool] = []
        async with open_callouts() as system:
            mtx = Mtx("m")
            try:
                with mtx:
                    try:
                        with interruption.armed():
                            await msleep(mtx, mtx, 0, "test", 1)
                    finally:
                        held.append(mtx.owned())
            finally:
                assert held == [True], interruption.where
                assert not mtx.owned()
                assert queues_of(system._machine)._queues == {}, interruption.where

    while True:
        interruption = Interruption(lines, interrupt)
        error = outcome.capture(trio.run, main, interruption)
        if isinstance(error, outcome.Error):
            assert {type(leaf) for leaf in leaves(error.error)} == {KeyboardInterrupt}, interruption.where
            happened += 1
        if not interruption.happened:
            break
        lines += 1

    assert happened >= 10
