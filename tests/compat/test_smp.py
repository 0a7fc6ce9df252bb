"""Cross-CPU calls, on virtual CPUs and on real ones."""

from __future__ import annotations

import errno
import gc
import tracemalloc
from collections.abc import Coroutine
from typing import Any, Final

import pytest
import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    ClosedError,
    NotAwaitedError,
    cpu_call,
    open_callouts,
)
from callout._core.lifecycle import end_calls
from callout.testing import VirtualSMP
from callout_linux import v2_3
from callout_linux.smp import (
    INIT_CSD,
    CrossCallError,
    call_single_data_t,
    for_each_online_cpu,
    num_online_cpus,
    on_each_cpu,
    on_each_cpu_cond,
    on_each_cpu_cond_mask,
    on_each_cpu_mask,
    smp_call_function,
    smp_call_function_any,
    smp_call_function_many,
    smp_call_function_single,
    smp_call_function_single_async,
    smp_processor_id,
)
from callout_linux.timer import DEFINE_TIMER, destroy_all_blocking, jiffies, mod_timer, timer_list, timer_setup
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


def test_the_waiter_gets_the_exception_and_the_others_run(s2: Stage) -> None:
    """A function that raises on one CPU runs on the others all the same, and the caller gets what it raised."""
    calls = Calls()
    with pytest.raises(ZeroDivisionError, match="on cpu 0"):
        s2.t1.do(lambda: on_each_cpu(calls.fail, {0}, True).wait_blocking())

    assert sorted(cpu for _, cpu in calls.ran) == [0, 1]

    with pytest.raises(ExceptionGroup) as caught:
        s2.t1.do(lambda: on_each_cpu(calls.fail, {0, 1}, True).wait_blocking())
    assert sorted(map(str, caught.value.exceptions)) == ["on cpu 0", "on cpu 1"]
    assert s2.errors == []


async def asynchronous(*_: object) -> int:
    """Would have to be awaited."""
    return 1


def returns_a_coroutine(*args: object) -> Coroutine[Any, Any, int]:
    """Be a plain function, of which one cannot tell."""
    return asynchronous(*args)


UNRUN: Final = "returns_a_coroutine has returned a coroutine, which nobody will run"


def test_a_function_that_returns_a_coroutine_has_failed(s: Stage) -> None:
    """What a function has returned that nobody will run is an error: of the caller that waits, else as a callback's;
    also on the spot, and if it was sent by a record of the caller's.
    """
    with pytest.raises(ArgumentTypeError, match=UNRUN):
        s.t0.do(lambda: smp_call_function_single(s.last, returns_a_coroutine, 0, True).wait_blocking())

    assert s.errors == []

    csd = call_single_data_t(returns_a_coroutine, None)

    def caller() -> None:
        on_each_cpu_mask([0], returns_a_coroutine, None, False)
        smp_call_function_single_async(0, csd)

    s.t0.do(lambda: smp_call_function_single(s.last, returns_a_coroutine, None, False))
    s.do(lambda: smp_call_function_single_async(s.last, csd))
    s.call(0, caller)

    assert [UNRUN in str(error) for error in s.errors] == [True] * 4
    s.errors.clear()


def test_a_condition_that_returns_a_coroutine_chooses_nobody(s: Stage) -> None:
    """A coroutine is true for every CPU; it is refused instead, and no call is made."""
    calls = Calls()
    with pytest.raises(ArgumentTypeError, match=UNRUN):
        s.do(lambda: on_each_cpu_cond(returns_a_coroutine, calls.func, 0, False))

    assert calls.ran == []


def test_a_timers_function_that_returns_a_coroutine_is_reported(s: Stage) -> None:
    """What a timer's function, of either age, or an element's destroyer has returned that nobody will run is an
    error.
    """
    timer, old = timer_list(), v2_3.timer_list()
    old.function = returns_a_coroutine

    def arm() -> None:
        timer_setup(timer, returns_a_coroutine)
        mod_timer(timer, jiffies + 1)
        v2_3.init_timer(old)
        v2_3.mod_timer(old, jiffies + 1)

    s.do(arm)
    s.tick(2)

    assert [UNRUN in str(error) for error in s.errors] == [True, True]
    s.errors.clear()
    with pytest.raises(ArgumentTypeError, match=UNRUN):
        s.do(destroy_all_blocking, [timer], s.mtx(), returns_a_coroutine, lambda element: element)


def test_if_nobody_waits_an_exception_is_a_callbacks(s2: Stage) -> None:
    """What a function raises that nobody waits for goes where a callback's exception goes."""
    calls = Calls()
    s2.t0.do(lambda: smp_call_function(calls.fail, {1}, False))

    assert str(s2.error()) == "on cpu 1"


def test_if_nobody_waits_an_exception_is_a_callbacks_on_the_own_cpu_too(s: Stage) -> None:
    """A function that is called on the spot, on the caller's own CPU, does not raise into the caller, whatever it
    raises.
    """
    for error in (ZeroDivisionError("here"), SystemExit("here")):
        went_on: list[bool] = []

        def fail(error: BaseException) -> None:
            raise error

        def caller(error: BaseException = error, went_on: list[bool] = went_on) -> None:
            on_each_cpu_mask([0], fail, error, False)
            smp_call_function_single_async(0, call_single_data_t(fail, error))
            went_on.append(True)

        s.call(0, caller)

        assert went_on == [True]
        assert s.errors == [error, error]

        s.errors.clear()


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt(), ValueError("7")])
def test_the_waiter_gets_whatever_the_function_raised(s: Stage, error: BaseException) -> None:
    """An exception that is no Exception is an error for the waiter, too, each time that it asks, and nobody else's."""

    def fail(_: None) -> None:
        raise error

    completion = s.do(lambda: smp_call_function_single(s.last, fail, None, True))
    seen = []
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            s.do(completion.wait_blocking)
        seen.append((caught.value, len(caught.traceback)))

    assert seen[0][0] is error
    assert seen[0] == seen[1]
    assert s.errors == []


@pytest.mark.trio
async def test_what_an_await_cannot_pass_on_comes_as_a_clear_error() -> None:
    """StopIteration, which an await would take for a result, comes as an error that names it."""

    def stop(_: None) -> None:
        raise StopIteration(5)

    async with open_callouts(cpus=2):
        for cpu in (0, 1):
            with pytest.raises(CrossCallError, match=r"smp_call_function_single: .* StopIteration\(5\)") as caught:
                await smp_call_function_single(cpu, stop, None, True)

            assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.trio
async def test_a_call_that_is_not_waited_for_cannot_be_awaited() -> None:
    """What comes of wait=False is neither awaitable nor a number; a completion is no number before its await."""
    async with open_callouts(cpus=2):
        sent = smp_call_function_single(1, str, 0, False)
        with pytest.raises(NotAwaitedError, match="wait=True"):
            await sent  # type: ignore[misc]  # that is the point
        with pytest.raises(NotAwaitedError, match="wait=True"):
            assert sent == 0  # type: ignore[comparison-overlap]  # as above
        completion = smp_call_function_single(1, str, 0, True)
        for use in (bool, lambda it: it == 0, lambda it: it != 0, lambda it: it < 0):
            with pytest.raises(NotAwaitedError, match=r"`await smp_call_function_single\(\.\.\.\)`"):
                use(completion)

        assert await completion == 0


def test_a_call_to_be_waited_for_that_nobody_waits_for_is_warned_of(s: Stage) -> None:
    """A completion that is dropped without a wait warns, by the name of the call; one that was waited for does not."""

    def forget() -> None:
        completion = on_each_cpu(str, 0, True)
        del completion
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"on_each_cpu\(\): .* never awaited"):
        s.do(forget)


def test_a_mask_and_a_condition_choose_the_cpus(s2: Stage) -> None:
    """on_each_cpu_mask() takes the current CPU along, the condition is asked once for each CPU, a mask limits it."""
    calls = Calls()
    asked: list[int] = []

    def odd(cpu: int, info: object) -> bool:
        asked.append(cpu)
        return cpu % 2 == 1

    s2.t1.do(lambda: on_each_cpu_mask([1, 0, 1], calls.func, "mask", True).wait_blocking())
    s2.t1.do(lambda: on_each_cpu_cond(odd, calls.func, "cond", True).wait_blocking())

    assert sorted(asked) == [0, 1]

    s2.t1.do(lambda: on_each_cpu_cond_mask(odd, calls.func, "cond mask", True, [0]).wait_blocking())
    s2.t1.do(lambda: on_each_cpu_cond_mask(None, calls.func, "no cond", True, [0]).wait_blocking())

    assert sorted(calls.ran, key=str) == [("cond", 1), ("mask", 0), ("mask", 1), ("no cond", 0)]


def test_a_condition_that_raises_calls_nobody(s2: Stage) -> None:
    """If the condition raises for the last CPU, no function has been called on the first."""
    calls = Calls()
    with pytest.raises(ZeroDivisionError):
        s2.do(lambda: on_each_cpu_cond(lambda cpu, _: 1 // (1 - cpu), calls.func, "never", False))

    assert calls.ran == []


def test_any_prefers_the_current_cpu(s2: Stage) -> None:
    """smp_call_function_any() calls on the current CPU if the mask has it, else on the lowest; an empty one is
    refused.
    """
    calls = Calls()
    s2.t1.do(lambda: smp_call_function_any([0, 1], calls.func, "[0, 1]", True).wait_blocking())
    s2.t1.do(lambda: smp_call_function_any([0], calls.func, "[0]", True).wait_blocking())

    assert calls.ran == [("[0, 1]", 1), ("[0]", 0)]

    with pytest.raises(ArgumentValueError, match="at least one"):
        s2.do(lambda: smp_call_function_any([], calls.func, 0, False))


def test_all_cpus_are_online(s: Stage) -> None:
    """num_online_cpus() counts the CPUs that for_each_online_cpu() gives."""
    assert s.do(num_online_cpus) == s.cpus
    assert list(s.do(for_each_online_cpu)) == list(range(s.cpus))


def test_an_asynchronous_call_is_busy_until_its_function_begins(s2: Stage) -> None:
    """A call_single_data_t that is under way is refused with -EBUSY and not changed; its own function may send it."""
    calls = Calls()
    again: list[int] = []

    def func(info: object) -> None:
        calls.func(info)
        if smp_processor_id():
            again.append(smp_call_function_single_async(0, csd))

    csd = call_single_data_t[object](func, "first")
    timer = s2.do(DEFINE_TIMER, lambda _: s2.world.wait_at_gate("g", lambda: None))
    s2.t1.do(mod_timer, timer, s2.do(jiffies))
    s2.tick()

    assert s2.do(smp_call_function_single_async, 1, csd) == 0
    assert s2.do(smp_call_function_single_async, 1, csd) == -errno.EBUSY
    with pytest.raises(BusyError, match="INIT_CSD"):
        s2.do(INIT_CSD, csd, calls.func, "changed")

    s2.open("g")
    s2.tick()

    assert calls.ran == [("first", 1), ("first", 0)]
    assert again == [0]

    s2.do(INIT_CSD, csd, calls.func, "changed")
    s2.do(smp_call_function_single_async, 1, csd)
    s2.tick()

    assert calls.ran[2:] == [("changed", 1)]


def test_what_an_asynchronous_call_refuses(s: Stage) -> None:
    """A CPU that is not there, or what is no call_single_data_t, is refused, and the record is free afterwards."""
    calls = Calls()
    csd = call_single_data_t[object](calls.func, 0)
    with pytest.raises(ArgumentValueError, match="no cpu 9"):
        s.do(smp_call_function_single_async, 9, csd)
    with pytest.raises(ArgumentTypeError, match="call_single_data_t"):
        s.do(smp_call_function_single_async, 0, calls.func)  # type: ignore[arg-type]  # the wrong type
    with pytest.raises(ArgumentTypeError, match="function"):
        call_single_data_t(5, 0)  # type: ignore[arg-type]  # as above
    with pytest.raises(ArgumentTypeError, match="wait must be"):
        s.do(lambda: on_each_cpu(calls.func, 0, "no"))  # type: ignore[call-overload]  # as above

    assert s.do(smp_call_function_single_async, 0, csd) == 0
    assert calls.ran == [(0, 0)]


def test_an_asynchronous_call_to_a_closed_cpu_is_refused_and_may_be_sent_elsewhere() -> None:
    """ClosedError leaves the record free."""
    calls = Calls()
    with VirtualSMP(2) as vm:
        end_calls(vm.machine.cpus[1])
        csd = call_single_data_t[object](calls.func, 0)
        with pytest.raises(ClosedError, match="was closed") as caught:
            smp_call_function_single_async(1, csd)

        assert caught.value.cpu == 1
        assert smp_call_function_single_async(0, csd) == 0

        vm.settle()

    assert calls.ran == [(0, 0)]


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
        smp_call_function_single(1, calls.func, "sent", False)

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
