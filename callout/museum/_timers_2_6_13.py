"""Linux 2.6.13 and later, and 2.4-aa: "pending" and "running" are read under one lock, so a delete can trust them.

``timer.base`` is not cleared when the timer is not pending: that is a field of its own. And while the handler runs, the
timer stays in the base that runs it. So a thread that has locked the timer's base sees all that there is to see.

Only while ``mod_timer()`` takes a timer from one base to another is ``timer.base`` None, and then nobody can lock it.

Source: kernel/timer.c of 2.6.13, lock_timer_base(), __mod_timer(), add_timer_on(), try_to_del_timer_sync(); of 6.2,
timer_shutdown_sync().
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from .._worlds.virtual.models import Struct, is_freed
from ..testing import VirtualSMP
from ._bases import Bases, deletes


class PendingBit(Bases, ABC):
    """A timer that says whether it is pending, and keeps its base when it is not."""

    def __init__(self, vm: VirtualSMP, cpus: int = 2, **fields: object) -> None:
        super().__init__(vm, cpus, pending=False, **fields)

    def link(self, base: Struct) -> None:
        """Link the timer."""
        super().link(base)
        self.timer.pending = True

    def unlink(self, base: Struct) -> None:
        """Unlink the timer from *base*, which is locked."""
        with self.vm.setup():
            assert base.queue is self.timer, (
                f"detach_timer unlinks a timer that is not in the list of {self.cpu_of(base)}"
            )
        base.queue = None
        self.timer.pending = False

    def begin(self, base: Struct) -> None:
        """Unlink the timer, and say that its handler runs."""
        self.unlink(base)
        base.running_timer = self.timer

    def pending_on(self) -> str:
        """Return where it is pending."""
        return self.cpu_of(self.timer.base) if self.timer.pending else ""

    @abstractmethod
    def mod_timer(self, cpu: int) -> None:
        """Arm the timer on *cpu*, which is the one that calls this; if its handler runs, where that runs."""

    @abstractmethod
    def del_timer_sync(self) -> int:
        """Stop the timer and wait for its handler; return how often it was stopped."""


class Kernel(PendingBit):
    """2.6.13; and ``timer_shutdown_sync()``, which came with 6.2."""

    def __init__(self, vm: VirtualSMP, cpus: int = 2) -> None:
        super().__init__(vm, cpus, function="H")

    def lock_timer_base(self) -> Struct:
        """Lock the base that the timer is in, and return it."""
        timer = self.timer
        while True:
            base: Struct | None = timer.base
            if base is None:
                self.vm.wait_until(lambda: timer.base is not None, "mod_timer() to have moved the timer")
                continue
            base.lock.acquire()
            if not self.has_left(base):
                return base
            base.lock.release()

    def has_left(self, base: Struct) -> bool:
        """Return whether the timer has moved to another base before this one was locked."""
        return self.timer.base is not base

    def mod_timer(self, cpu: int) -> None:
        """Lock the timer's base, and that on *cpu* if the timer may go there."""
        timer, new = self.timer, self.bases[cpu]
        base = self.lock_timer_base()
        if timer.function is not None:
            was_pending = timer.pending
            if was_pending:
                self.unlink(base)
            if base is not new and base.running_timer is not timer:
                timer.base = None
                base.lock.release()
                new.lock.acquire()
                timer.base = base = new
            self.link(base)
            self.watch.armed(replaced=was_pending)
        base.lock.release()

    def add_timer_on(self, cpu: int) -> None:
        """Arm the timer, which is not pending, on *cpu*, without asking where its handler runs."""
        base = self.bases[cpu]
        with base.lock:
            self.timer.base = base
            self.link(base)
            self.watch.armed()

    def try_to_del_timer_sync(self, *, shutdown: bool = False) -> int:
        """Stop the timer; return whether it was pending, or -1 if its handler runs and nothing was done."""
        timer = self.timer
        base = self.lock_timer_base()
        if base.running_timer is timer:
            answer = -1
        else:
            answer = int(timer.pending)
            if answer:
                self.unlink(base)
            if shutdown:
                timer.function = None
        base.lock.release()
        return answer

    def del_timer_sync(self, *, shutdown: bool = False) -> int:
        """Try until the handler does not run.

        With *shutdown* it is ``timer_shutdown_sync()``: the timer has no function then, and cannot be armed any more.
        """
        while (answer := self.try_to_del_timer_sync(shutdown=shutdown)) < 0:
            self.vm.wait_until(lambda: not self.runs(), "the handler to return")
        return answer


class NoSecondLook(Kernel):
    """A mistake: ``lock_timer_base()`` looks at the timer's base before the lock only."""

    def has_left(self, base: Struct) -> bool:
        """Take for granted that it has not."""
        return False


class WaitsOnce(Kernel):
    """A mistake: a delete that has waited for the handler does not ask again whether it runs."""

    def del_timer_sync(self, *, shutdown: bool = False) -> int:
        """Wait for the handler once, then unlink what it has armed."""
        answer = self.try_to_del_timer_sync(shutdown=shutdown)
        if answer < 0:
            self.vm.wait_until(lambda: not self.runs(), "the handler to return")
            base = self.lock_timer_base()
            answer = int(self.timer.pending)
            if answer:
                self.unlink(base)
            base.lock.release()
        return answer


class TimerLock(PendingBit):
    """2.4-aa: every call acquires the timer's own lock first, so the timer's base cannot change meanwhile.

    The softirq does not take it, so a timer can expire while a call holds it: only the base's lock keeps that out.
    """

    def __init__(self, vm: VirtualSMP, cpus: int = 2) -> None:
        super().__init__(vm, cpus, lock=vm.lock("timer"))

    def mod_timer(self, cpu: int) -> None:
        """Lock the timer, then both bases."""
        timer, new = self.timer, self.bases[cpu]
        with timer.lock:
            base = timer.base
            with self.locked(base, new):
                was_pending = timer.pending
                if was_pending:
                    self.unlink(base)
                if base is not new and base.running_timer is not timer:
                    timer.base = base = new
                self.link(base)
                self.watch.armed(replaced=was_pending)

    def del_timer(self) -> tuple[int, Struct | None]:
        """Lock the timer, then its base; return how often it was pending, and the base if its handler runs there."""
        timer = self.timer
        with timer.lock:
            base = timer.base
            with base.lock:
                stopped = int(timer.pending)
                if stopped:
                    self.unlink(base)
                return stopped, base if base.running_timer is timer else None

    def del_timer_sync(self) -> int:
        """Do so until the timer is neither pending nor running."""
        stopped = 0
        while True:
            more, base = self.del_timer()
            stopped += more
            if base is None:
                return stopped
            self.wait_while_running(base)


class TimerLockWaitsOnce(TimerLock):
    """A mistake: a delete that has waited for the handler does not ask again whether it runs."""

    def del_timer_sync(self) -> int:
        """Wait for the handler once, then unlink what it has armed."""
        stopped, base = self.del_timer()
        if base is not None:
            self.wait_while_running(base)
            stopped += self.del_timer()[0]
        return stopped


# -- scenarios ------------------------------------------------------------------------------------------------------


def rearms_on_cpu_1(kernel: PendingBit, cpu: int) -> None:
    """Be a handler that has the timer armed on CPU 1 when it runs for the first time."""
    with kernel.watch.handler(f"cpu {cpu}") as run:
        if run == 1:
            kernel.mod_timer(1)
        assert kernel.timer.data


def adds_on_cpu_1(kernel: Kernel, cpu: int) -> None:
    """Be a handler that arms the timer on CPU 1 when it runs on CPU 0."""
    with kernel.watch.handler(f"cpu {cpu}"):
        if cpu == 0:
            kernel.add_timer_on(1)
        assert kernel.timer.data


@deletes
def deleter(kernel: PendingBit) -> int:
    """Be a thread that deletes the timer."""
    return kernel.del_timer_sync()


def rearms_and_deletes(kernel: PendingBit) -> None:
    """Be a thread on CPU 1 that arms the timer there, and then deletes it, whether its handler runs or not."""
    kernel.mod_timer(1)
    deleter(kernel)


def moves(kernel: PendingBit) -> None:
    """Be a thread on CPU 1 that arms the timer there."""
    kernel.mod_timer(1)


def stops(kernel: PendingBit) -> None:
    """Be a thread that deletes the timer, which is pending, and knows that others may arm it again."""
    stopped = kernel.del_timer_sync()
    kernel.watch.stopped(stopped)
    assert stopped == 1, "del_timer_sync has not stopped a timer that was pending"


def is_kept(kernel: PendingBit) -> None:
    """Find that the timer was not freed: others may still arm it."""
    assert not is_freed(kernel.timer)


class Driver(Kernel):
    """A driver with a timer and a work item, on one CPU. The work arms the timer, at most once."""

    def __init__(self, vm: VirtualSMP) -> None:
        super().__init__(vm, 1)
        self.work_is_done = vm.cell(False, "the work is done")

    def work(self) -> None:
        """Be the work item."""
        self.mod_timer(0)
        self.work_is_done.value = True


def removes(*, shutdown: bool) -> Callable[[Driver], None]:
    """Return a thread that deletes the timer, waits for the work, and throws all away."""

    def remover(driver: Driver) -> None:
        driver.watch.stopped(driver.del_timer_sync(shutdown=shutdown))
        driver.vm.wait_until(lambda: driver.work_is_done.value, "the work to be done")
        driver.watch.returned("flush_work", driver.pending_on)
        driver.vm.free(driver.timer)

    return remover
