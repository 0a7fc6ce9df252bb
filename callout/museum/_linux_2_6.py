"""``del_timer_sync()`` of Linux 2.6: from test7, where it could return too early in three ways, to 2.6.13 and after.

The models are in ``_timers_2_6_0.py`` and ``_timers_2_6_13.py``.

Invariants: when ``del_timer_sync()`` returns, the timer is neither pending nor running on any CPU, and its handler does
not start any more; every arming either runs or is counted as stopped; nothing is used after it was freed; every call
returns.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from . import _timers_2_6_0 as early
from . import _timers_2_6_13 as late
from ._bases import deletes, race, uses_its_data
from ._exhibit import Exhibit, Variant

MOLNAR: Final = "Ingo Molnar, linux-kernel, 11 October 2003, on del_timer_sync() of 2.6.0-test7"
ARCANGELI: Final = "Andrea Arcangeli, linux-kernel, 16 October 2003, the reply to it"
GUSTAFSON: Final = "Gustafson, linux-kernel, 10 May 2004, on the races of del_timer_sync()"
NESTEROV: Final = "Oleg Nesterov, linux-kernel, 1 June 2005, on timers; his change is in 2.6.13"

# What del_timer_sync() does to wait for the handler, as a thread that deletes the timer.
WITH_BREAK: Final = deletes(early.Kernel.del_timer_sync)
FULL_SCAN: Final = deletes(partial(early.Kernel.del_timer_sync, wait=early.Kernel.wait_for_each))
RESCAN: Final = deletes(partial(early.Kernel.del_timer_sync, wait=early.Kernel.wait_and_look_again))
ALL_BASES: Final = deletes(early.Kernel.del_timer_sync_all_bases)

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R0.1",
        title="del_timer_sync(): for a moment nobody knows that the timer runs",
        story=(
            "A CPU of Linux 2.6.0-test7 that expires a timer unlinks it and says that it is not pending (timer.base is "
            "NULL); then it says that it runs it (base.running_timer is the timer). It holds the lock of its base "
            "meanwhile. But del_timer_sync() acquires no lock for a timer that is not pending: it only reads the two "
            "variables. Between the two writes the timer looks neither pending nor running. So del_timer_sync() "
            "returns, its caller frees the timer, and then the handler starts. The remedy that was merged writes the "
            "two in the other order, with a write barrier between them."
        ),
        sources=(MOLNAR, ARCANGELI),
        variants=(
            Variant(
                "test7",
                "not pending first, then running",
                race(partial(early.Test7, cpus=1), uses_its_data, WITH_BREAK),
                breaks="del_timer_sync returned, and then H starts on cpu 0",
                preemptions=1,
            ),
            Variant(
                "order-fix",
                "running first, then not pending",
                race(partial(early.Kernel, cpus=1), uses_its_data, WITH_BREAK),
            ),
            Variant(
                "all-bases",
                "the old order, and a last look with the locks of all bases held",
                race(partial(early.Test7, cpus=1), uses_its_data, ALL_BASES),
            ),
        ),
    ),
    Exhibit(
        number="R0.2",
        title="del_timer_sync(): the timer is armed again and moves to another CPU",
        story=(
            "The handler runs on CPU 0 and has the timer armed on CPU 1. del_timer_sync() finds that CPU 0 runs the "
            "timer and waits for it. Then it looks at no other CPU, only once more whether the timer is pending. "
            "Meanwhile CPU 1 has expired it: it is not pending any more, and its handler runs there. So "
            "del_timer_sync() returns too early. To look at every CPU does not help, nor does it help to start again "
            "from CPU 0 until none runs the timer: each look is at one CPU at a time, and the timer can pass behind "
            "it. Ingo Molnar's remedy looks at all at once, with the locks of all bases held. That was thought too "
            "expensive for a path that every exit of a thread takes, and so only the order fix of R0.1 was merged. "
            "This race stayed until 2.6.13."
        ),
        sources=(MOLNAR, ARCANGELI, GUSTAFSON),
        variants=(
            Variant(
                "order-fix",
                "the order fix of R0.1, which does not help here",
                race(early.Kernel, early.rearms_on_cpu_1, WITH_BREAK),
                breaks="del_timer_sync returned",
                preemptions=2,
            ),
            Variant(
                "full-scan",
                "a look at every CPU, one after the other",
                race(early.Kernel, early.rearms_on_cpu_1, FULL_SCAN),
                breaks="del_timer_sync returned",
                preemptions=3,
            ),
            Variant(
                "rescan",
                "after each wait it starts again from CPU 0",
                race(early.Kernel, early.rearms_on_cpu_1, RESCAN),
                breaks="del_timer_sync returned",
                preemptions=3,
            ),
            Variant(
                "no-locks",
                "a last look at all bases, without their locks; the handler arms the timer twice",
                race(early.NoLocks, early.rearms_twice, ALL_BASES),
                breaks="del_timer_sync returned",
                preemptions=2,
            ),
            Variant(
                "all-bases",
                "the same with the locks of all bases held",
                race(early.Kernel, early.rearms_twice, ALL_BASES),
            ),
            Variant(
                "all-bases-old-order",
                "the handler arms the timer once, without the order fix, which the last look makes superfluous",
                race(early.Test7, early.rearms_on_cpu_1, ALL_BASES),
            ),
        ),
    ),
    Exhibit(
        number="R0.3",
        title="run_timers(): a field is cleared in a timer that its handler has freed",
        story=(
            "If the timer itself said on which base it runs, del_timer_sync() would have one place to look at. Ingo "
            "Molnar proposed that. But then run_timers() has to clear the field when the handler has returned, and a "
            "handler may free its own timer. Linus Torvalds refused the change for that reason. What runs must be "
            "noted in the base, which stays."
        ),
        sources=("Gustafson, linux-kernel, 10 May 2004, which cites marc l=linux-kernel m=106610555708068",),
        variants=(
            Variant(
                "running-in-timer",
                "the timer says where it runs, and its handler frees it",
                race(partial(early.RunningInTimer, cpus=1), early.frees_its_timer, early.uses_the_base),
                breaks="writes timer.running, which softirq0 has freed",
            ),
            Variant(
                "running-in-timer-kept",
                "the same, with a handler that frees nothing and a thread that deletes the timer",
                race(
                    partial(early.RunningInTimer, cpus=1),
                    uses_its_data,
                    deletes(early.RunningInTimer.del_timer_sync_one_place),
                ),
            ),
            Variant(
                "running-in-base",
                "the base says what it runs, and the handler frees the timer",
                race(partial(early.Kernel, cpus=1), early.frees_its_timer, early.uses_the_base),
            ),
        ),
    ),
    Exhibit(
        number="R0.4",
        title="del_timer_sync(): two instances of one handler",
        story=(
            "No handler has to arm its own timer for the race of R0.2. While the handler runs on CPU 0, a thread on "
            "CPU 1 arms the timer there, and CPU 1 expires it: two instances run at once. Now del_timer_sync() finds "
            "the one on CPU 0, waits for it, and leaves its loop by the break. The other one runs on. Gustafson "
            "described this in 2004, and Oleg Nesterov a year later for the single-shot timers of sunrpc. If nobody "
            "arms the timer any more while it is deleted, a loop without the break is enough: it waits for each "
            "instance. It is not enough if the handler does (R0.2)."
        ),
        sources=(GUSTAFSON, NESTEROV),
        variants=(
            Variant(
                "break",
                "it waits for the first CPU that runs the timer",
                race(early.Kernel, uses_its_data, early.rearms_and(WITH_BREAK)),
                breaks="del_timer_sync returned",
                preemptions=3,
            ),
            Variant(
                "full-scan",
                "it waits for one CPU after the other",
                race(early.Kernel, uses_its_data, early.rearms_and(FULL_SCAN)),
            ),
        ),
    ),
    Exhibit(
        number="R0.5",
        title="del_timer_sync(): pending and running, read under one lock",
        story=(
            "Oleg Nesterov's change of 2005 is the one that has lasted. timer.base is never cleared; whether the timer "
            "is pending is a bit of its own. While the handler runs, mod_timer() leaves the timer in the base that "
            "runs it. So del_timer_sync() locks the timer's base, looks again whether it still is that, and reads "
            "under this one lock whether the timer is pending and whether it runs. If it runs, it releases the lock, "
            "waits and tries again. The 2.4-aa kernels of Andrea Arcangeli did the same with a lock in each timer, "
            "which every call takes first. To wait once is not enough: the handler may have armed the timer, and that "
            "may have expired again before the delete looks, so the delete has to ask both once more. Two holes are "
            "left to the callers. A handler must not call add_timer_on(), which moves a timer without asking where it "
            "runs. And others must not arm a timer that was deleted: since 6.2 timer_shutdown_sync() sees to that, for "
            "a driver whose work item arms its timer."
        ),
        sources=(
            NESTEROV,
            "Oleg Nesterov, linux-kernel, 19 March 2005, [PATCH 3/5] timers: serialize timers",
            ARCANGELI,
            "Linux, kernel/time/timer.c, timer_delete_sync() and timer_shutdown_sync()",
        ),
        variants=(
            Variant(
                "2.6.13",
                "the handler arms its timer again, on another CPU",
                race(late.Kernel, late.rearms_on_cpu_1, late.deleter, ticks=2),
            ),
            Variant(
                "2.6.13-waits-once",
                "the same, and the delete does not ask again after it has waited",
                race(late.WaitsOnce, late.rearms_on_cpu_1, late.deleter, ticks=2),
                breaks="del_timer_sync returned while H runs on cpu 0",
                preemptions=3,
            ),
            Variant(
                "2.6.13-overlap",
                "the thread that deletes the timer arms it first, on another CPU",
                race(late.Kernel, uses_its_data, late.rearms_and_deletes, ticks=2),
            ),
            Variant(
                "2.6.13-add-timer-on",
                "the handler moves its timer to another CPU with add_timer_on()",
                race(late.Kernel, late.adds_on_cpu_1, late.deleter),
                breaks="del_timer_sync returned while H runs on cpu 0",
                preemptions=1,
            ),
            Variant(
                "2.6.13-moved",
                "another thread moves the timer while it is deleted",
                race(late.Kernel, None, late.moves, late.stops, then=late.is_kept),
            ),
            Variant(
                "no-second-look",
                "the same, and nobody looks again at timer.base when the lock of the base is held",
                race(late.NoSecondLook, None, late.moves, late.stops, then=late.is_kept),
                breaks="detach_timer unlinks a timer that is not in the list of cpu 0",
                preemptions=1,
            ),
            Variant(
                "2.4-aa",
                "a lock in the timer; the handler arms its timer again, on another CPU",
                race(late.TimerLock, late.rearms_on_cpu_1, late.deleter, ticks=2),
            ),
            Variant(
                "2.4-aa-waits-once",
                "the same, and the delete does not ask again after it has waited",
                race(late.TimerLockWaitsOnce, late.rearms_on_cpu_1, late.deleter, ticks=2),
                breaks="del_timer_sync returned while H runs on cpu 0",
                preemptions=3,
            ),
            Variant(
                "2.4-aa-overlap",
                "a lock in the timer; the thread that deletes it arms it first, on another CPU",
                race(late.TimerLock, uses_its_data, late.rearms_and_deletes, ticks=2),
            ),
            Variant(
                "armed-after-delete",
                "a work item arms the timer after timer_delete_sync()",
                race(late.Driver, uses_its_data, late.Driver.work, late.removes(shutdown=False)),
                breaks="flush_work returned while the timer is pending",
            ),
            Variant(
                "shutdown",
                "the same with timer_shutdown_sync()",
                race(late.Driver, uses_its_data, late.Driver.work, late.removes(shutdown=True)),
            ),
        ),
    ),
)
