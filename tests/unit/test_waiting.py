"""Waiting for the end of a run, where that is neither plain nor common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from callout import (
    Callout,
    Mtx,
    SelfDrainError,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_terminate,
    callout_terminated,
)
from callout._core.drain import _reacquire, run_blocking
from callout._core.platform import Waiter
from callout.testing import VirtualSMP


def ignore(_: object) -> None:
    """Be a callback."""


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """One virtual CPU whose clock stands still."""
    with VirtualSMP(1, free_clock=False) as vm:
        yield vm


def test_a_drain_that_was_asked_for_before_the_run_is_refused_inside_it(vm: VirtualSMP) -> None:
    """A callback that awaits the drain of its own callout, made when nothing ran, gets SelfDrainError at once."""
    c = Callout()
    callout_init(c, 1)
    drain = callout_drain(c)

    def callback(_: object) -> None:
        with pytest.raises(SelfDrainError):
            drain.send(None)

    callout_reset(c, 1, callback, None)
    vm.tick()
    vm.check()

    assert c.run is None


def test_what_is_armed_after_the_end_of_a_drained_run_stays(vm: VirtualSMP) -> None:
    """A completion that arms the callout again, before the drain has returned: the drain removes nothing of that."""
    c, mtx = Callout(), Mtx("m")
    callout_init_mtx(c, mtx)
    callout_reset(c, 1, ignore, None)
    drained: list[int] = []

    async def drains() -> None:
        drained.append(await callout_drain(c))

    with mtx:
        vm.tick()  # its run stands at the lock
        vm.spawn(drains, cpu=0)
        vm.settle()
        callout_drain_async(c, lambda _: callout_reset(c, 100, ignore, "again"), None)
    vm.settle()

    assert drained == [-1]
    assert callout_pending(c)


def test_a_callout_is_terminated_from_the_call_on(vm: VirtualSMP) -> None:
    """callout_terminated() is 1 while callout_terminate() waits, not only when the run in progress has ended."""
    c, mtx = Callout(), Mtx("m")
    callout_init_mtx(c, mtx)
    callout_reset(c, 1, ignore, None)

    async def terminates() -> None:
        await callout_terminate(c)

    with mtx:
        vm.tick()

        assert not callout_terminated(c)

        vm.spawn(terminates, cpu=0)
        vm.settle()

        assert c.run is not None
        assert callout_terminated(c)


def test_ctrl_c_while_giant_is_acquired_again_comes_when_it_is_held(vm: VirtualSMP) -> None:
    """It is neither lost, nor does it leave the caller without the mutex that it had."""
    giant = vm.machine.giant
    waiters: Iterator[Callable[[], Waiter]] = iter([strike, vm.platform.thread_waiter])
    owned: list[bool] = []

    def waits() -> None:
        with pytest.raises(KeyboardInterrupt):
            run_blocking(_reacquire(giant, 2, lambda: next(waiters)()))
        owned.append(giant.owned())
        giant.drop_all()

    with giant:
        vm.spawn(waits)
        vm.settle()

        assert owned == []
    vm.settle()
    vm.check()

    assert owned == [True]


def strike() -> NoReturn:
    """Be where Ctrl-C comes."""
    raise KeyboardInterrupt


def test_giant_is_acquired_again_where_no_cancellation_comes(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that has released Giant has it again before it returns, and waits for that under a shield."""
    giant = vm.machine.giant
    c, mtx = Callout(), Mtx("m")
    callout_init_mtx(c, mtx)
    callout_reset(c, 1, ignore, None)
    owned: list[str] = []

    @contextmanager
    def shield() -> Iterator[None]:
        owned.append(f"entered, owned: {giant.owned()}")
        yield
        owned.append(f"left, owned: {giant.owned()}")

    monkeypatch.setattr(vm.platform, "shield", shield)

    async def drains() -> None:
        with giant:
            await callout_drain(c)

    with mtx:
        vm.tick()
        vm.spawn(drains, cpu=0)
        vm.settle()

        assert owned == []
    vm.settle()
    vm.check()

    assert owned == ["entered, owned: False", "left, owned: True"]
