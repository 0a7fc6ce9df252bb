"""What the log is told of that is likely a mistake, and does no harm yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
import structlog.testing
import trio
import trio.testing
from structlog.typing import EventDict

from callout import Callout, callout_init_mtx, callout_reset, open_callouts


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    """Give what the log is told."""
    structlog.configure()
    with structlog.testing.capture_logs() as events:
        yield events
    structlog.reset_defaults()


def ignore(*args: object) -> None:
    """Be a callback that does nothing."""


def of(log: list[EventDict], event: str) -> list[EventDict]:
    """Return the warnings of that name."""
    return [each for each in log if each["event"] == event]


@pytest.mark.trio
async def test_a_reset_without_the_lock_is_told_once_for_each_place(
    autojump_clock: trio.testing.MockClock, log: list[EventDict]
) -> None:
    """In checking mode arming it anew without its lock is named, with the place; making it is not."""
    async with open_callouts(checking=True) as system:
        lock = system.mutex("conn")
        c = system.call_later(10, ignore, lock=lock, name="idle")
        with lock:
            c.reset(20)
        await trio.testing.wait_all_tasks_blocked()

        assert of(log, "callout.reset_without_lock") == []

        for _ in range(3):
            c.reset(30)
        await trio.testing.wait_all_tasks_blocked()
        (told,) = of(log, "callout.reset_without_lock")

        assert (told["name"], told["function"], told["lock"], told["log_level"]) == (
            "idle",
            "ignore",
            "conn",
            "warning",
        )
        assert "test_a_reset_without_the_lock_is_told_once" in told["armed"]
        callout_reset(c, 40, ignore, None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(of(log, "callout.reset_without_lock")) == 2


@pytest.mark.trio
async def test_a_callback_that_arms_its_own_callout_holds_the_lock(
    autojump_clock: trio.testing.MockClock, log: list[EventDict]
) -> None:
    """Neither a periodic callout nor one that arms itself in its callback is told of."""
    async with open_callouts(checking=True) as system:
        lock = system.mutex("conn")
        again = Callout()
        callout_init_mtx(again, lock)

        def run(arg: object) -> None:
            callout_reset(again, 500, run, arg)

        callout_reset(again, 500, run, None)
        system.every(1, ignore, lock=lock)
        await trio.sleep(5)

    assert of(log, "callout.reset_without_lock") == []


@pytest.mark.trio
async def test_without_checking_mode_nobody_looks(autojump_clock: trio.testing.MockClock, log: list[EventDict]) -> None:
    """A production system pays nothing for it, and tells nothing."""
    async with open_callouts(checking=False) as system:
        c = system.call_later(10, ignore, lock=system.mutex())
        c.reset(20)
        c.reset(30)

    assert of(log, "callout.reset_without_lock") == []


@pytest.mark.trio
async def test_what_is_pending_at_the_end_is_named(
    autojump_clock: trio.testing.MockClock, log: list[EventDict]
) -> None:
    """By the name that its maker gave it, its function, and in checking mode where it was armed."""
    async with open_callouts(checking=True) as system:
        system.call_later(10, ignore, name="idle")
    (told,) = of(log, "callout.pending_at_exit")

    assert told["count"] == 1
    assert told["callouts"][0].startswith("'idle' ignore armed at ")
