"""An oracle for every scenario: what a CPU's lock guards is written only while that lock is held.

A write outside the lock does harm in few schedules, and what it does may look like a result that was returned in time.
So the write itself is what is looked at. A write that breaks the table is kept in ``Machine.faults``, which
``VirtualSMP.check()`` raises: raised on the spot it would be one more thing that the engine catches and reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

import callout
from callout import Callout
from callout._core.cpu import BY_BOTH, BY_LOOP, GUARDED, Cpu, Lane, Run
from callout._core.state import FIELDS
from callout._worlds.virtual.locks import CpuLock
from callout._worlds.virtual.platform import VirtualPlatform

_RECORDS: Final[Mapping[str, type]] = {"Cpu": Cpu, "Lane": Lane, "Run": Run, "Callout": Callout}
_slot: Final = FIELDS["c_cpu"]


def _cpu_of(record: object) -> object:
    """Return the CPU whose lock guards *record*; None while it is being made."""
    if isinstance(record, Cpu):
        return record
    try:
        return _slot.__get__(record) if isinstance(record, Callout) else object.__getattribute__(record, "cpu")
    except AttributeError:
        return None


def _itself(record: object) -> object:
    return record


def _breaks(cpu: object, guard: str) -> bool:
    """Whether the current context may not store what *guard* guards on *cpu*, a virtual one that is powered on."""
    if not isinstance(cpu, Cpu) or getattr(cpu, "id", -1) < 0:  # of a callout that was never initialised, or was freed
        return False
    lock = getattr(cpu, "lock", None)
    platform = cpu.machine.platform
    if not isinstance(lock, CpuLock) or not isinstance(platform, VirtualPlatform) or platform.off:
        return False
    if cpu.machine.faults is None:  # it is not powered on yet
        return False
    context = platform.current or platform.outside
    return context.cpu != cpu.id if guard == BY_LOOP else lock.holder is not context


def _checked(record: type, fields: Mapping[str, str]) -> Callable[[object, str, object], None]:
    fields_of = FIELDS if record is Callout else record.__dict__
    cpu_of: Callable[[object], Any] = (
        _itself if record is Cpu else fields_of["c_cpu" if record is Callout else "cpu"].__get__
    )
    by_one_lock = frozenset(name for name, guard in fields.items() if guard not in (BY_BOTH, BY_LOOP))
    store = object.__setattr__

    def write(self: object, name: str, value: object) -> None:
        if name in by_one_lock:
            # Nearly every write, and in order: the current context has the lock. All others are looked at below.
            try:
                lock = cpu_of(self).lock
                in_order = lock.holder is lock._platform.current is not None
            except AttributeError:
                in_order = False
            if in_order:
                store(self, name, value)
                return
        guard = fields.get(name)
        if guard is not None:
            cpu = _cpu_of(self)
            cpus = (cpu, value) if guard == BY_BOTH and isinstance(cpu, Cpu) and cpu.id >= 0 else (cpu,)
            for each in cpus:
                if _breaks(each, guard):
                    assert isinstance(each, Cpu)
                    faults = each.machine.faults
                    assert faults is not None
                    faults.append(
                        AssertionError(f"{type(self).__name__}.{name} of cpu {each.id} is written without {guard}")
                    )
        store(self, name, value)

    return write


@contextmanager
def lockset() -> Iterator[None]:
    """Watch every write in a ``with`` block: of the pure core, that is, for C code writes as it likes."""
    if callout.core == "compiled":
        yield
        return
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, fields in GUARDED.items():
            patch.setattr(_RECORDS[name], "__setattr__", _checked(_RECORDS[name], fields))
        yield
