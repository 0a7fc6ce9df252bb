"""What the timers of Linux 2.6 have in common: a base for each CPU, with a lock, a list, and the timer that it runs.

There is one timer, so the list of a base holds it or nothing. ``base.running_timer`` is None, or the timer whose
handler the CPU runs. The kernels differ in what the timer itself says: whether it is pending, and in which base.

What spins in the kernel waits here, so that no schedule spins for ever.

A base's lock guards its list and its ``running_timer``, and what the timer says as long as it is in this base.

Source: kernel/timer.c, __run_timers().
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from .._worlds.virtual.models import Struct, cell_of, is_freed
from ..testing import VirtualSMP
from ._watch import Watch

K = TypeVar("K", bound="Bases")


class Bases(ABC):
    """The bases of some CPUs, and a timer that is pending on CPU 0."""

    def __init__(self, vm: VirtualSMP, cpus: int = 2, **fields: object) -> None:
        """*fields* are what the timer has besides its base and what its handler uses."""
        self.vm = vm
        self.watch = Watch(vm)
        self.bases = [
            vm.struct(f"base {cpu}", lock=vm.lock(f"base {cpu}"), queue=None, running_timer=None) for cpu in range(cpus)
        ]
        self.timer = vm.struct("timer", base=None, data="the device", **fields)
        self.link(self.bases[0])
        self.timer.base = self.bases[0]
        self.watch.armed()

    @contextmanager
    def locked(self, *bases: Struct | None) -> Iterator[None]:
        """Lock these bases in a block, in the order of their CPUs."""
        with ExitStack() as locks:
            for base in self.bases:
                if base in bases:
                    locks.enter_context(base.lock)
            yield

    @abstractmethod
    def begin(self, base: Struct) -> None:
        """Take the timer out of *base*, which is locked, and say that its handler runs."""

    @abstractmethod
    def pending_on(self) -> str:
        """Return on which CPU the timer is pending, or an empty string, for a message."""

    def link(self, base: Struct) -> None:
        """Put the timer into the list of *base*, which is locked."""
        with self.vm.setup():
            assert base.queue is None, "internal_add_timer links a timer that is linked"
        base.queue = self.timer

    def run_timers(self, cpu: int, handler: Callable[[int], None]) -> None:
        """Be the timer softirq of *cpu*, once: run the handler if the timer is in the base."""
        base = self.bases[cpu]
        with base.lock:
            if base.queue is None:
                return
            self.begin(base)
        handler(cpu)
        with base.lock:
            base.running_timer = None

    def runs(self) -> bool:
        """Return whether any CPU runs the handler."""
        return any(base.running_timer is self.timer for base in self.bases)

    def wait_while_running(self, base: Struct) -> bool:
        """Wait until the CPU of *base* does not run the handler; return whether it did."""
        timer = self.timer
        if base.running_timer is not timer:
            return False
        self.vm.wait_until(lambda: base.running_timer is not timer, f"{self.cpu_of(base)} to be done with the handler")
        return True

    def finish(self) -> None:
        """Look at what is left."""
        self.watch.finish(sum(cell_of(base, "queue").peek() is not None for base in self.bases))

    def cpu_of(self, base: Struct) -> str:
        """Return the name of its CPU."""
        return f"cpu {self.bases.index(base)}"


# -- what scenarios are made of -------------------------------------------------------------------------------------


def uses_its_data(kernel: Bases, cpu: int) -> None:
    """Be a handler that uses what its timer is for."""
    with kernel.watch.handler(f"cpu {cpu}"):
        assert kernel.timer.data


def deletes(del_timer_sync: Callable[[K], int]) -> Callable[[K], None]:
    """Return a thread that deletes the timer and throws it away."""

    def deleter(kernel: K) -> None:
        kernel.watch.stopped(del_timer_sync(kernel))
        kernel.watch.returned("del_timer_sync", kernel.pending_on)
        kernel.vm.free(kernel.timer)

    return deleter


def race(
    boot: Callable[[VirtualSMP], K],
    handler: Callable[[K, int], None] | None,
    *threads: Callable[[K], None],
    ticks: int = 1,
    then: Callable[[K], None] | None = None,
) -> Callable[[VirtualSMP], None]:
    """Return the scenario in which the softirq of each CPU races with some threads; without a handler, the threads.

    The softirq comes *ticks* times on each CPU. *then* is called at the end, to look at what is left; without it, the
    timer must have been freed.
    """

    def softirq(kernel: K, cpu: int, handler: Callable[[int], None]) -> None:
        for _ in range(ticks):
            kernel.run_timers(cpu, handler)

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            kernel = boot(vm)
        if handler is not None:
            for cpu in range(len(kernel.bases)):
                vm.spawn(softirq, kernel, cpu, partial(handler, kernel), name=f"softirq{cpu}")
        for thread in threads:
            vm.spawn(thread, kernel)
        vm.settle()
        kernel.finish()
        if then is None:
            assert is_freed(kernel.timer), "nobody has freed the timer"
        else:
            then(kernel)

    return scenario
