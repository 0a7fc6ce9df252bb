"""The locks of the deterministic world: acquiring and releasing them are switch points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..._core.rawlock import RawLock
from .context import Context
from .footprints import READS, RELEASES, TRIES, WRITES
from .trail import At

if TYPE_CHECKING:
    from .platform import VirtualPlatform


class LockState(RawLock):
    """What every kind of lock here has: a name, a holder, and words for what is done with it."""

    __slots__ = ("_acquires", "_platform", "_releases", "_waits", "holder", "name", "number")

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        self._platform = platform
        self.name = name
        number = self.number = platform.trail.number(f"the lock {name!r}")
        self._acquires: At = "acquires", number
        self._waits: At = "waits for", number
        self._releases: At = "releases", number
        self.holder: Context | None = None

    @property
    def label(self) -> str:
        """Its name and its holder."""
        return f"the lock {self.name!r}" + ("" if self.holder is None else f", which {self.holder.name} holds")

    def ready(self) -> bool:
        """Whether the lock is free."""
        return self.holder is None


class VirtualLock(LockState):
    """A raw lock whose acquiring and releasing are switch points. Recursive, as ``threading.RLock`` is."""

    __slots__ = ("_depth",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self._releases = "has released", self.number  # it is a switch point after that
        self._depth = 0

    def _is_owned(self, /) -> bool:
        """Whether this thread holds the lock: for the tasks of one CPU any of them, as on a loop."""
        holder = self.holder
        return holder is not None and holder.thread == (self._platform.current or self._platform.outside).thread

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock, once more if this thread holds it; without *blocking*, return False if another holds it."""
        platform = self._platform
        me = platform.current
        if me is None or platform.off:
            me = platform.me()
        else:
            platform.point(self._acquires)
        holder = self.holder
        if holder is not None:
            if holder.thread == me.thread:
                self._depth += 1
                return True
            if not blocking:
                platform.touch(self.number, READS)
                if platform.notes is not None:
                    platform.notes.append(f"held by {holder.name}")
                return False
            platform.block(self, self._waits)
        platform.touch(self.number, WRITES if blocking else WRITES | TRIES)
        self.holder = me
        self._depth = 1
        return True

    def release(self, /) -> None:
        """Release the lock as often as it was acquired. RuntimeError if this thread does not hold it, as an RLock."""
        self._check_owned()
        self._drop()

    def _check_owned(self) -> Context:
        """Return the current context, whose thread holds the lock."""
        me = self._platform.current or self._platform.outside
        if self.holder is not me and not self._is_owned():
            raise RuntimeError(f"cannot release un-acquired lock: {me.name} does not hold {self.label}")
        return me

    def _drop(self) -> None:
        self._depth -= 1
        if not self._depth:
            self.holder = None
            self._platform.touch(self.number, RELEASES)
            self._platform.point(self._releases)


class CpuLock(VirtualLock):
    """The lock of a CPU: with one held, nothing that a callout's record says can change, so reading it is no point."""

    __slots__ = ("before_release",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self.before_release: Callable[[], None] | None = None  # looks at what the lock guards, while it does

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire the lock and count it."""
        if not VirtualLock.acquire(self, blocking):
            return False
        (self._platform.current or self._platform.outside).cpu_locks += 1
        return True

    def release(self, /) -> None:
        """Release the lock."""
        me = self._check_owned()
        if self.before_release is not None and self._depth == 1 and not self._platform.off:
            self.before_release()
        me.cpu_locks -= 1
        self._drop()
