"""Linux 2.3.99: one list of timers, one lock, and handlers that say themselves that they are done.

``timerlist_lock`` guards the list and ``timer.linked``. There is one timer, so the list holds it or nothing. A bottom
half, of which only one runs at a time, expires the timers: the thread ``timer_bh``.

What spins in the kernel waits here, so that no schedule spins for ever.

Source: kernel/timer.c and include/linux/timer.h of 2.3.99, run_timer_list(), del_timer_sync(), timer_exit(); of 2.4 for
a kernel that notes itself which timer it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._worlds.virtual.models import cell_of
from ..testing import VirtualSMP
from ._watch import Watch

K = TypeVar("K", bound="Kernel")


class Kernel:
    """2.3.99: the kernel sets ``timer.running``, and the handler clears it when it calls ``timer_exit()``."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.watch = Watch(vm)
        self.lock = vm.lock("timerlist_lock")
        self.list = vm.struct("timer list", first=None, running_timer=None, in_handler=False)
        self.timer = vm.struct("timer", linked=False, running=False, refs=2)
        self.device = vm.struct("device", lock=vm.lock("device"), open=True, refs=2, data="the device")
        self.link()

    def link(self) -> None:
        """Put the timer into the list, which is locked."""
        with self.vm.setup():
            assert not self.timer.linked, "internal_add_timer links a timer that is linked"
        self.list.first = self.timer
        self.timer.linked = True
        self.watch.armed()

    def detach(self) -> int:
        """Take the timer out of the list, which is locked; return how often, as deletes do."""
        with self.vm.setup():
            assert self.timer.linked, "detach_timer unlinks a timer that is not linked"
        self.list.first = None
        self.timer.linked = False
        return 1

    def detach_if_pending(self) -> int:
        """Take the timer out of the list if it is there; return whether it was."""
        return self.detach() if self.timer.linked else 0

    def begin(self) -> None:
        """Say that the handler runs. The list is locked."""
        self.timer.running = True

    def timer_exit(self) -> None:
        """Say, in the handler, that it is done."""
        self.timer.running = False

    def end(self) -> None:
        """Say that the handler has returned."""

    def is_running(self) -> bool:
        """Return whether the handler runs."""
        return bool(self.timer.running)

    def run_timer_list(self, handler: Callable[[], None]) -> None:
        """Be the bottom half, once: run the handler if the timer is in the list."""
        with self.lock:
            if self.list.first is None:
                return
            self.detach()
            self.begin()
        handler()
        self.end()

    def add_timer(self) -> None:
        """Arm the timer, which is not pending."""
        with self.lock:
            self.link()

    def del_timer(self) -> int:
        """Stop the timer if it is pending; return whether it was. Does not wait for its handler."""
        with self.lock:
            return self.detach_if_pending()

    def synchronize(self) -> None:
        """Wait until the handler does not run."""
        self.vm.wait_until(lambda: not self.is_running(), "the handler to be done, in timer_synchronize()")

    def del_timer_sync(self) -> int:
        """Stop the timer and wait for its handler, until it does not run; return how often it was stopped."""
        stopped = 0
        while True:
            with self.lock:
                stopped += self.detach_if_pending()
                running = self.is_running()
            if not running:
                return stopped
            self.synchronize()

    def pending_on(self) -> str:
        """Return where the timer is pending, for a message."""
        return "the list" if self.timer.linked else ""


class RunningTimer(Kernel):
    """2.4: the kernel notes which timer it runs, until the handler has returned. ``timer_exit()`` is not needed."""

    def begin(self) -> None:
        """Note it."""
        self.list.running_timer = self.timer

    def timer_exit(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Forget it."""
        with self.lock:
            self.list.running_timer = None

    def is_running(self) -> bool:
        """Return whether the handler runs."""
        return self.list.running_timer is self.timer

    def del_timer_race_6(self) -> int:
        """Stop the timer, and if its handler runs, what that adds again: it takes for granted that it does."""
        with self.lock:
            if not self.is_running():
                return self.detach_if_pending()
        self.synchronize()
        with self.lock:
            return self.detach()

    def del_timer_asks_again(self) -> int:
        """Do the same, but ask whether the timer is pending."""
        with self.lock:
            if not self.is_running():
                return self.detach_if_pending()
        self.synchronize()
        with self.lock:
            return self.detach_if_pending()

    def del_timer_retries(self) -> int:
        """Start again after the wait."""
        while True:
            with self.lock:
                if not self.is_running():
                    return self.detach_if_pending()
            self.synchronize()


class WaitOnTimers(Kernel):
    """Alan Cox's proposal: ``wait_on_timers()`` waits until the bottom half runs no handler at all."""

    def begin(self) -> None:
        """Note that some handler runs."""
        self.list.in_handler = True

    def end(self) -> None:
        """Note that none does."""
        self.list.in_handler = False

    def wait_on_timers(self) -> None:
        """Wait until none does."""
        self.vm.wait_until(lambda: not self.list.in_handler, "all handlers to return, in wait_on_timers()")

    def del_timer_and_wait(self) -> int:
        """Stop the timer if it is pending, then wait."""
        stopped = self.del_timer()
        self.wait_on_timers()
        return stopped


# -- what scenarios are made of -------------------------------------------------------------------------------------


def deletes(del_timer: Callable[[K], int], name: str = "del_timer_sync") -> Callable[[K], None]:
    """Return a thread that deletes the timer, and knows then that it neither runs nor will."""

    def deleter(kernel: K) -> None:
        kernel.watch.stopped(del_timer(kernel))
        kernel.watch.returned(name, kernel.pending_on)

    return deleter


def race(
    boot: Callable[[VirtualSMP], K],
    handler: Callable[[K], None],
    *threads: Callable[[K], None],
    ticks: int = 1,
    then: Callable[[K], None] = lambda _: None,
) -> Callable[[VirtualSMP], None]:
    """Return the scenario in which the bottom half, which comes *ticks* times, races with some threads.

    *then* is called at the end, to look at what is left.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            kernel = boot(vm)

        def run() -> None:
            with kernel.watch.handler("cpu 0"):
                handler(kernel)

        def timer_bh() -> None:
            for _ in range(ticks):
                kernel.run_timer_list(run)

        vm.spawn(timer_bh)
        for thread in threads:
            vm.spawn(thread, kernel, name="deleter")
        vm.settle()
        kernel.watch.finish(cell_of(kernel.list, "first").peek() is not None)
        then(kernel)

    return scenario
