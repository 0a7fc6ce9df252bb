"""What small models of kernel code are made of: shared variables, structures, spin locks, interrupts.

Every read and every write is a step of its own, as is every acquiring and releasing of a lock: another context may run
before it. What a step uses is noted, so that schedules that differ only in the order of steps which have nothing to do
with one another need not all be run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, EnumType
from types import BuiltinFunctionType, FunctionType, MethodType, TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from ..._core.describe import name_of, shown
from ..._core.errors import ArgumentTypeError, LockNotHeldError, UseAfterFree
from ..._locks.lock import Lock
from .context import Blocker, Context
from .footprints import READS, RELEASES, TRIES, WORLD, WRITES, Footprint
from .locks import LockState
from .platform import VirtualPlatform
from .trail import At
from .visible import Visible, is_visible

V = TypeVar("V")


class Cell(Visible, Generic[V]):
    """A shared variable: ``cell.value`` reads it, ``cell.value = x`` writes it, each in one step."""

    __slots__ = ("_guard", "_number", "_platform", "_reads", "_updates", "_value", "_writes", "freed", "name")

    def __init__(self, platform: VirtualPlatform, name: str, value: V, guard: SpinLock | Lock | None = None) -> None:
        self._platform = platform
        self._guard = guard
        self.name = name
        number = self._number = platform.trail.number(name)
        self._reads: At = "reads", number
        self._writes: At = "writes", number
        self._updates: At = "updates", number
        self._value = value
        self.freed = ""  # by whom what it belongs to was freed

    def __repr__(self) -> str:
        return f"<{self.name} = {self._value!r}>"

    def _use(self, at: At, how: int) -> None:
        platform = self._platform
        platform.me()
        platform.point(at)
        platform.touch(self._number, how)
        if self.freed:
            platform.wrong(UseAfterFree(f"{platform.me().name} {at[0]} {self.name}, which {self.freed} has freed"))
        if self._guard is not None and not platform.still and not self._is_guarded(self._guard, how):
            said = f"{platform.me().name} {at[0]} {self.name} without {self._guard!r}, which guards it"
            platform.wrong(LockNotHeldError(said, lock=self._guard))

    def _is_guarded(self, guard: SpinLock | Lock, how: int) -> bool:
        """Whether the current context may use it so: with a read lock it may read."""
        if isinstance(guard, SpinLock):
            return guard.holder is self._platform.me()
        return guard.holds() if how == READS else guard.owned()

    @property
    def value(self) -> V:
        """Its value. Reading it is a step, and so is writing it."""
        self._use(self._reads, READS)
        self._share(self._value)
        if self._platform.notes is not None:
            self._note(f"-> {told(self._value)}")
        return self._value

    @value.setter
    def value(self, value: V) -> None:
        self._use(self._writes, WRITES)
        self._share(value)
        if self._platform.notes is not None:
            self._note(f"= {told(value)}")
        self._value = value

    def update(self, func: Callable[[V], V]) -> V:
        """Replace the value by *func* of it, in one step, and return the one before: an atomic operation."""
        self._use(self._updates, WRITES)
        old = self._value
        self._value = func(old)
        self._share(old)
        self._share(self._value)
        if self._platform.notes is not None:
            self._note(f"{told(old)} -> {told(self._value)}")
        return old

    def _share(self, value: V) -> None:
        """What a cell has in it can be used without the cell as well: the context may share it from now on."""
        platform = self._platform
        if platform.foot is not None and platform.current is not None and not is_visible(value):
            platform.current.pure = False
            platform.touch(WORLD, WRITES)

    def _note(self, what: str) -> None:
        """Note for a report what was read or written, if that was a step."""
        if self._platform.notes is not None and not self._platform.still:
            self._platform.notes.append(what)

    def peek(self) -> V:
        """Return the value, in no step: for assertions and reports about a run that is over."""
        if self._platform.current is not None:
            self._platform.touch(self._number, READS)
        return self._value

    def free(self, by: str) -> None:
        """Have every later use raise."""
        self._platform.touch(self._number, WRITES)
        self.freed = by


class SpinLock(LockState, Visible):
    """A spin lock, not recursive, for ``with lock:``. Acquiring and releasing it is a step each.

    A context that holds it and acquires it once more waits for ever, as in the kernel: a deadlock, which is found.
    """

    __slots__ = ("freed",)

    def __init__(self, platform: VirtualPlatform, name: str) -> None:
        super().__init__(platform, name)
        self.freed = ""

    def __repr__(self) -> str:
        return f"<SpinLock {self.name!r}{'' if self.holder is None else f' held by {self.holder.name}'}>"

    def acquire(self) -> None:  # type: ignore[override]  # nobody tries it
        """Acquire it, waiting while another context holds it."""
        platform = self._platform
        me = platform.me()
        platform.point(self._acquires)
        self._check(f"{me.name} acquires")
        while self.holder is not None:
            platform.block(self, self._waits)
        self._check(f"{me.name} acquires")
        platform.touch(self.number, WRITES)
        self.holder = me

    def try_acquire(self) -> bool:
        """Acquire it if it is free; return whether it was."""
        platform = self._platform
        me = platform.me()
        platform.point(self._acquires)
        self._check(f"{me.name} acquires")
        if self.holder is not None:
            platform.touch(self.number, READS)
            if platform.notes is not None:
                platform.notes.append(f"held by {self.holder.name}")
            return False
        platform.touch(self.number, WRITES | TRIES)
        self.holder = me
        return True

    def release(self) -> None:
        """Release it. Raises LockNotHeldError if the caller does not hold it."""
        platform = self._platform
        me = platform.me()
        if self.holder is not me:
            platform.wrong(LockNotHeldError(f"{me.name} releases {self!r}, which it does not hold"))
        platform.point(self._releases)
        self._check(f"{me.name} releases")
        self.holder = None
        platform.touch(self.number, RELEASES)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._platform.off:  # else it is thrown away where it stands
            self.release()

    def _check(self, what: str) -> None:
        if self.freed:
            self._platform.touch(self.number, READS)
            self._platform.wrong(UseAfterFree(f"{what} the lock {self.name!r}, which {self.freed} has freed"))

    def free(self, by: str) -> None:
        """Have every later use raise."""
        self._platform.touch(self.number, WRITES)
        self.freed = by


class Struct(Visible):
    """A structure: its fields are cells, used as plain attributes, so ``s.x = s.y`` is two steps.

    A field that is a ``SpinLock`` or another ``Struct`` at the beginning stays that, and reading it is no step.
    ``free(s)`` is one step; every use after it is ``UseAfterFree``, of the locks in it, too.
    """

    __slots__ = ("_cells", "_fixed", "_freed", "_frees", "_name", "_platform")

    _cells: dict[str, Cell[Any]]
    _fixed: dict[str, object]
    _freed: Cell[str]
    _name: str
    _platform: VirtualPlatform

    def __init__(self, platform: VirtualPlatform, name: str, fields: dict[str, object]) -> None:
        put = object.__setattr__
        put(self, "_platform", platform)
        put(self, "_name", name)
        put(self, "_fixed", {key: value for key, value in fields.items() if isinstance(value, SpinLock | Struct)})
        put(
            self,
            "_cells",
            {key: Cell(platform, f"{name}.{key}", value) for key, value in fields.items() if key not in self._fixed},
        )
        put(self, "_freed", Cell(platform, name, ""))

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - fields of any type
        cells = object.__getattribute__(self, "_cells")
        if name in cells:
            return cells[name].value
        fixed = object.__getattribute__(self, "_fixed")
        if name in fixed:
            return fixed[name]
        raise AttributeError(f"{self._name} has no field {name!r}; it has {', '.join((*cells, *fixed))}")

    def __setattr__(self, name: str, value: object) -> None:
        cell = self._cells.get(name)
        if cell is None:
            why = "is fixed" if name in self._fixed else "was not named when it was made"
            raise AttributeError(f"{self._name}.{name} cannot be written: that field {why}")
        cell.value = value


def cell_of(s: Struct, field: str) -> Cell[Any]:
    """Return the cell that is a field: for ``update()`` and ``peek()``."""
    return s._cells[field]


def cells_of(s: Struct) -> list[Cell[Any]]:
    """Return the cells that are its fields."""
    return list(s._cells.values())


def free(s: Struct) -> None:
    """Free a structure, in one step. Raises UseAfterFree if it was freed before."""
    if not isinstance(s, Struct):
        raise ArgumentTypeError(f"free: give a Struct, not {shown(s)}", call="free")
    platform = s._platform
    me = platform.me()
    platform.point(("frees", s._freed._number))
    platform.touch(s._freed._number, WRITES)
    if s._freed.freed:
        platform.wrong(UseAfterFree(f"{me.name} frees {s._name}, which {s._freed.freed} has freed: a double free"))
    s._freed.freed = me.name
    for cell in s._cells.values():
        cell.free(me.name)
    for part in s._fixed.values():
        if isinstance(part, SpinLock):
            part.free(me.name)


def is_freed(s: Struct) -> bool:
    """Return whether a structure was freed, in no step: for assertions about a run that is over."""
    return bool(s._freed.freed)


_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_BRACKETS: Final[Mapping[type, tuple[str, str]]] = {
    tuple: ("(", ")"),
    list: ("[", "]"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
    dict: ("{", "}"),
}
_LONGEST: Final = 60  # of a value that is told


def told(value: object, depth: int = 3) -> str:
    """Return how to show a value in a report, without running any code of the user's: that might be a step."""
    kind = type(value)
    if kind in _PLAIN:
        text = shown(value)
    elif kind is Struct:
        text = repr(value)
    elif kind in (Cell, SpinLock):
        text = f"<{cast('Cell[Any] | SpinLock', value).name}>"
    elif kind in _BRACKETS:
        first, last = _BRACKETS[kind]
        each: list[str] = ["…"]
        if depth and kind is dict:
            each = [
                f"{told(key, depth - 1)}: {told(its, depth - 1)}" for key, its in cast("dict[Any, Any]", value).items()
            ]
        elif depth:
            each = [told(its, depth - 1) for its in cast("Iterable[object]", value)]
        if kind in (set, frozenset):
            each.sort()  # their order is another one in another process
        text = f"{first}{', '.join(each)}{',' if kind is tuple and len(each) == 1 else ''}{last}"
    elif isinstance(kind, EnumType):
        text = f"{kind.__name__}.{cast('Enum', value)._name_}"
    elif kind in (FunctionType, MethodType, BuiltinFunctionType) or issubclass(kind, type):
        text = _local(name_of(value))
    elif kind is Context:
        text = cast("Context", value).name
    else:
        text = f"<{_local(type.__getattribute__(kind, '__qualname__'))}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _local(name: str) -> str:
    return name.rpartition("<locals>.")[2]


class Until:
    """What ``vm.wait_until()`` waits for."""

    __slots__ = ("_platform", "_pred", "_why")

    def __init__(self, platform: VirtualPlatform, pred: Callable[[], object], why: str) -> None:
        self._platform = platform
        self._pred = pred
        self._why = why

    @property
    def label(self) -> str:
        """What is waited for."""
        return self._why or f"{getattr(self._pred, '__qualname__', self._pred)}() to be true"

    def holds(self) -> bool:
        """Ask, in no step; what is read is noted for the current one."""
        platform = self._platform
        platform.still += 1
        try:
            return bool(self._pred())
        finally:
            platform.still -= 1

    def ready(self) -> bool:
        """Whether it holds. That somebody asks is no part of any step."""
        foot, self._platform.foot = self._platform.foot, None
        try:
            return self.holds()
        finally:
            self._platform.foot = foot


class Invariant:
    """What ``vm.invariant()`` looks at after every step that may have changed it."""

    __slots__ = ("_func", "_number", "_platform", "_reads", "_world")

    def __init__(self, platform: VirtualPlatform, func: Callable[[], object], *, world: bool) -> None:
        """*world*: it may look at what the platform does not see."""
        self._platform = platform
        self._func = func
        self._world: Footprint = {WORLD: READS} if world else {}
        self._number = platform.trail.number(f"the invariant {name_of(func)}")
        self._reads = self._world  # what it has looked at

    def look(self) -> None:
        """Look, in no step. Raises AssertionError if it does not hold.

        A step that has written what it reads conflicts with every other such step: the schedules that differ in their
        order are no repetitions of one another, since it sees the state between them.
        """
        platform, foot = self._platform, self._platform.foot
        if foot is not None and any(how != READS and number in self._reads for number, how in foot.items()):
            foot[self._number] = WRITES
        platform.foot = None if foot is None else {}
        platform.still += 1
        try:
            result = self._func()
        finally:
            platform.still -= 1
            self._reads, platform.foot = {**self._world, **(platform.foot or {})}, foot
        if result is not None and not result:
            raise AssertionError(f"the invariant {_local(name_of(self._func))} does not hold")


class Interrupted:
    """What a context waits for that an interrupt has suspended."""

    __slots__ = ("_before", "_handler", "done")

    def __init__(self, handler: Context, before: Blocker | None) -> None:
        self._handler = handler
        self._before = before
        self.done = False

    @property
    def label(self) -> str:
        """Which interrupt suspends it, or what it waited for before."""
        if self.done and self._before is not None:
            return self._before.label
        return f"the interrupt {self._handler.name} to return"

    def ready(self) -> bool:
        """Whether the interrupt has returned, and what it waited for before is there."""
        return self.done and (self._before is None or self._before.ready())


class InterruptLine:
    """The interrupts of one context, its victim: whether they are enabled, and whether one is being served."""

    __slots__ = ("_platform", "disabled", "label", "number", "serving", "victim")

    def __init__(self, platform: VirtualPlatform, victim: Context) -> None:
        self._platform = platform
        self.victim = victim
        self.number = platform.trail.number(f"the interrupts of {victim.name}")
        self.disabled = 0
        self.serving = False
        self.label = f"interrupts of {victim.name} to be enabled"

    def ready(self) -> bool:
        """Whether an interrupt may come."""
        return not self.disabled and not self.serving

    def serve(self, func: Callable[..., object], args: tuple[object, ...]) -> None:
        """Wait until the interrupt comes, which is at any moment, and run its handler on top of the victim."""
        platform, victim = self._platform, self.victim
        platform.block(self, ("waits to interrupt", self.number))
        platform.touch(self.number, WRITES)
        self.serving = True
        suspended = victim.waits_for = Interrupted(platform.me(), victim.waits_for)
        func(*args)
        suspended.done = True
        self.serving = False
        platform.touch(self.number, RELEASES)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Keep them out in a block of the victim's."""
        platform = self._platform
        platform.point(("disables", self.number))
        platform.touch(self.number, WRITES)
        self.disabled += 1
        try:
            yield
        finally:
            if not platform.off:
                platform.point(("enables", self.number))
                self.disabled -= 1
                if not self.disabled:
                    platform.touch(self.number, RELEASES)
