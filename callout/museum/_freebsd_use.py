"""How to free what has callouts: races in the use of callout(9), on the engine that this package ships.

A *pcb*, a protocol control block, has a mutex and callouts under it. Its callouts are armed, and a thread tears it
down. What is freed goes back to a ``Slab``, so that each later use is an error, also one by softclock.

Invariants: nothing of a pcb is used after it was freed; it is freed exactly once; everything ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .. import (
    CALLOUT_TRYLOCK,
    Callout,
    Mtx,
    callout_drain_async,
    callout_drain_sync,
    callout_init_mtx,
    callout_reset,
    callout_stop,
)
from ..testing import Slab, VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario, on_engine


class Pcb:
    """A control block with a mutex, and callouts whose callbacks only have to find it alive."""

    def __init__(self, slab: Slab[Pcb], callouts: int, flags: int) -> None:
        self.slab = slab
        self.mtx = Mtx("pcb")
        self.timers = [Callout() for _ in range(callouts)]
        self.refs = 0
        self.runs = 0
        for c in self.timers:
            callout_init_mtx(c, self.mtx, flags)
            callout_reset(c, 1, Pcb.timer, self)

    def timer(self) -> None:
        """Be the callback. The mutex is held."""
        self.runs += 1

    def release(self, _: object = None) -> None:
        """Drop one reference; the last one frees."""
        with self.mtx:
            self.refs -= 1
            last = self.refs == 0
        if last:
            self.slab.free(self)


def torn_down(how: Callable[[Pcb], None], callouts: int = 1, flags: int = 0) -> Scenario:
    """Return the scenario in which a pcb with armed callouts is torn down while they may fire."""

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Pcb] = Slab("pcb")
        with vm.setup():
            pcb = slab.alloc(Pcb, slab, callouts, flags)
        how(pcb)
        vm.settle()
        assert not slab.leaks(), "the pcb is never freed"

    return scenario


# -- stop and free, drain and free -------------------------------------------------------------------------------------


def stop_and_free(pcb: Pcb) -> None:
    """Stop all, then free."""
    with pcb.mtx:
        for c in pcb.timers:
            callout_stop(c)
    pcb.slab.free(pcb)


def stop_look_and_free(pcb: Pcb) -> None:
    """Stop all, and free at once if each stop says that nothing will run; else drain."""
    with pcb.mtx:
        stopped = [callout_stop(c) for c in pcb.timers]
    if 0 in stopped:
        drain_and_free(pcb)
    else:
        pcb.slab.free(pcb)


def drain_and_free(pcb: Pcb) -> None:
    """Drain all, then free."""
    for c in pcb.timers:
        callout_drain_sync(c)
    pcb.slab.free(pcb)


def drain_under_the_mutex(pcb: Pcb) -> None:
    """Drain with the mutex held that the callback needs."""
    with pcb.mtx:
        for c in pcb.timers:
            callout_drain_sync(c)
    pcb.slab.free(pcb)


def drained_in_the_kernel(vm: VirtualSMP) -> None:
    """Drain with the callout's lock held, where nothing refuses that: softclock and the drain as a model in cells."""
    with vm.setup():
        c_lock = vm.lock("pcb")
        cc_lock = vm.lock("cc")
        cc = vm.struct("cc", queued=True, current=False)

    def softclock() -> None:
        with cc_lock:
            if not cc.queued:
                return
            cc.queued = False
            cc.current = True
        with c_lock:
            pass  # the callback
        with cc_lock:
            cc.current = False

    def destroyer() -> None:
        with c_lock:
            with cc_lock:
                cc.queued = False
            vm.wait_until(lambda: not cc.current, "the callback to return")

    vm.spawn(softclock)
    vm.spawn(destroyer)


# -- the teardown with a reference for each callout --------------------------------------------------------------------


def drop_what_is_idle(pcb: Pcb, completion: Callable[[object], None]) -> None:
    """Drain every callout, and drop the reference of each with which nothing is outstanding."""
    for c in pcb.timers:
        if callout_drain_async(c, completion, None) == 0:
            pcb.refs -= 1


def counted(pcb: Pcb) -> None:
    """Have a reference for each callout and one for oneself; a drain with nothing outstanding drops one."""
    with pcb.mtx:
        pcb.refs = len(pcb.timers) + 1
        drop_what_is_idle(pcb, pcb.release)
    pcb.release()


def counted_without_oneself(pcb: Pcb) -> None:
    """Have a reference for each callout, and none for oneself."""
    with pcb.mtx:
        pcb.refs = len(pcb.timers)
        drop_what_is_idle(pcb, pcb.release)
    pcb.release()


def counted_too_late(pcb: Pcb) -> None:
    """Set the count when the first drain has returned: the reference that it has dropped is back."""
    with pcb.mtx:
        for number, c in enumerate(pcb.timers):
            if callout_drain_async(c, pcb.release, None) == 0:
                pcb.refs -= 1
            if number == 0:
                pcb.refs = len(pcb.timers) + 1
    pcb.release()


def counted_the_other_way(pcb: Pcb) -> None:
    """Take the result for that of FreeBSD 11's ``callout_async_drain()``: 0 is "it will be called" there."""
    with pcb.mtx:
        pcb.refs = len(pcb.timers) + 1
        for c in pcb.timers:
            if callout_drain_async(c, pcb.release, None) != 0:
                pcb.refs -= 1
    pcb.release()


def freed_before_unlock(pcb: Pcb) -> None:
    """Free with the mutex held, and release it then."""

    def release(_: object) -> None:
        with pcb.mtx:
            pcb.refs -= 1
            if pcb.refs == 0:
                pcb.slab.free(pcb)

    with pcb.mtx:
        pcb.refs = len(pcb.timers) + 1
        drop_what_is_idle(pcb, release)
    release(None)


def released_under_the_mutex(pcb: Pcb) -> None:
    """Call the completion oneself with the mutex held."""
    with pcb.mtx:
        pcb.refs = len(pcb.timers) + 1
        drop_what_is_idle(pcb, pcb.release)
        pcb.release()


# -- CALLOUT_TRYLOCK ---------------------------------------------------------------------------------------------------


def ticked(vm: VirtualSMP) -> None:
    """Be the clock, for three ticks: a callout whose lock is held is tried again at the next one, and no end to that.

    The scenario that spawns this has set ``free_clock`` to False.
    """
    for _ in range(3):
        vm.platform.tick(vm.machine.tick)
        vm.point()


def with_three_ticks(scenario: Scenario) -> Scenario:
    """Return a scenario with a clock that ticks three times."""

    def with_clock(vm: VirtualSMP) -> None:
        vm.platform.free_clock = False
        vm.spawn(ticked, vm, name="clock")
        scenario(vm)

    return with_clock


def stop_is_exact(vm: VirtualSMP) -> None:
    """Look whether ``callout_stop()``, under the mutex, says 0 although the callback has returned."""
    slab: Slab[Pcb] = Slab("pcb")
    with vm.setup():
        pcb = slab.alloc(Pcb, slab, 1, CALLOUT_TRYLOCK)

    def stopper() -> None:
        with pcb.mtx:
            result = callout_stop(pcb.timers[0])
            assert result != 0 or not pcb.runs, "callout_stop() says that the callback runs, and it has returned"

    vm.spawn(stopper)
    vm.settle()
    slab.free(pcb)


TRYLOCK: Final = "FreeBSD commit efcb2ec8cb81 (Gleb Smirnoff, 2024), review D45746: CALLOUT_TRYLOCK"


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.1",
        title="callout_stop(), then free",
        story=(
            "Hans Petter Selasky's mail of December 2014 begins with teardown code that looks right. It acquires the "
            "mutex of a control block, stops each callout, releases the mutex and frees the block. But softclock may "
            "have removed a callout from its queue a moment before. It stands at the mutex now. callout_stop() cancels "
            "that run and returns 1, and 1 is true: the callback will not be called. But softclock still acquires the "
            "mutex to find out, and the mutex is in the block that was freed. So it does not help to look at the "
            "result. A drain waits until softclock is done with the callout and its lock."
        ),
        sources=(MAIL, "callout(9), callout_stop()"),
        variants=(
            on_engine(
                "stop",
                "stop all, then free",
                torn_down(stop_and_free),
                breaks="was used after it was freed",
                preemptions=1,
            ),
            on_engine(
                "stop-and-look",
                "free at once only if each stop says that nothing will run",
                torn_down(stop_look_and_free),
                breaks="was used after it was freed",
                preemptions=1,
            ),
            on_engine("drain", "drain all, then free", torn_down(drain_and_free)),
        ),
    ),
    Exhibit(
        number="R4.2",
        title="callout_drain() with the callout's lock held",
        story=(
            "callout_drain() before free is safe. But it waits for the callback, and the callback waits for the lock "
            "of its callout. A caller that holds this lock while it drains waits for itself. In the kernel that is a "
            "deadlock, and only when the timer fires at the wrong moment. Here the drain with a lock held is refused "
            "at once, in every schedule."
        ),
        sources=(MAIL, "callout(9), callout_drain()"),
        variants=(
            Variant(
                "with-the-lock-in-the-kernel",
                "drain with the lock held, as a model of the kernel",
                drained_in_the_kernel,
                breaks="destroyer waits for the callback to return",
                preemptions=1,
            ),
            on_engine(
                "with-the-lock",
                "drain with the lock held, on this engine",
                torn_down(drain_under_the_mutex),
                breaks="callout_drain",
            ),
            on_engine("without-the-lock", "drain each with no lock held, then free", torn_down(drain_and_free, 2)),
        ),
    ),
    Exhibit(
        number="R4.3",
        title="the reference-counted teardown, and five ways to get it wrong",
        story=(
            "A thread that must not wait cannot drain. The mail's remedy is a count of references: one for each "
            "callout and one for the thread itself. callout_drain_async() returns 0 when nothing of a callout is "
            "outstanding, and then its reference is dropped at once. Else its completion drops it, when softclock is "
            "done with the callout. The last one frees the block. Each detail matters. Without a reference of one's "
            "own, or with the count set after the first drain, the block is freed too early, twice or never. The "
            "result has the opposite sense of callout_async_drain() in FreeBSD 11 to 14, so ported code may have it "
            "the wrong way around. And the block must be freed after the mutex was released, because the mutex is in "
            "it."
        ),
        sources=(MAIL, "FreeBSD 11 to 14, callout_async_drain() and tcp_timer.c, tt_draincnt"),
        variants=(
            on_engine(
                "own-reference-missing",
                "as many references as callouts",
                torn_down(counted_without_oneself, 2),
                breaks="the pcb is never freed",
            ),
            on_engine(
                "counted-too-late",
                "the count is set after the first drain",
                torn_down(counted_too_late, 2),
                breaks="the pcb is never freed",
            ),
            on_engine(
                "opposite-sense",
                "0 is read as: the completion will be called",
                torn_down(counted_the_other_way, 2),
                breaks="the pcb is never freed",
            ),
            on_engine(
                "freed-before-unlock",
                "the last one frees with the mutex held",
                torn_down(freed_before_unlock, 2),
                breaks="its lock 'pcb' was released",
            ),
            on_engine(
                "released-under-the-mutex",
                "the thread drops its own reference with the mutex held",
                torn_down(released_under_the_mutex, 2),
                breaks="this thread holds it already",
            ),
            on_engine("counted", "a reference for each callout, and one's own", torn_down(counted, 2)),
        ),
    ),
    Exhibit(
        number="R4.9",
        title="CALLOUT_TRYLOCK: stop is enough, and its 0 is not exact",
        story=(
            "In 2024 Gleb Smirnoff closed the window of stop-and-free in another way. For a callout with "
            "CALLOUT_TRYLOCK softclock keeps the lock of its CPU and only tries the callout's lock. If that is held, "
            "the callout is queued again, a little later. So softclock never stands at a lock that a caller of "
            "callout_stop() holds, and after a stop that returned something else than 0 the memory may be freed. One "
            "thing is left, and the commit says so: callout_stop() may return 0, for a callback that runs, although "
            "the callback has returned and softclock has only not noted it yet."
        ),
        sources=(TRYLOCK,),
        variants=(
            on_engine(
                "without-the-flag",
                "stop, look and free, without CALLOUT_TRYLOCK",
                with_three_ticks(torn_down(stop_look_and_free)),
                breaks="was used after it was freed",
                preemptions=1,
            ),
            on_engine(
                "with-the-flag",
                "stop, look and free, with CALLOUT_TRYLOCK",
                with_three_ticks(torn_down(stop_look_and_free, flags=CALLOUT_TRYLOCK)),
            ),
            on_engine(
                "inexact-0",
                "0 is read as: the callback has not returned",
                with_three_ticks(stop_is_exact),
                breaks="and it has returned",
                preemptions=1,
            ),
        ),
    ),
)
