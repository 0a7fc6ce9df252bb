"""The kernel timer races of Linux 2.3.99: what a handler, and a delete that waits for it, may and may not do.

The model of the kernel is in ``_timers_2_3.py``; here are the drivers. H is the handler, ``deleter`` the thread that
deletes its timer.

Invariants: when a synchronous delete returns, the timer is neither pending nor running, and its handler does not start
any more; every arming either runs or is counted as stopped; what is freed is freed once and not used after that; a
timer that is unlinked is linked; every call returns.
"""

from __future__ import annotations

from typing import Final

from .._worlds.virtual.models import Struct, cell_of, is_freed
from ._exhibit import Exhibit, Variant
from ._timers_2_3 import Kernel, RunningTimer, WaitOnTimers, deletes, race

# -- handlers that use their device, and say that they are done, or not ---------------------------------------------


def without_timer_exit(kernel: Kernel) -> None:
    """Use the device."""
    assert kernel.device.data


def with_timer_exit(kernel: Kernel) -> None:
    """Use the device, then say that the handler is done."""
    assert kernel.device.data
    kernel.timer_exit()


def with_epilogue(kernel: Kernel) -> None:
    """Say that the handler is done, and return: the code that returns is in the module, as all of it."""
    kernel.timer_exit()
    assert kernel.device.data


# -- who frees the timer --------------------------------------------------------------------------------------------


def frees_the_timer(kernel: Kernel) -> None:
    """Be a handler that frees its own timer."""
    kernel.timer_exit()
    kernel.vm.free(kernel.timer)


def put(kernel: Kernel, thing: Struct) -> None:
    """Drop a reference to the timer, or to the device; the last one frees it."""
    if cell_of(thing, "refs").update(lambda refs: refs - 1) == 1:
        kernel.vm.free(thing)


def puts_its_reference(kernel: Kernel) -> None:
    """Be a handler that drops the reference of the arming that it is the run of."""
    kernel.timer_exit()
    put(kernel, kernel.timer)


def puts_both(kernel: Kernel) -> None:
    """Be a thread that deletes the timer, does not wait, and drops its own reference, and that of a stopped arming."""
    stopped = kernel.del_timer()
    kernel.watch.stopped(stopped)
    if stopped:
        put(kernel, kernel.timer)
    put(kernel, kernel.timer)


def frees_after(kernel: Kernel) -> None:
    """Be a thread that owns the timer: delete it, then free it."""
    deletes(Kernel.del_timer_sync)(kernel)
    kernel.vm.free(kernel.timer)


def timer_freed(kernel: Kernel) -> None:
    """Look whether the timer was freed; had it been twice, that would have been found."""
    assert is_freed(kernel.timer), "nobody has freed the timer"


def device_freed(kernel: Kernel) -> None:
    """Look whether the device was freed."""
    assert is_freed(kernel.device), "nobody has freed the device"


# -- a module that is unloaded --------------------------------------------------------------------------------------


def unloads(kernel: Kernel) -> None:
    """Be a thread that deletes the timer with del_timer_sync(), then frees the module, and the device in it."""
    kernel.watch.stopped(kernel.del_timer_sync())
    kernel.vm.free(kernel.device)


def unloads_after_wait(kernel: WaitOnTimers) -> None:
    """Be a thread that deletes the timer, waits for all handlers, then frees the module."""
    kernel.watch.stopped(kernel.del_timer_and_wait())
    kernel.vm.free(kernel.device)


# -- a handler that arms its timer again ----------------------------------------------------------------------------


def adds_again(kernel: Kernel) -> None:
    """Be a handler that arms its timer, then uses the device."""
    kernel.add_timer()
    assert kernel.device.data


def third_cpu(kernel: Kernel) -> None:
    """Be another thread that deletes the timer, and does not wait."""
    kernel.watch.stopped(kernel.del_timer())


def adds_if_open(kernel: Kernel) -> None:
    """Be a handler that arms its timer unless the device is being closed."""
    if kernel.device.open:
        kernel.add_timer()


def adds_if_open_locked(kernel: Kernel) -> None:
    """Do the same with the lock of the device held."""
    with kernel.device.lock:
        adds_if_open(kernel)


def closes(kernel: WaitOnTimers) -> None:
    """Be a thread that forbids the handler to arm its timer, deletes it, waits for all handlers, and frees all."""
    with kernel.device.lock:
        kernel.device.open = False
    deletes(WaitOnTimers.del_timer_and_wait, "wait_on_timers")(kernel)
    kernel.vm.free(kernel.timer)
    kernel.vm.free(kernel.device)


# -- a lock that both take ------------------------------------------------------------------------------------------


def locks_the_device(kernel: Kernel) -> None:
    """Be a handler that uses the device with its lock held, unless it is closed."""
    with kernel.device.lock:
        if kernel.device.open:
            assert kernel.device.data, "H uses the device after it was closed"


def locks_and_puts(kernel: Kernel) -> None:
    """Be that handler, and drop the reference to the device of the arming that it is the run of."""
    locks_the_device(kernel)
    put(kernel, kernel.device)


def shuts(kernel: Kernel) -> None:
    """Close the device, whose lock is held."""
    kernel.device.open = False
    kernel.device.data = ""


def deletes_with_lock(kernel: Kernel) -> None:
    """Be a thread that deletes the timer and waits, with the device locked."""
    with kernel.device.lock:
        shuts(kernel)
        deletes(Kernel.del_timer_sync)(kernel)


def deletes_and_does_not_wait(kernel: Kernel) -> None:
    """Be a thread that deletes the timer with the device locked, does not wait, and drops its references."""
    with kernel.device.lock:
        shuts(kernel)
        stopped = kernel.del_timer()
        kernel.watch.stopped(stopped)
    if stopped:
        put(kernel, kernel.device)
    put(kernel, kernel.device)


def deletes_without_lock(kernel: Kernel) -> None:
    """Be a thread that closes the device with the lock held, releases it, then deletes the timer and waits."""
    with kernel.device.lock:
        shuts(kernel)
    deletes(Kernel.del_timer_sync)(kernel)
    kernel.vm.free(kernel.device)


MORTON: Final = "Andrew Morton, linux-kernel, 26 May 2000, Re: kernel timer races"
SAVOCHKIN: Final = "Andrey Savochkin, linux-kernel, May 2000, Re: kernel timer races"
KUZNETSOV: Final = "Alexey Kuznetsov, netdev, May 2000, msg00300, on who may call del_timer_sync()"
COX: Final = "Alan Cox, linux-kernel, 25 May 2000, Re: kernel timer races, on wait_on_timers()"

SYNC: Final = deletes(Kernel.del_timer_sync)

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R1.1",
        title="del_timer_sync(): a handler that does not call timer_exit()",
        story=(
            "In Linux 2.3.99 the kernel sets timer.running before it calls a handler, and the handler clears it: it "
            "has to call timer_exit() at its end. del_timer_sync() spins while timer.running is set. If a handler does "
            "not call timer_exit(), the first del_timer_sync() after its first run spins for ever. Andrew Morton read "
            "35 of the 321 files that used timers, and found 8 of them correct. Linux 2.4 notes itself which timer it "
            "runs, and forgets it when the handler has returned."
        ),
        sources=(MORTON, "Linux 2.3.99, include/linux/timer.h, timer_exit()", "Linux 2.4, kernel/timer.c"),
        variants=(
            Variant(
                "no-timer-exit",
                "the handler does not call timer_exit()",
                race(Kernel, without_timer_exit, SYNC),
                breaks="deleter waits for the handler to be done, in timer_synchronize()",
            ),
            Variant("timer-exit", "the handler calls timer_exit()", race(Kernel, with_timer_exit, SYNC)),
            Variant(
                "running-timer",
                "2.4: the kernel notes which timer it runs",
                race(RunningTimer, without_timer_exit, SYNC),
            ),
        ),
    ),
    Exhibit(
        number="R1.2",
        title="del_timer_sync(): a handler that frees its timer",
        story=(
            "A handler may free its own timer, and then nobody else can delete that safely: del_timer_sync() would "
            "look at timer.running in freed memory, and with slab poisoning it would spin there for ever. Alexey "
            "Kuznetsov's rule: del_timer_sync() is for the one thread that owns the timer and alone has the right to "
            "destroy it. If the handler has the same right, count references. The timer that is armed has one, and so "
            "has the thread; a thread that stops the timer drops both, and a handler that runs drops that of its "
            "arming. The last one frees."
        ),
        sources=(MORTON, KUZNETSOV),
        variants=(
            Variant(
                "handler-frees",
                "the handler frees the timer, and another thread deletes it",
                race(Kernel, frees_the_timer, SYNC),
                breaks="which timer_bh has freed",
            ),
            Variant(
                "owner-frees",
                "only the thread that deletes the timer frees it",
                race(Kernel, with_timer_exit, frees_after, then=timer_freed),
            ),
            Variant(
                "reference-count",
                "the last of the two frees it, and nobody waits",
                race(Kernel, puts_its_reference, puts_both, then=timer_freed),
            ),
        ),
    ),
    Exhibit(
        number="R1.3",
        title="timer_exit() is not the end of the handler",
        story=(
            "A handler that has called timer_exit() has not returned yet. del_timer_sync() finds that it does not run "
            "any more, and its caller unloads the module. Then the rest of the handler executes code that is not there "
            "any more. So only the kernel can say that a handler is done, after it has returned. Alan Cox proposed "
            "something stronger: wait_on_timers() waits until no handler at all runs, so no handler's code is in use."
        ),
        sources=(MORTON, SAVOCHKIN, COX),
        variants=(
            Variant(
                "timer-exit",
                "the handler says that it is done, and then returns",
                race(Kernel, with_epilogue, unloads),
                breaks="timer_bh reads device.data, which deleter has freed",
                preemptions=1,
            ),
            Variant(
                "running-timer",
                "the kernel says that it is done, when it has returned",
                race(RunningTimer, with_epilogue, unloads, then=device_freed),
            ),
            Variant(
                "wait-on-timers",
                "del_timer(), then wait_on_timers()",
                race(WaitOnTimers, with_epilogue, unloads_after_wait, then=device_freed),
            ),
        ),
    ),
    Exhibit(
        number="R1.4",
        title="timer-race-6: del_timer() unlinks a timer that is not linked",
        story=(
            "Andrew Morton's patch timer-race-6 had del_timer() itself wait for the handler. It releases the lock of "
            "the list, waits, and acquires the lock again. By then the handler has armed its timer again, and "
            "del_timer() unlinks it. But in the gap a third CPU may have deleted the timer: then it is unlinked twice, "
            "and the list is broken. To ask first whether the timer is pending keeps the list in order. It is not "
            "enough for a delete that waits: in the gap the timer may also have expired, and its handler runs again. "
            "So start again after the wait, and look at both under the lock."
        ),
        sources=(MORTON, SAVOCHKIN),
        variants=(
            Variant(
                "timer-race-6",
                "after the wait it unlinks the timer without asking",
                race(
                    RunningTimer,
                    adds_again,
                    deletes(RunningTimer.del_timer_race_6, "del_timer"),
                    third_cpu,
                ),
                breaks="detach_timer unlinks a timer that is not linked",
                preemptions=1,
            ),
            Variant(
                "asks-again",
                "after the wait it unlinks the timer only if it is pending; it can expire a second time",
                race(RunningTimer, adds_again, deletes(RunningTimer.del_timer_asks_again, "del_timer"), ticks=2),
                breaks="del_timer returned while H runs on cpu 0",
                preemptions=3,
            ),
            Variant(
                "starts-again",
                "after the wait it starts again",
                race(
                    RunningTimer,
                    adds_again,
                    deletes(RunningTimer.del_timer_retries, "del_timer"),
                    third_cpu,
                ),
            ),
            Variant(
                "starts-again-two-runs",
                "the same without the third CPU, and the timer can expire a second time",
                race(RunningTimer, adds_again, deletes(RunningTimer.del_timer_retries, "del_timer"), ticks=2),
            ),
        ),
    ),
    Exhibit(
        number="R1.5",
        title="del_timer_sync() with a lock held that the handler takes",
        story=(
            "A driver deletes its timer with the lock of its device held, and waits for the handler. The handler waits "
            "for the lock. Neither goes on. That is why many calls of del_timer() could not simply become synchronous "
            "ones. A checker of the order of locks sees it only if it knows that a synchronous delete waits for the "
            "handler, as if the handler were a lock. The driver can delete the timer and not wait, if it leaves the "
            "device to a count of references: the one that is done with it last frees it. Or it marks the device as "
            "closed with the lock held, releases the lock, and then waits."
        ),
        sources=(MORTON,),
        variants=(
            Variant(
                "with-the-lock",
                "a synchronous delete with the lock held",
                race(RunningTimer, locks_the_device, deletes_with_lock),
                breaks="timer_bh waits for the lock 'device', which deleter holds",
                preemptions=1,
            ),
            Variant(
                "asynchronous",
                "the delete does not wait, and what is done last with the device frees it",
                race(RunningTimer, locks_and_puts, deletes_and_does_not_wait, then=device_freed),
            ),
            Variant(
                "lock-released",
                "closed with the lock held; then the delete waits, without it",
                race(RunningTimer, locks_the_device, deletes_without_lock, then=device_freed),
            ),
        ),
    ),
    Exhibit(
        number="R1.6",
        title="del_timer(), wait_on_timers(), and a flag that forbids to arm the timer",
        story=(
            "Is a flag that forbids the handler to arm its timer, with del_timer() and wait_on_timers() after it, as "
            "good as del_timer_sync()? A handler may have read the flag before it was set. Then del_timer() finds "
            "nothing, wait_on_timers() waits for the handler, and that arms the timer while it is waited for. So the "
            "flag helps only if the handler reads it, and arms the timer, with the lock held with which the flag is "
            "set: a handler that has read the old flag has armed its timer when the flag is set, and del_timer() finds "
            "it."
        ),
        sources=(MORTON, SAVOCHKIN, COX),
        variants=(
            Variant(
                "flag-without-lock",
                "the handler reads the flag without the lock",
                race(WaitOnTimers, adds_if_open, closes, ticks=2, then=device_freed),
                breaks="wait_on_timers returned while the timer is pending on the list",
                preemptions=1,
            ),
            Variant(
                "flag-with-lock",
                "it reads the flag and arms the timer with the lock held",
                race(WaitOnTimers, adds_if_open_locked, closes, ticks=2, then=device_freed),
            ),
        ),
    ),
)
