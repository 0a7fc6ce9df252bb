"""VirtualSMP: what it refuses, what it says when it is left, and what check() sees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from callout import (
    C_ABSOLUTE,
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    CalloutError,
    ClosedError,
    DeadlockError,
    Event,
    LivelockError,
    Mtx,
    NoSystemError,
    UseAfterFree,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_schedule,
    callout_stop,
    curcpu,
)
from callout.explore import explore
from callout.testing import Slab, VirtualSMP


def nothing(_: object) -> None:
    """Be a callback."""


# -- entering and leaving ----------------------------------------------------------------------------------------------


def test_it_is_current_inside_its_block_only() -> None:
    """Making one changes nothing: without ``with`` it is not the current system, and cannot be used."""
    vm = VirtualSMP(1)
    with pytest.raises(NoSystemError):
        Mtx("m")
    for use in (vm.settle, vm.check, vm.tick, lambda: vm.spawn(nothing), lambda: vm.call(0, nothing)):
        with pytest.raises(NoSystemError, match="with VirtualSMP"):
            use()
    with vm:
        assert curcpu() == 0
    with pytest.raises(NoSystemError):
        curcpu()


def test_it_has_one_block() -> None:
    """Entering it twice is an error, during its block and after it."""
    vm = VirtualSMP(1)
    with vm, pytest.raises(BusyError, match="one block"):
        vm.__enter__()
    with pytest.raises(BusyError, match="one block"):
        vm.__enter__()


AFTER: Final[dict[str, Callable[[VirtualSMP, Callout, Mtx, Event], object]]] = {
    "stop": lambda vm, c, lock, event: callout_stop(c),
    "reset": lambda vm, c, lock, event: callout_reset(c, 1, nothing, None),
    "schedule": lambda vm, c, lock, event: callout_schedule(c, 1),
    "drain_sync": lambda vm, c, lock, event: callout_drain_sync(c),
    "drain_async": lambda vm, c, lock, event: callout_drain_async(c, nothing, None),
    "lock": lambda vm, c, lock, event: lock.lock(),
    "trylock": lambda vm, c, lock, event: lock.trylock(),
    "wait": lambda vm, c, lock, event: event.wait_sync(),
    "vm.tick": lambda vm, c, lock, event: vm.tick(),
    "vm.settle": lambda vm, c, lock, event: vm.settle(),
    "vm.check": lambda vm, c, lock, event: vm.check(),
    "vm.call": lambda vm, c, lock, event: vm.call(0, nothing),
    "vm.run": lambda vm, c, lock, event: vm.run(lambda: callout_drain(c)),
    "vm.spawn": lambda vm, c, lock, event: vm.spawn(nothing),
    "vm.__exit__": lambda vm, c, lock, event: vm.__exit__(None, None, None),
}


@pytest.mark.parametrize("use", AFTER.values(), ids=AFTER.keys())
def test_every_use_after_the_block_is_closed_error(
    use: Callable[[VirtualSMP, Callout, Mtx, Event], object],
) -> None:
    """Not GreenletExit, and not silence; the message says that the block was left."""
    with VirtualSMP(1, free_clock=False) as vm:
        c, lock, event = Callout(), Mtx("m"), Event()
        callout_init(c, 1)
        callout_reset(c, 5, nothing, None)

    with pytest.raises(ClosedError, match="was left"):
        use(vm, c, lock, event)
    assert not callout_pending(c)


def test_it_can_be_left_whatever_its_threads_stand_at() -> None:
    """In a lock, a drain, a wait or a callback: nothing hangs, and nothing is reported that was thrown away."""
    with VirtualSMP(2, free_clock=False) as vm:
        lock = Mtx("m")
        c = Callout()
        callout_init_mtx(c, lock)
        with lock:
            callout_reset(c, 1, nothing, None)
        lock.lock()
        for func in (lock.lock, Event().wait_sync, lambda: callout_drain_sync(c)):
            vm.spawn(func)
        vm.spawn(lambda: vm.platform.thread_waiter().wait().send(None), cpu=1)
        vm.tick()
    assert vm.errors == []


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"cpus": 0}, ArgumentValueError),
        ({"cpus": 2.0}, ArgumentTypeError),
        ({"hz": 0}, ArgumentValueError),
        ({"max_steps": 0}, ArgumentValueError),
        ({"max_steps": None}, ArgumentTypeError),
        ({"alloweddeviation": 101}, ArgumentValueError),
        ({"short_paths": "no"}, ArgumentTypeError),
        ({"free_clock": 5}, ArgumentTypeError),
        ({"checking": None}, ArgumentTypeError),
        ({"chooser": 5}, ArgumentTypeError),
    ],
)
def test_wrong_options(wrong: dict[str, Any], error: type[CalloutError]) -> None:
    """They are refused before anything is made, by the name of the class."""
    with pytest.raises(error, match=f"VirtualSMP: {next(iter(wrong))} must"):
        VirtualSMP(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda vm: vm.spawn(nothing, cpu=2),
        lambda vm: vm.spawn(nothing, cpu=-1),
        lambda vm: vm.spawn(nothing, cpu="0"),
        lambda vm: vm.spawn(nothing, bound=2),
        lambda vm: vm.spawn(nothing, name=3),
        lambda vm: vm.spawn(None),
        lambda vm: vm.call(2, nothing),
        lambda vm: vm.call(-1, nothing),
        lambda vm: vm.call(0, None),
        lambda vm: vm.tick(-1),
        lambda vm: vm.tick(1.5),
        lambda vm: vm.run(None),
    ],
)
def test_wrong_arguments(wrong: Callable[[VirtualSMP], object]) -> None:
    """They are refused, and nothing was started."""
    with VirtualSMP(2, free_clock=False) as vm:
        before = list(vm.platform.contexts)
        with pytest.raises((ArgumentTypeError, ArgumentValueError)):
            wrong(vm)
        assert vm.platform.contexts == before


# -- who may drive it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["check", "tick"])
def test_what_drives_the_machine_is_refused_inside_a_scenario(call: str) -> None:
    """check() would report the scenario itself as a deadlock; the error says what to use."""

    def scenario(vm: VirtualSMP) -> None:
        with pytest.raises(CalloutError, match=r"vm\.settle"):
            getattr(vm, call)()

    assert explore(scenario, bound=0).exhausted


def test_another_real_thread_is_refused() -> None:
    """A virtual system belongs to the thread that opened it."""
    errors: list[BaseException] = []
    with VirtualSMP(1, free_clock=False) as vm:
        lock = Mtx("m")

        def use() -> None:
            for call in (vm.tick, vm.settle, vm.check, lock.lock, lambda: vm.spawn(nothing)):
                try:
                    call()
                except NoSystemError as error:
                    errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        vm.check()
    assert len(errors) == 5


def test_the_code_that_drives_it_waits_as_a_thread_would() -> None:
    """It blocks while others can run, and only for what never comes is that an error."""
    with VirtualSMP(1) as vm:
        lock, event = Mtx("m"), Event()
        vm.spawn(event.set)
        event.wait_sync()
        vm.spawn(lock.lock)
        vm.settle()
        with pytest.raises(DeadlockError, match="the lock 'm', which lock holds"):
            lock.lock()


# -- check() -----------------------------------------------------------------------------------------------------------


def test_check_accepts_a_callout_armed_for_the_beginning_of_time() -> None:
    """An absolute time of 0 is pending like any other until the clock fires."""
    with VirtualSMP(1, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        callout_reset_sbt(c, 0, 0, nothing, None, C_ABSOLUTE)
        vm.check()
        assert callout_pending(c)
        vm.tick()
        vm.check()
        assert not callout_pending(c)


def test_check_raises_what_a_slab_reported() -> None:
    """Also if it was caught."""
    with VirtualSMP(1) as vm:
        slab: Slab[Event] = Slab("event")
        event = slab.alloc(Event)
        slab.free(event)
        with pytest.raises(UseAfterFree):
            event.is_set()
        with pytest.raises(UseAfterFree):
            vm.check()


def test_check_sees_a_wake_up_of_softclock_that_was_lost() -> None:
    """A softclock that idles although nothing can wake it any more is not at rest."""
    with VirtualSMP(1, free_clock=False) as vm:
        vm.check()
        vm.machine.cpus[0].idle = None
        with pytest.raises(DeadlockError, match="cpu0 waits for a wake-up"):
            vm.check()


def test_check_sees_an_event_timer_that_is_set_too_late() -> None:
    """The deadline of a CPU that its event timer will miss is work that nothing will do."""
    with VirtualSMP(1, free_clock=False) as vm:
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 5, nothing, None)
        vm.check()
        vm.platform.events[0] += 1 << 40
        with pytest.raises(DeadlockError, match="later than its deadline"):
            vm.check()


def test_it_tells_of_its_callouts_from_outside() -> None:
    """What was counted, and what is scheduled; in a thread that is an error, for there it would be a race unseen."""
    with VirtualSMP(2, free_clock=False) as vm:
        errors: list[CalloutError] = []
        vm.call_later(0.001, nothing, 0)
        vm.call_later(5, nothing, 0, cpu=1, name="later")
        vm.tick(10)

        def thread() -> None:
            for call in (vm.stats, vm.callouts):
                with pytest.raises(
                    CalloutError, match=r"thread runs on the machine.*no part of an exploration"
                ) as caught:
                    call()
                errors.append(caught.value)

        (info,) = vm.callouts()
        vm.spawn(thread)
        vm.check()

        assert [(cpu.fired, cpu.pending) for cpu in vm.stats().cpus] == [(1, 0), (0, 1)]
        assert (info.name, info.cpu, round(info.due_in, 3)) == ("later", 1, 4.99)
        assert [error.call for error in errors] == ["stats", "callouts"]


def test_a_livelock_is_raised_where_it_is_driven() -> None:
    """A callback that re-arms its callout for ever ends settle(), again and again."""
    with VirtualSMP(1, max_steps=1000) as vm:
        c = Callout()
        callout_init(c, 1)

        def again(_: object) -> None:
            callout_reset(c, 1, again, None)

        again(None)
        for _ in range(2):
            with pytest.raises(LivelockError, match="re-arming itself"):
                vm.settle()
