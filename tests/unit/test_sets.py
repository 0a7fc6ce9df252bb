"""Several callouts at once: waiting for all, and one completion for all."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    ClosedError,
    LockHeldError,
    LockNotHeldError,
    NotAwaitedError,
    NotInitializedError,
    ResetResult,
    aclose_all,
    callout_drain_all,
    callout_drain_all_async,
    close_all_soon,
    drain_all,
    open_callouts,
)
from callout.testing import VirtualSMP


def ignore(*args: object) -> None:
    """Do nothing."""


@pytest.mark.trio
async def test_all_are_stopped_before_the_first_wait() -> None:
    """drain_all() waits for one that runs; the others are stopped by then, and may be armed again afterwards."""
    entered, go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow() -> None:
        token.run_sync_soon(entered.set)
        go.wait()

    async with open_callouts(cpus=2) as system:
        c = system.call_later(0, slow, cpu=1)
        others = [system.call_later(100, ignore, cpu=n % 2) for n in range(4)]
        await entered.wait()
        removed: list[int] = []

        async def drain() -> None:
            removed.append(await drain_all([c, *others, c]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()

            assert [each.pending for each in others] == [False] * 4
            assert c.reset(1) is ResetResult.REFUSED

            go.set()

        assert removed == [4]
        assert [each.reset(100) for each in (c, *others)] == [ResetResult.ARMED] * 5
        assert await callout_drain_all([c, *others]) == 5


@pytest.mark.trio
async def test_drain_all_is_a_checkpoint_and_aclose_all_is_none() -> None:
    """As with one callout."""
    async with open_callouts() as system:
        some = [system.call_later(100, ignore) for _ in range(3)]
        with trio.testing.assert_checkpoints():
            assert await drain_all(some) == 3
        with trio.testing.assert_checkpoints():
            assert await drain_all(iter(some)) == 0
        with trio.testing.assert_no_checkpoints():
            await aclose_all(some)

        assert all(c.closed for c in some)
        assert await drain_all([]) == 0
        await aclose_all([])


@pytest.mark.trio
async def test_one_completion_for_all() -> None:
    """close_all_soon() is True if any was open; then its function is called once, when none runs."""
    async with open_callouts(cpus=2) as system:
        lock = system.mutex("m")
        entered, freed = trio.Event(), trio.Event()
        go = threading.Event()
        token = trio.lowlevel.current_trio_token()
        calls: list[object] = []

        def slow() -> None:
            token.run_sync_soon(entered.set)
            go.wait()

        def free(what: str) -> None:
            calls.append((what, lock.owned(), go.is_set()))
            token.run_sync_soon(freed.set)

        one = system.call_later(0, slow, cpu=1)
        others = [system.call_later(100, ignore, lock=lock, cpu=n % 2) for n in range(3)]
        await entered.wait()
        with lock:
            assert close_all_soon([one, *others], free, "all") is True
            assert close_all_soon([one, *others], free, "again") is False
            assert close_all_soon([], free, "none") is False
        assert [c.closed for c in (one, *others)] == [True] * 4
        assert calls == []
        go.set()
        await freed.wait()

        assert calls == [("all", False, True)]


def test_a_set_is_closed_by_one_of_its_callbacks() -> None:
    """The completion comes when that has returned, though the others are idle."""
    with VirtualSMP(cpus=2) as vm:
        lock = vm.mutex("m", recursive=True)
        log: list[str] = []

        def called() -> None:
            assert close_all_soon([a, b, c], log.append, "freed")
            log.append("returns")

        a, b = (vm.callout(called, lock=lock, cpu=n) for n in range(2))
        c = vm.callout(called)
        a.reset(0.001)
        vm.settle()

        assert log == ["returns", "freed"]


def test_a_completion_is_called_with_no_lock_held() -> None:
    """Of callouts of which none runs, too: neither a CPU's nor that of the callouts."""
    with VirtualSMP() as vm:
        lock = vm.mutex("m")
        a, b = (vm.callout(ignore, lock=lock) for _ in range(2))
        held: list[bool] = []

        def look() -> None:
            held.append(lock.owned() or any(cpu.lock._is_owned() for cpu in vm.machine.cpus))

        with lock:
            assert a.close_soon(look)
            assert close_all_soon([a, b], look)
        vm.settle()

        assert held == [False, False]


def test_c_has_one_completion_for_all_too() -> None:
    """callout_drain_all_async() is 1 if something runs, and then calls; 0 if nothing does, and never calls."""
    with VirtualSMP() as vm:
        log: list[object] = []

        def called() -> None:
            log.append(callout_drain_all_async([a, b], log.append, "drained"))

        a, b = vm.callout(called), vm.call_later(100, ignore)
        assert callout_drain_all_async([a, b], log.append, "never") == 0
        assert not b.pending
        a.reset(0.001)
        vm.settle()

        assert log == [1, "drained"]
        assert a.reset(1) is ResetResult.ARMED
        assert a.stop()


@pytest.mark.trio
async def test_what_the_completion_of_a_set_raises_is_of_no_callout() -> None:
    """on_error gets None for it."""
    told: list[tuple[str, object]] = []
    async with open_callouts(on_error=lambda error, c: told.append((str(error), c))) as system:

        def bad(what: str) -> None:
            raise ValueError(what)

        close_all_soon([system.callout(), system.callout()], bad, "closed")
    assert told == [("closed", None)]


@pytest.mark.trio
async def test_mistakes_change_nothing() -> None:
    """Every wrong argument, a lock that is or is not held, callouts of two systems: one error each, nothing stopped."""
    async with open_callouts() as system, open_callouts() as other:
        lock = system.mutex("m")
        c, d = system.call_later(100, ignore, lock=lock), system.call_later(100, ignore)
        foreign = other.call_later(100, ignore)

        async def nothing() -> None:
            """Be asynchronous."""

        bad: list[Any] = [5, None, nothing]
        with pytest.raises(LockNotHeldError, match=r"^close_all_soon: acquire"):
            close_all_soon([d, c], ignore)
        with lock, pytest.raises(LockHeldError, match=r"^drain_all: release"):
            drain_all([d, c])  # type: ignore[unused-coroutine]  # that is the mistake
        with pytest.raises(ArgumentValueError, match=r"^close_all_soon: these callouts are of more than one system"):
            close_all_soon([d, foreign], ignore)
        for fn in bad:
            with pytest.raises(ArgumentTypeError, match=r"^close_all_soon: "):
                close_all_soon([d], fn)
            with pytest.raises(ArgumentTypeError, match=r"^callout_drain_all_async: "):
                callout_drain_all_async([d], fn, 1)
        for these in ([d, 5], 5, None, [None]):
            for call in (drain_all, aclose_all, callout_drain_all):
                with pytest.raises(ArgumentTypeError, match=rf"^{call.__name__}: "):
                    call(these)  # type: ignore[arg-type]  # that is the mistake
            with pytest.raises(ArgumentTypeError, match=r"^close_all_soon: "):
                close_all_soon(these, ignore)  # type: ignore[arg-type,call-arg]  # that is the mistake
        for call in (drain_all, aclose_all):
            with pytest.raises(NotInitializedError):
                call([d, Callout()])
        with pytest.raises(NotAwaitedError, match="drain_all: `await` is missing"):
            bool(waiting := drain_all([d]))
        waiting.close()

        assert [each.pending for each in (c, d, foreign)] == [True] * 3
    with pytest.raises(ClosedError, match=r"^close_all_soon: "):
        close_all_soon([d, c], ignore)
    with pytest.raises(ClosedError, match=r"^drain_all: "):
        drain_all([d])  # type: ignore[unused-coroutine]  # that is the mistake
