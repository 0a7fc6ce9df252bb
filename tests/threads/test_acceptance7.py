"""The application's task on CPU 0 goes on: beside a lock that is held elsewhere, and beside 100,000 callouts at once.

No time is asserted here, only which tasks had turns while what was still going on;
``callout bench --workloads gap`` measures.
"""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import trio

from callout import (
    C_ABSOLUTE,
    C_DIRECT_EXEC,
    SBT_1MS,
    Callout,
    Mtx,
    RwLock,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_reset,
    callout_reset_sbt,
    giant,
    open_callouts,
    sbinuptime,
)

pytestmark = pytest.mark.slow

TURNS = 10_000
BURST = 100_000


@pytest.mark.trio
@pytest.mark.parametrize("kind", ["mutex", "Giant", "rw"])
@pytest.mark.parametrize("cpus", [1, 2])
async def test_a_task_goes_on_while_a_lock_is_held_elsewhere(kind: str, cpus: int) -> None:
    """While another thread holds the lock of a due callout a task has 10,000 turns; the thread waits for the last."""
    async with open_callouts(cpus) as system:
        c, ran, standing = Callout(), trio.Event(), trio.Event()
        lock: Mtx | RwLock
        if kind == "rw":
            lock = RwLock("rw")
            callout_init_rw(c, lock)
        elif kind == "mutex":
            lock = Mtx("m")
            callout_init_mtx(c, lock)
        else:
            lock = giant()
            callout_init(c, 0)
        go = threading.Event()

        async def stall(_: Callout) -> None:
            standing.set()  # softclock is about to stand at the lock, in this very step of its task

        system._machine.stall = stall

        def holder() -> None:
            with lock:
                callout_reset(c, 1, lambda _: ran.set(), None)
                go.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, holder)
            turns = 0
            await standing.wait()
            while turns < TURNS:
                await trio.lowlevel.checkpoint()
                turns += 1
                assert not ran.is_set()
                assert lock.parked
            go.set()
        await ran.wait()

        assert not lock.parked


@pytest.mark.trio
@pytest.mark.parametrize("kind", ["plain", "mutex", "direct"])
async def test_a_task_goes_on_while_many_expire_at_once(kind: str) -> None:
    """While 100,000 callouts of one moment run, a task has turns between them, and never waits for half of them."""
    async with open_callouts(checking=False):
        ran = 0
        m = Mtx("m")

        def callback(_: object) -> None:
            nonlocal ran
            ran += 1

        callouts = [Callout() for _ in range(BURST)]
        when = sbinuptime() + 1000 * SBT_1MS
        flags = C_ABSOLUTE | (C_DIRECT_EXEC if kind == "direct" else 0)
        for c in callouts:
            if kind == "mutex":
                callout_init_mtx(c, m)
            else:
                callout_init(c, 1)
            callout_reset_sbt(c, when, 0, callback, None, flags)
        steps = [0]
        while ran < BURST:
            await trio.lowlevel.checkpoint()
            if ran > steps[-1]:
                steps.append(ran)

        longest = max(after - before for before, after in pairwise(steps))
        assert len(steps) > 20
        assert longest < BURST // 2
