"""``async with draining(c, …)``: the form of drain that cannot be got wrong."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from callout import (
    Callout,
    LockHeldError,
    Mtx,
    callout_active,
    callout_drain,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    draining,
    open_callouts,
)

from .loops import Halt, Tell

HOUR = 3_600_000  # ticks


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


@pytest.mark.trio
@pytest.mark.parametrize("way", ["end", "exception", "cancel"])
@pytest.mark.parametrize("cpus", [1, 2])
async def test_what_is_pending_is_removed(way: str, cpus: int) -> None:
    """When the block is left, in whatever way, none of its callouts is pending any more."""
    async with open_callouts(cpus):
        callouts = [fresh() for _ in range(4)]

        async def body() -> None:
            async with draining(*callouts):
                for number, c in enumerate(callouts):
                    callout_reset_on(c, HOUR, ignore, None, number % cpus)
                if way == "exception":
                    raise KeyError("mine")
                if way == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()

        with trio.CancelScope() as scope:
            if way == "exception":
                with pytest.raises(KeyError, match="mine"):
                    await body()
            else:
                await body()

        assert scope.cancelled_caught == (way == "cancel")
        assert [(callout_pending(c), callout_active(c)) for c in callouts] == [(0, 0)] * 4


@pytest.mark.trio
async def test_the_wait_cannot_be_cancelled() -> None:
    """A cancelled task does not leave the block before the callback that runs has returned."""
    async with open_callouts(2):
        c, halt = fresh(), Halt()
        left: list[bool] = []

        async def owner(scope: trio.CancelScope) -> None:
            with scope:
                async with draining(c):
                    callout_reset_on(c, 1, halt, None, 1)
                    await trio.sleep_forever()
            left.append(halt.returned)

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(owner, scope)
            await halt.there.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()

            assert left == []

            halt.let_go()

    assert left == [True]


@pytest.mark.trio
async def test_a_callback_that_re_arms_itself_is_stopped() -> None:
    """A periodic callout is at rest after the block, though its callback armed it again each time."""
    async with open_callouts(1):
        c, tell = fresh(), Tell()

        def again(arg: object) -> None:
            callout_reset(c, 1, again, arg)
            tell(arg)

        async with draining(c):
            callout_reset(c, 1, again, None)
            await tell.ran.wait()
        beats = len(tell.args)
        after = Tell()
        callout_reset(fresh(), 3, after, None)
        await after.ran.wait()

        assert len(tell.args) == beats
        assert await callout_drain(c) == -1


@pytest.mark.trio
async def test_callouts_that_were_never_initialised_are_passed_over() -> None:
    """The block may be entered before its callouts are initialised, and left if some never were."""
    async with open_callouts():
        c, d = Callout(), Callout()
        async with draining(c, d):
            callout_init(c, 1)
            callout_reset(c, HOUR, ignore, None)

        assert not callout_pending(c)


@pytest.mark.trio
async def test_leaving_the_block_with_a_lock_is_an_error() -> None:
    """A task that leaves the block with a callout's lock held is told so, as by callout_drain()."""
    async with open_callouts(checking=False):
        mtx, c = Mtx(), Callout()
        callout_init_mtx(c, mtx)

        async def body() -> None:
            async with draining(c):
                mtx.lock()

        with pytest.raises(LockHeldError, match="mtx"):
            await body()
        mtx.unlock()


@pytest.mark.trio
async def test_what_keeps_one_from_being_drained_keeps_no_other() -> None:
    """If one callout cannot be drained the others are, and the errors of all are raised then."""
    async with open_callouts(checking=False):
        locks = [Mtx("first"), Mtx("second")]
        callouts = [Callout() for _ in range(3)]
        callout_init_mtx(callouts[0], locks[0])
        callout_init_mtx(callouts[1], locks[1])
        callout_init(callouts[2], 1)

        async def body() -> None:
            async with draining(*callouts):
                callout_reset(callouts[2], HOUR, ignore, None)
                for lock in locks:
                    lock.lock()

        with pytest.raises(ExceptionGroup) as caught:
            await body()

        assert [type(error) for error in caught.value.exceptions] == [LockHeldError] * 2
        assert not callout_pending(callouts[2])
        for lock in locks:
            lock.unlock()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_does_not_leave_the_block(times: int) -> None:
    """Ctrl-C while the block waits for a callback arrives when that has returned and all its callouts are drained."""
    seen: list[tuple[bool, int]] = []

    async def main() -> None:
        async with open_callouts(2):
            c, d, halt = fresh(), fresh(), Halt()
            callout_reset(d, HOUR, ignore, None)

            async def strike() -> None:
                for _ in range(times):
                    await trio.testing.wait_all_tasks_blocked()
                    signal.raise_signal(signal.SIGINT)  # a system task is protected, so it arrives in the main task
                await trio.testing.wait_all_tasks_blocked()
                halt.let_go()

            try:
                async with draining(c, d):
                    callout_reset_on(c, 1, halt, None, 1)
                    await halt.there.wait()
                    trio.lowlevel.spawn_system_task(strike)
            finally:
                seen.append((halt.returned, callout_pending(d)))

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - one of two, see below
        trio.run(main)

    error = caught.value
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    assert {type(each) for each in errors} == {KeyboardInterrupt}
    assert seen == [(True, 0)]


@pytest.mark.trio
async def test_a_system_that_closes_first() -> None:
    """A block that outlives the system of its callouts is left without a word: nothing of theirs can run."""
    left: list[int] = []

    async def outlives(go: trio.Event) -> None:
        async with draining(fresh()):
            await go.wait()
        left.append(1)

    async with trio.open_nursery() as nursery:
        go = trio.Event()
        async with open_callouts():
            nursery.start_soon(outlives, go)
            await trio.testing.wait_all_tasks_blocked()
        go.set()

    assert left == [1]
