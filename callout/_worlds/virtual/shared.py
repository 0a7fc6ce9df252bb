"""What several contexts use without a lock, and the uses of which the deterministic world notes.

The fields of a callout that are read without a lock: each such read is a switch point. Collections of the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from ..._api.callout import Callout
from ..._core.cpu import Cpu
from ..._core.sources import RACY
from ..._core.state import FIELDS, PENDING
from ..._core.weak import WeakValues
from .footprints import READS, WRITES

if TYPE_CHECKING:
    from .platform import VirtualPlatform

# In footprints a callout is several things: each part of it that is read with no lock, and what an oracle notes of it.
PARTS: Final = {name: part for part, name in enumerate(RACY)}
RESULTS: Final = len(PARTS)  # its runs, and the calls beside them
ENDS: Final = RESULTS + 1  # the ends of its calls


class Racy:
    """Makes the unlocked reads of a callout switch points."""

    __slots__ = ()


def _racy_field(name: str) -> property:
    slot = FIELDS[name]
    get, cpu_of = slot.__get__, _slot_cpu.__get__
    reads = f"reads the {name.removeprefix('c_')} of"
    is_state = name == "state"
    part = PARTS[name]

    def read(self: Callout) -> object:
        cpu = cpu_of(self)
        if cpu.id >= 0:
            platform = cpu.machine.platform
            if not (platform.current or platform.outside).cpu_locks:
                number = platform.number_of(self)
                platform.point((reads, number))
                platform.touch(number + part, READS)
        return get(self)

    def write(self: Callout, value: object) -> None:
        cpu = cpu_of(self)
        if cpu.id >= 0:
            platform = cpu.machine.platform
            platform.touch(platform.number_of(self) + part, WRITES)
            if is_state and value & PENDING and not get(self) & PENDING:  # type: ignore[operator]  # ints, both
                platform.asks_for_run(cpu.id)
        slot.__set__(self, value)
        if slot is _slot_cpu and isinstance(value, Cpu) and value.id >= 0:
            platform = cast("VirtualPlatform", value.machine.platform)
            platform.number_of(self)  # in the order in which they are initialised

    return property(read, write)


_slot_cpu = FIELDS["c_cpu"]
for _part in PARTS:
    setattr(Racy, _part, _racy_field(_part))

_RACY: Final[WeakValues[type]] = WeakValues()  # by the id of the class; weak: what a scenario defines goes with it


def racy(record: type) -> type:
    """Return a subclass of a callout record in which unlocked reads are switch points."""
    if issubclass(record, Racy):  # one that was freed
        return record
    made = _RACY.get(id(record))
    if made is None:
        made = type(record.__name__, (Racy, record), {"__slots__": (), "_plain": record})
        _RACY.set(id(record), made)
    return made


_RACY_CALLOUT: Final = racy(Callout)  # it stays


class _Shared:
    """A collection that notes its uses."""

    def __init__(self, platform: VirtualPlatform, number: int) -> None:
        super().__init__()
        self._platform = platform
        self._number = number


class SharedNothing:
    """Stands where a collection will be, empty."""

    def __init__(self, platform: VirtualPlatform, number: int) -> None:
        self.number = number
        self._platform = platform

    def __len__(self) -> int:
        self._platform.touch(self.number, READS)
        return 0


class SharedDeque(_Shared, deque[Any]):
    def __len__(self) -> int:
        self._platform.touch(self._number, READS)
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        self._platform.touch(self._number, READS)
        return super().__iter__()

    def append(self, item: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().append(item)

    def popleft(self) -> object:
        self._platform.touch(self._number, WRITES)
        return super().popleft()

    def remove(self, item: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().remove(item)


class SharedDict(_Shared, dict[Any, Any]):
    def __setitem__(self, key: object, value: object) -> None:
        self._platform.touch(self._number, WRITES)
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[Any]:
        self._platform.touch(self._number, READS)
        return super().__iter__()

    def pop(self, *args: object) -> object:
        self._platform.touch(self._number, WRITES)
        result: object = super().pop(*args)
        return result
