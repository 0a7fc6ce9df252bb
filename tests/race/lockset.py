"""An oracle for every scenario: what a CPU's lock guards is written only while that lock is held.

A write outside the lock does harm in few schedules, and what it does may look like an answer that was given in time. So
the write itself is what is looked at. A write that breaks the table is kept in ``Machine.faults``, which
``VirtualSMP.check()`` raises: raised on the spot it would be one more thing that the engine catches and reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from callout import Callout
from callout._core.cpu import BY_LOOP, GUARDED, Cpu, Lane, Run
from callout._worlds.virtual.platform import CpuLock, VirtualPlatform

# Record -> the fields that belong to the lock of its CPU, as the module of the records says.
RECORDS: Final[Mapping[str, type]] = {"Cpu": Cpu, "Lane": Lane, "Run": Run, "Callout": Callout}
FIELDS: Final[Mapping[type, frozenset[str]]] = {
    RECORDS[name]: frozenset(field for field, guard in fields.items() if guard != BY_LOOP)
    for name, fields in GUARDED.items()
}


def _cpu_of(record: object) -> object:
    """Return the CPU whose lock guards *record*; None while it is being made."""
    if isinstance(record, Cpu):
        return record
    try:
        return object.__getattribute__(record, "cpu") if isinstance(record, Run | Lane) else _slot.__get__(record)
    except AttributeError:
        return None


_slot: Final = Callout.__dict__["cpu"]


def _unguarded(cpu: object) -> bool:
    """Whether the lock of *cpu* is one of a virtual CPU, and the current context does not hold it."""
    if not isinstance(cpu, Cpu):  # of a callout that was never initialised, or was freed
        return False
    lock = getattr(cpu, "lock", None)
    platform = cpu.machine.platform
    if not isinstance(lock, CpuLock) or not isinstance(platform, VirtualPlatform) or platform.off:
        return False
    if cpu.machine.faults is None:  # it is not powered on yet
        return False
    return lock.holder is not (platform.current or platform.outside)


def _checked(fields: frozenset[str]) -> Callable[[object, str, object], None]:
    def write(self: object, name: str, value: object) -> None:
        if name in fields:
            cpu = _cpu_of(self)
            cpus = (cpu, value) if name == "cpu" and isinstance(cpu, Cpu) else (cpu,)
            for each in cpus:
                if _unguarded(each):
                    assert isinstance(each, Cpu)
                    faults = each.machine.faults
                    assert faults is not None
                    faults.append(
                        AssertionError(f"{type(self).__name__}.{name} is written without the lock of cpu {each.id}")
                    )
        object.__setattr__(self, name, value)

    return write


@contextmanager
def lockset() -> Iterator[None]:
    """Watch every write in a ``with`` block."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for record, fields in FIELDS.items():
            patch.setattr(record, "__setattr__", _checked(fields))
        yield
