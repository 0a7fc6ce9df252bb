"""The Linux shim in a program of asyncio: its calls run and wait there as they do on trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

import callout.guest
from callout_linux.smp import smp_call_function_single
from callout_linux.timer import (
    MAX_SCHEDULE_TIMEOUT,
    add_timer_on,
    jiffies,
    mod_timer,
    schedule_timeout,
    timer_delete_sync,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_setup,
    timer_shutdown_sync,
)


def added(function: Callable[[timer_list], object], cpu: int) -> timer_list:
    """Return a timer that was added, to run at once on a CPU."""
    timer = timer_list()
    timer_setup(timer, function, 0)
    timer.expires = jiffies()
    add_timer_on(timer, cpu)
    return timer


def test_timers_run_in_the_host_s_loop_and_elsewhere() -> None:
    """On CPU 0 in its thread, on another CPU in that one's; and a task sleeps."""

    async def main() -> None:
        threads: list[int] = []
        ran = asyncio.Event()

        def here(_: timer_list) -> None:
            threads.append(threading.get_ident())
            ran.set()

        async with callout.guest.open_callouts(2):
            timer = added(here, 0)
            await ran.wait()
            assert mod_timer(timer, jiffies() + 1_000_000) == 0
            assert timer_pending(timer)
            assert await asyncio.to_thread(timer_delete_sync_blocking, timer) == 1
            assert await smp_call_function_single(1, lambda _: threads.append(threading.get_ident()), None, True) == 0
            assert await schedule_timeout(1) == 0

        assert threads[0] == threading.get_ident() != threads[1]

    asyncio.run(main())


def test_a_task_waits_for_a_function_that_runs() -> None:
    """Until it has returned; a task that is cancelled meanwhile waits no longer, and another call can."""

    async def main() -> None:
        begun, go = threading.Event(), threading.Event()
        ended: list[str] = []

        def slow(_: timer_list) -> None:
            begun.set()
            assert go.wait(60)
            ended.append("slow")

        async with callout.guest.open_callouts(2):
            timer = added(slow, 1)
            await asyncio.to_thread(begun.wait)
            waits = asyncio.create_task(timer_delete_sync(timer))
            asleep = asyncio.create_task(schedule_timeout(MAX_SCHEDULE_TIMEOUT))
            await asyncio.sleep(0)
            for task in (waits, asleep):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not ended
            go.set()
            assert await timer_shutdown_sync(timer) == 0

            assert ended == ["slow"]
            assert mod_timer(timer, jiffies()) == 0
            assert not timer_pending(timer)

    asyncio.run(main())
