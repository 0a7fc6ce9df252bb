"""Cross-CPU calls, on virtual CPUs and on real ones."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import trio

from callout import ClosedError, cpu_call, open_callouts
from callout._core.lifecycle import end_calls
from callout.testing import VirtualSMP
from callout_linux.smp import (
    Completion,
    on_each_cpu,
    smp_call_function,
    smp_call_function_many,
    smp_call_function_single,
    smp_processor_id,
)
from callout_linux.timer import DEFINE_TIMER, jiffies, mod_timer, timer_list
from tests.conformance.world import Stage


class Calls:
    """What ran where."""

    def __init__(self) -> None:
        self.ran: list[tuple[object, int]] = []

    def func(self, info: object) -> None:
        """Be the function."""
        self.ran.append((info, smp_processor_id()))

    def fail(self, info: object) -> None:
        """Be a function that fails on the CPUs that its argument names."""
        self.func(info)
        assert isinstance(info, set)
        if smp_processor_id() in info:
            raise ZeroDivisionError(f"on cpu {smp_processor_id()}")


def test_the_current_cpu_is_that_of_the_thread(s: Stage) -> None:
    """smp_processor_id() is the CPU to which a thread was bound, else 0."""
    assert s.t0.do(smp_processor_id) == 0
    assert s.t1.do(smp_processor_id) == s.last


def test_a_function_is_called_once_on_the_cpu(s: Stage) -> None:
    """smp_call_function_single() calls the function once, with its argument, on that CPU, waited for or not."""
    calls = Calls()

    assert s.t0.do(lambda: smp_call_function_single(s.last, calls.func, "waited", True).wait_blocking()) == 0
    assert calls.ran == [("waited", s.last)]

    s.t0.do(lambda: smp_call_function_single(s.last, calls.func, "sent", False))

    assert calls.ran[1:] == [("sent", s.last)]


def test_the_many_leave_the_current_cpu_out(s2: Stage) -> None:
    """Two of the calls leave the caller's CPU out, on_each_cpu() does not; a CPU named twice counts once."""
    calls = Calls()
    s2.t1.do(lambda: smp_call_function_many([1, 0, 0, 1], calls.func, "many", True).wait_blocking())
    s2.t1.do(lambda: smp_call_function(calls.func, "others", True).wait_blocking())

    assert calls.ran == [("many", 0), ("others", 0)]

    s2.t1.do(lambda: on_each_cpu(calls.func, "each", True).wait_blocking())

    assert sorted(calls.ran[2:]) == [("each", 0), ("each", 1)]


def test_a_call_to_nobody_is_done(s: Stage) -> None:
    """Called for no CPU at all, smp_call_function_many() has nothing to wait for."""
    assert s.do(lambda: smp_call_function_many([], Calls().func, 0, True).wait_blocking()) == 0


def test_a_function_may_call_across_cpus(s2: Stage) -> None:
    """A timer's function on CPU 1 may send calls, which it cannot wait for, to all CPUs; its own comes on the spot."""
    calls = Calls()
    order: list[str] = []

    def function(_: timer_list) -> None:
        on_each_cpu(calls.func, "each", False)
        order.append(str([info for info, cpu in calls.ran if cpu == 1]))

    timer = s2.do(DEFINE_TIMER, function)
    s2.t1.do(mod_timer, timer, s2.do(jiffies))
    s2.tick()

    assert order == ["['each']"]
    assert sorted(calls.ran) == [("each", 0), ("each", 1)]


def test_a_call_waits_for_the_function_that_runs_on_its_cpu(s2: Stage) -> None:
    """A call comes in no callback of its CPU: it waits until that has returned."""
    calls = Calls()
    timer = s2.do(DEFINE_TIMER, lambda _: s2.world.wait_at_gate("g", lambda: None))
    s2.t1.do(mod_timer, timer, s2.do(jiffies))
    s2.tick()
    call = s2.t0.begin(lambda: smp_call_function_single(1, calls.func, 0, True).wait_blocking())

    assert call.blocked
    assert calls.ran == []

    s2.open("g")

    assert call.result() == 0


def test_who_waits_gets_the_exception_and_the_others_run(s2: Stage) -> None:
    """A function that raises on one CPU runs on the others all the same, and the caller gets what it raised."""
    calls = Calls()
    with pytest.raises(ZeroDivisionError, match="on cpu 0"):
        s2.t1.do(lambda: on_each_cpu(calls.fail, {0}, True).wait_blocking())

    assert sorted(cpu for _, cpu in calls.ran) == [0, 1]

    with pytest.raises(ExceptionGroup) as caught:
        s2.t1.do(lambda: on_each_cpu(calls.fail, {0, 1}, True).wait_blocking())
    assert sorted(map(str, caught.value.exceptions)) == ["on cpu 0", "on cpu 1"]
    assert s2.errors == []


def test_if_nobody_waits_an_exception_is_a_callbacks(s2: Stage) -> None:
    """What a function raises that nobody waits for goes where a callback's exception goes."""
    calls = Calls()
    s2.t0.do(lambda: smp_call_function(calls.fail, {1}, False))

    assert str(s2.error()) == "on cpu 1"


def test_calls_back_to_back_come_in_order(s2: Stage) -> None:
    """Calls that one thread sends to one CPU run there in the order in which they were sent."""
    calls = Calls()

    def send() -> None:
        for number in range(50):
            smp_call_function_single(1, calls.func, number, False)

    s2.t0.do(send)

    assert calls.ran == [(number, 1) for number in range(50)]


def test_a_call_to_a_closed_cpu_is_refused() -> None:
    """A call to a closed CPU is an error, at once or from the wait, and no hang; the other CPUs run it."""
    calls = Calls()
    with VirtualSMP(3) as vm:
        end_calls(vm.machine.cpus[1])
        with pytest.raises(ClosedError, match="closed"):
            smp_call_function(calls.func, "sent", False)
        with pytest.raises(ClosedError, match="closed"):
            cpu_call(1, calls.func, 0)
        refused: list[BaseException] = []

        def wait() -> None:
            try:
                smp_call_function(calls.func, "waited", True).wait_blocking()
            except ClosedError as error:
                refused.append(error)

        vm.spawn(wait)
        vm.settle()

    assert calls.ran == [("sent", 2), ("waited", 2)]
    assert len(refused) == 1


@pytest.mark.trio
async def test_awaiting_calls_on_real_loops() -> None:
    """Tasks await calls to other CPUs and to their own, and get exceptions; after the block, calls are refused."""
    calls = Calls()
    async with open_callouts(cpus=2) as system:
        assert await smp_call_function_single(0, calls.func, "here", True) == 0
        assert await smp_call_function_single(1, calls.func, "there", True) == 0
        assert await on_each_cpu(calls.func, "each", True) == 0
        with pytest.raises(ZeroDivisionError):
            await smp_call_function(calls.fail, {1}, True)
        done = trio.Event()
        home = trio.lowlevel.current_trio_token()

        async def there() -> None:
            await smp_call_function(calls.func, "back", True)
            home.run_sync_soon(done.set)

        system.cpu(1).start_soon(there)
        await done.wait()
        sent = smp_call_function_single(1, calls.func, "sent", False)

        assert isinstance(sent, Completion)
        assert await sent == 0

    assert sorted(calls.ran, key=str) == sorted(
        [("here", 0), ("there", 1), ("each", 0), ("each", 1), ({1}, 1), ("back", 0), ("sent", 1)], key=str
    )


@pytest.mark.slow
@pytest.mark.trio
async def test_a_hundred_thousand_calls_from_four_cpus() -> None:
    """100,000 smp_call_function_many() from four CPUs at once run once on each target, and leave nothing behind."""
    senders, each, batch = 4, 25_000, 100
    ran = [bytearray(senders * each) for _ in range(senders)]
    left = senders
    done = trio.Event()
    home = trio.lowlevel.current_trio_token()

    def func(number: int) -> None:
        ran[smp_processor_id()][number] += 1

    def one_less() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async def send(me: int, first: int, last: int) -> None:
        others = [cpu for cpu in range(senders) if cpu != me]
        for start in range(first, last, batch):
            sent = [smp_call_function_many(others, func, me * each + i, True) for i in range(start, start + batch)]
            for completion in sent:
                await completion
        home.run_sync_soon(one_less)

    async def round_of(first: int, last: int) -> None:
        nonlocal left, done
        left, done = senders, trio.Event()
        for me in range(senders):
            system.cpu(me).start_soon(send, me, first, last)
        await done.wait()
        gc.collect()

    async with open_callouts(cpus=senders) as system:
        await round_of(0, 1_000)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await round_of(1_000, 3_000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        await round_of(3_000, each)

    for cpu in range(senders):
        for me in range(senders):
            part = ran[cpu][me * each : (me + 1) * each]

            assert part == bytes([cpu != me]) * each
    assert grown < 200_000
