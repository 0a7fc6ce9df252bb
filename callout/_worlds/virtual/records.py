"""What the virtual platform reads of the engine's records: whether a CPU is at rest, and in order. All of it is here.

Called when nothing can run any more, or with the CPU's lock held, so nothing of it is a race.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

from ..._api.callout import Callout
from ..._core.cpu import Cpu
from ..._core.errors import ClosedError, LockError
from ..._core.invariants import check_cpu
from ..._core.lifecycle import stop_all
from ..._core.machine import Machine
from ..._core.platform import Waiter
from ..._core.rawlock import RawLock
from ..._core.refusal import Refusal
from ..._core.state import RUN_WORDS
from ..._core.wheel import callouts_of
from .locks import CpuLock
from .platform import VirtualPlatform
from .scheduler import LEFT


def idles(cpu: Cpu, waits_for: object) -> bool:
    """Whether softclock of *cpu*, which waits for that, has nothing to do and can still be woken."""
    return waits_for is not None and cpu.idle is waits_for


def idle_all(machine: Machine, waiters: Sequence[Waiter]) -> None:
    """Have every CPU be as its softclock leaves it when it finds nothing to do for the first time."""
    for cpu, waiter in zip(machine.cpus, waiters, strict=True):
        cpu.idle = waiter
        cpu.thread = "cpu", cpu.id


def standing(machine: Machine) -> Iterator[tuple[Callout, str, str]]:
    """Yield what stands in a queue, ``"queue"`` and of which lane, and what a lane is at, ``"run"`` and how far."""
    for cpu in machine.cpus:
        for lane in cpu.lanes:
            for c in callouts_of(lane.queue):
                yield c, "queue", str(lane)
            if lane.run is not None:
                yield lane.run.callout, "run", RUN_WORDS[lane.run.state]


def complaints(cpu: Cpu, event: int) -> Iterator[str]:
    """Yield what is left undone on *cpu*, whose softclock idles and whose event timer is set to *event*."""
    for lane in cpu.lanes:
        if lane.run is not None:
            yield f"{lane} is still at {lane.run.callout!r}"
        if lane.queue:
            yield f"{lane} has {len(list(callouts_of(lane.queue)))} callouts to run, and nothing will run them"
    if cpu.calls:
        yield f"{len(cpu.calls)} cross-CPU calls to cpu {cpu.id} were not taken"
    if cpu.deadline < event:
        yield f"the event timer of cpu {cpu.id} will expire later than its deadline"


def check(cpu: Cpu) -> None:
    """Assert the invariants of what *cpu*'s lock guards."""
    check_cpu(cpu)


def check_lock(cpu: Cpu) -> None:
    """Raise LockError if the lock of *cpu* is held."""
    lock = cpu.lock
    if isinstance(lock, CpuLock) and lock.holder is not None:
        raise LockError(f"{lock.holder.name} has ended, and still holds {lock.label}")


def watch(machine: Machine) -> None:
    """Look at every CPU whenever its lock is about to be released; keep what is found in ``Machine.faults``."""
    assert isinstance(machine.platform, VirtualPlatform)
    for cpu in machine.cpus:
        lock = cpu.lock
        assert isinstance(lock, CpuLock)
        lock.before_release = partial(_look, machine.platform, cpu)


def _look(platform: VirtualPlatform, cpu: Cpu) -> None:
    if getattr(platform.chooser, "repeats", False):
        return
    try:
        check_cpu(cpu)
    except AssertionError as error:  # raised here it would leave the lock held, and look like an error of the call
        assert cpu.machine.faults is not None
        cpu.machine.faults.append(error)


def check_released(machine: Machine) -> None:
    """Raise LockError if a thread or task holds a lock; all have ended."""
    for thread, locks in (machine.held or {}).items():
        name = " ".join(map(str, thread)) if isinstance(thread, tuple) else str(thread)
        raise LockError(f"{name} has ended, or idles, and still holds {locks}: they were never released")


class _FreeLock(RawLock):
    """A lock that nobody holds: the contexts are gone."""

    def acquire(self, blocking: bool = True, /) -> bool:
        return True

    def release(self, /) -> None:
        """Nobody waits."""

    def _is_owned(self, /) -> bool:
        return True


def shut(machine: Machine) -> None:
    """Leave nothing scheduled, and have every later call refused. The contexts are gone."""
    for cpu in machine.cpus:
        lock = cpu.lock
        cpu.lock = _FreeLock()
        cpu.busy = False
        # What a context was doing when it was thrown away is half done, and stopping everything may stumble over it.
        with contextlib.suppress(Exception):
            stop_all(cpu)
        cpu.busy = False
        cpu.open = False
        cpu.idle = None
        cpu.calls.clear()
        cpu.lock = Refusal(ClosedError, LEFT, lock)
