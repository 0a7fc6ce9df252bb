"""Which lock guards a callout: the lock of its CPU, which may change until that lock is held.

``c_cpu`` says on which CPU a callout is. It is read without a lock, because it says which lock to acquire.

Invariants: a callout is in the queue of one CPU at most, and is removed from a queue only when it is in it; every drain
returns.
"""

from __future__ import annotations

from typing import Final

from .._worlds.virtual.models import is_freed
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import Scenario

BLOCKED: Final = -1  # CPUBLOCK: the callout is between two CPUs


class Chased:
    """A callout whose CPU may change until the lock of that CPU is held."""

    def __init__(self, vm: VirtualSMP) -> None:
        self.vm = vm
        self.locks = [vm.lock(f"cc of CPU {cpu}") for cpu in (0, 1)]
        self.c = vm.struct("c", cpu=0, pending=False)

    def lock(self, *, looks_again: bool = True) -> int:
        """Do as ``callout_lock()``: acquire the lock of its CPU, and return which that is."""
        while True:
            cpu: int = self.c.cpu
            if cpu == BLOCKED:
                self.vm.wait_until(lambda: self.c.cpu != BLOCKED, "the callout to arrive at a CPU")
                continue
            self.locks[cpu].acquire()
            if not looks_again or self.c.cpu == cpu:
                return cpu
            self.locks[cpu].release()


def two_resets(*, looks_again: bool, blocks: bool = True) -> Scenario:
    """Return the scenario of two threads that arm one idle callout, each for a CPU of its own.

    *looks_again*: a thread that has acquired the lock of the callout's CPU looks once more whether it still is that.
    *blocks*: a callout that is moved belongs to no CPU meanwhile.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Chased(vm)
            queues = [vm.cell(0, f"how often c is in the queue of CPU {cpu}") for cpu in (0, 1)]

        def reset_on(cpu: int) -> None:
            at = it.lock(looks_again=looks_again)
            if it.c.pending:
                was = queues[at].update(lambda count: count - 1)
                assert was, f"c is removed from the queue of CPU {at}, and is not in it: two CPUs have c"
                it.c.pending = False
            if cpu != at:
                if blocks:
                    it.c.cpu = BLOCKED
                it.locks[at].release()
                it.locks[cpu].acquire()
                it.c.cpu = cpu
            queues[cpu].update(lambda count: count + 1)
            it.c.pending = True
            it.locks[cpu].release()

        vm.spawn(reset_on, 0, name="reset on CPU 0")
        vm.spawn(reset_on, 1, name="reset on CPU 1")
        vm.settle()
        assert sum(queue.value for queue in queues) == 1, "two CPUs have c: it is in both queues"

    return scenario


def freed_while_chased(*, told: bool) -> Scenario:
    """Return the scenario of a callout that is freed while another thread acquires the lock of its CPU to arm it.

    *told*: that thread arms it only while the owner's flag allows that, and reads the flag with the owner's lock held.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Chased(vm)
            lock = vm.lock("the owner's lock")
            is_open = vm.cell(True, "the owner's flag")

        def arm() -> None:
            cpu = it.lock()
            it.c.pending = True
            it.locks[cpu].release()

        def reset() -> None:
            if told:
                with lock:
                    if is_open.value:
                        arm()
            else:
                arm()

        def owner() -> None:
            if told:
                with lock:
                    is_open.value = False
            cpu = it.lock()
            it.c.pending = False
            it.locks[cpu].release()
            vm.free(it.c)

        vm.spawn(reset)
        vm.spawn(owner)
        vm.settle()
        assert is_freed(it.c), "nobody has freed the callout"

    return scenario


def drained_while_moved(*, starts_over: bool) -> Scenario:
    """Return the scenario of a drain that sleeps, of a callout that runs on CPU 0 and then on CPU 1.

    The lock of the sleep queue comes before that of the CPU, so the drain releases the one to acquire both.
    *starts_over*: if the callout is on another CPU by then, it tries again. The two softclocks are one thread: the
    second begins when the first has ended.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Chased(vm)
            sleepers = [vm.lock(f"sleep queue of CPU {cpu}") for cpu in (0, 1)]
            cpus = [vm.struct(f"cc of CPU {cpu}", current=cpu == 0, waiting=False, woken=False) for cpu in (0, 1)]

        def run_ends(cpu: int, moves_to: int | None = None) -> None:
            with it.locks[cpu]:
                cpus[cpu].current = False
                waiting = cpus[cpu].waiting
                if waiting:
                    moves_to = None  # a drain has the migration dropped
                if moves_to is not None:
                    it.c.cpu = BLOCKED
            if waiting:
                with sleepers[cpu]:
                    cpus[cpu].woken = True
            if moves_to is not None:
                with it.locks[moves_to]:
                    it.c.cpu = moves_to
                    cpus[moves_to].current = True  # it fires at once
                run_ends(moves_to)

        def sleep(cpu: int) -> None:
            vm.wait_until(lambda: cpus[cpu].woken, "the wake-up")

        def drain() -> None:
            queue: int | None = None  # whose sleep queue is locked
            while True:
                cpu = it.lock()
                if starts_over and queue is not None and queue != cpu:
                    it.locks[cpu].release()
                    sleepers[queue].release()
                    queue = None
                    continue
                runs = cpus[cpu].current
                if runs and queue is not None:
                    cpus[cpu].waiting = True
                it.locks[cpu].release()
                if runs and queue is None:
                    sleepers[cpu].acquire()
                    queue = cpu
                    continue
                if queue is not None:
                    sleepers[queue].release()
                    if runs:
                        sleep(queue)
                with vm.setup():
                    for cpu in (0, 1):
                        assert not cpus[cpu].current, f"the drain returned while the callback runs on CPU {cpu}"
                return

        vm.spawn(run_ends, 0, 1, name="softclock")
        vm.spawn(drain)

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.8",
        title="the CPU of a callout changes while its lock is acquired",
        story=(
            "Which lock guards a callout depends on the CPU where it is, and that may change until the lock is held. "
            "So callout_lock() reads c_cpu, acquires the lock of that CPU and reads c_cpu again. If it is another one "
            "by now, it starts over. While a callout is moved, c_cpu is CPUBLOCK: no lock guards it, and others wait. "
            "Without the second look a thread works on the callout under the lock of the wrong CPU. Then the callout "
            "gets into the queues of two CPUs, and both softclocks own it. A drain that sleeps has the same to do: it "
            "releases the CPU's lock to acquire that of the sleep queue, and has to look again where the callout is. "
            "Else it sleeps at the old CPU, and the new one wakes nobody. No look helps against a callout that is "
            "freed meanwhile: c_cpu itself is in it. Its owner has to tell the others first."
        ),
        sources=("kern_timeout.c, callout_lock() and callout_cpu_switch()",),
        variants=(
            Variant(
                "no-second-look",
                "c_cpu is not read again under the lock",
                two_resets(looks_again=False),
                breaks="two CPUs have c",
                preemptions=1,
            ),
            Variant(
                "no-cpublock",
                "c_cpu names the old CPU while the callout is moved",
                two_resets(looks_again=True, blocks=False),
                breaks="two CPUs have c",
                preemptions=1,
            ),
            Variant(
                "freed-meanwhile",
                "the callout is freed before the second look",
                freed_while_chased(told=False),
                breaks="which owner has freed",
            ),
            Variant(
                "told-first",
                "nobody arms it any more when it is freed: a flag, read and set under the owner's lock, forbids it",
                freed_while_chased(told=True),
            ),
            Variant(
                "sleeps-at-the-old-cpu",
                "a drain sleeps where the callout was before the lock of the sleep queue was acquired",
                drained_while_moved(starts_over=False),
                breaks="drain waits for the wake-up",
                preemptions=2,
            ),
            Variant(
                "starts-over",
                "a drain whose callout has moved meanwhile starts over",
                drained_while_moved(starts_over=True),
            ),
            Variant(
                "second-look", "c_cpu is read again, and starts over if it has changed", two_resets(looks_again=True)
            ),
        ),
    ),
)
