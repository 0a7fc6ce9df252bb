"""Linux 2.6.0-test7, and what was tried to make ``del_timer_sync()`` wait for every handler.

``timer.base`` says in which base the timer is pending, None if in none, and is read without a lock; only
``base.running_timer`` says that the handler runs. No lock guards the two together, and the races are between them.

Source: kernel/timer.c of 2.6.0-test7, mod_timer(), del_timer(), del_timer_sync().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from .._worlds.virtual.models import Struct
from ..testing import VirtualSMP
from ._bases import Bases


class Kernel(Bases):
    """The order fix is in it: a CPU says that the handler runs before it says that the timer is not pending."""

    def begin(self, base: Struct) -> None:
        """Unlink the timer."""
        base.queue = None
        base.running_timer = self.timer
        self.timer.base = None

    def pending_on(self) -> str:
        """Return where it is pending."""
        base = self.timer.base
        return "" if base is None else self.cpu_of(base)

    def mod_timer(self, cpu: int) -> None:
        """Arm the timer on *cpu*, which is the one that calls this, wherever it is pending now."""
        timer, new = self.timer, self.bases[cpu]
        while True:
            old = timer.base
            with self.locked(old, new):
                if timer.base is old:
                    if old is not None:
                        old.queue = None
                    self.link(new)
                    timer.base = new
                    self.watch.armed(replaced=old)
                    return

    def del_timer(self) -> int:
        """Stop the timer if it is pending; return whether it was. Does not wait for its handler."""
        timer = self.timer
        while True:
            base = timer.base
            if base is None:
                return 0
            with base.lock:
                if timer.base is base:
                    base.queue = None
                    timer.base = None
                    return 1

    def wait_for_the_first(self) -> None:
        """Wait for the first CPU that runs the handler, and look at no other after it: the ``break``."""
        for base in self.bases:
            if self.wait_while_running(base):
                break

    def wait_for_each(self) -> None:
        """Wait for one CPU after the other."""
        for base in self.bases:
            self.wait_while_running(base)

    def wait_and_look_again(self) -> None:
        """Wait for a CPU that runs the handler, and start again from CPU 0, until a whole look finds none."""
        while any(self.wait_while_running(base) for base in self.bases):
            pass

    def del_timer_sync(self, wait: Callable[[Kernel], None] = wait_for_the_first) -> int:
        """Stop the timer and wait for its handler, until it is not pending; return how often it was stopped."""
        stopped = 0
        while True:
            stopped += self.del_timer()
            wait(self)
            if self.timer.base is None:
                return stopped

    def all_locked(self) -> AbstractContextManager[None]:
        """Lock all bases in a block."""
        return self.locked(*self.bases)

    def del_timer_sync_all_bases(self) -> int:
        """Do as ``del_timer_sync()``, but look last at all bases, with all of them locked."""
        stopped = 0
        while True:
            stopped += self.del_timer()
            self.wait_for_the_first()
            with self.all_locked():
                if self.timer.base is None and not self.runs():
                    return stopped


class NoLocks(Kernel):
    """A mistake: the last look at all bases is made without their locks."""

    @contextmanager
    def all_locked(self) -> Iterator[None]:
        """Lock none."""
        yield


class Test7(Kernel):
    """A CPU says first that the timer is not pending."""

    def begin(self, base: Struct) -> None:
        """Unlink the timer."""
        base.queue = None
        self.timer.base = None
        base.running_timer = self.timer  # too late for a look between the two


class RunningInTimer(Kernel):
    """The timer says where it runs, so there is one place to look at."""

    def __init__(self, vm: VirtualSMP, cpus: int = 2) -> None:
        super().__init__(vm, cpus, running=None)

    def run_timers(self, cpu: int, handler: Callable[[int], None]) -> None:
        """Run the handler if the timer is in the base."""
        base = self.bases[cpu]
        with base.lock:
            timer = base.queue
            if timer is None:
                return
            base.queue = None
            timer.running = base
            timer.base = None
        handler(cpu)
        timer.running = None  # if the handler has not freed it

    def del_timer_sync_one_place(self) -> int:
        """Stop the timer and wait for its handler, until it is not pending; return how often it was stopped."""
        return self.del_timer_sync(
            lambda _: self.vm.wait_until(lambda: self.timer.running is None, "the handler to return")
        )


# -- scenarios ------------------------------------------------------------------------------------------------------


def rearms_on_cpu_1(kernel: Kernel, cpu: int) -> None:
    """Be a handler that has the timer armed on CPU 1 when it runs on CPU 0."""
    with kernel.watch.handler(f"cpu {cpu}"):
        if cpu == 0:
            kernel.mod_timer(1)
        assert kernel.timer.data


def rearms_twice(kernel: Kernel, cpu: int) -> None:
    """Be a handler that has the timer armed on the other CPU, twice in all."""
    with kernel.watch.handler(f"cpu {cpu}") as run:
        if run <= 2:
            kernel.mod_timer(1 - cpu)
        assert kernel.timer.data


def frees_its_timer(kernel: Kernel, cpu: int) -> None:
    """Be a handler that frees its timer, as it may: nobody deletes this one."""
    with kernel.watch.handler(f"cpu {cpu}"):
        kernel.vm.free(kernel.timer)


def uses_the_base(kernel: Kernel) -> None:
    """Be a thread that arms another timer on CPU 0: here it only acquires the lock."""
    with kernel.bases[0].lock:
        pass


def rearms_and(delete: Callable[[Kernel], None]) -> Callable[[Kernel], None]:
    """Return a thread on CPU 1 that arms the timer there, and then deletes it, whether its handler runs or not."""

    def deleter(kernel: Kernel) -> None:
        kernel.mod_timer(1)
        delete(kernel)

    return deleter
