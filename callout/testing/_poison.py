"""The classes that freed objects get, and what is done to an object when it is freed.

A freed object keeps its memory and gets another class, a subclass of its own, in which every use raises. That class is
made without running any code of the user: no ``__init_subclass__``, no metaclass. It lives as long as anything has it.

Freeing is in two steps. ``Burial()`` finds everything that belongs to the object and makes everything that is needed;
if that fails, nothing has changed. ``carry_out()`` puts it into place and cannot fail. If a signal handler raises in
the middle of it, it is simply carried out again: what is done already is not done twice.
"""

from __future__ import annotations

import gc
import threading
import weakref
from abc import ABCMeta
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeVar, cast

from .._api.callout import Callout
from .._api.condvar9 import Cv
from .._api.event import Event
from .._api.sleepqueue import disown
from .._core import describe
from .._core.arm import arm, initialize, unschedule
from .._core.cpu import WAITING, Cpu, Run
from .._core.cpulock import acquire, lock_callout
from .._core.errors import ArgumentTypeError, CalloutError, UseAfterFree
from .._core.guard import exposed, protected
from .._core.machine import Machine
from .._core.platform import Platform
from .._core.sleep import Why, wake
from .._core.state import FIELDS, FRESH, MOVING
from .._core.trace import WITH_LOCK, TraceKind, tell
from .._core.weak import WeakValues
from .._locks.lock import Lock
from .._locks.mutex import Mtx
from .._locks.rwlock import RmLock, RwLock
from ._allocation import Allocation, GraveCpu, GraveLock
from ._parts import Parts, is_record, mro_of, namespace_of

T = TypeVar("T")

STACK: Final = 60  # calls, one within the other, that carrying out a burial may need
MUTEX: Final = threading.RLock()  # guards the books. Recursive: a finalizer may free something in the middle of it

_name_of = type.__dict__["__name__"].__get__
_class_of = object.__dict__["__class__"]


def name_of_class(obj: object) -> str:
    """Return the name of the class of *obj*, for a message."""
    return cast(str, _name_of(type(obj)))


# -- what is known of freed objects --------------------------------------------------------------------------------


class Grave(weakref.ref[object]):
    """What is known of one freed object, or part of one, while anybody still refers to it."""

    __slots__ = ("allocation", "key", "part")

    key: int
    allocation: Allocation[object]
    part: str  # what it is called in the object that was freed; "" for that itself


_GRAVES: Final[dict[int, Grave]] = {}


# The garbage collector tells weak references before it calls finalizers, and a finalizer may use what was freed. So
# what has died is only noted here, and forgotten at the next look, unless that is in a collection.
#
# Whatever the collector calls is C. A Ctrl-C that arrives during a collection is raised by the next Python code that
# runs; if that is a callback of the collector's or of a weak reference, the interpreter prints it and goes on, and the
# Ctrl-C is lost. Hence the queue, whose append() is what the weak references call, and the two keys: the one at the end
# is the phase that was entered last. The collector calls move_to_end(phase, info), and info is true.
_DEAD: Final[deque[weakref.ref[object]]] = deque()
_PHASES: Final = OrderedDict.fromkeys(("start", "stop"))
gc.callbacks.append(_PHASES.move_to_end)  # type: ignore[arg-type]  # its second argument may be anything


@protected
def _collecting() -> bool:
    """Whether this thread is in a garbage collection."""
    try:
        return next(reversed(_PHASES)) == "start"
    except RuntimeError:  # one has begun and ended since the iterator was made
        return False


@protected
def forget_dead() -> None:
    """Forget what has died, unless this is a finalizer's doing, in a collection."""
    while _DEAD and not _collecting():
        try:
            grave = _DEAD.popleft()
        except IndexError:  # another thread was faster
            return
        assert isinstance(grave, Grave)
        with MUTEX:
            if _GRAVES.get(grave.key) is grave:  # else its place was taken since
                del _GRAVES[grave.key]


def is_freed(obj: object) -> bool:
    """Whether *obj* was freed, or was part of what was freed."""
    return _MARK in namespace_of(type(obj))


def grave_of(obj: object) -> Grave | None:
    """Return what is known of a freed object; None if it was not freed."""
    return _look_up(obj) if is_freed(obj) else None


def _look_up(obj: object) -> Grave | None:
    if _DEAD:
        forget_dead()
    return _GRAVES.get(id(obj))


def _use(obj: object, what: str, how: str) -> NoReturn:
    """Raise, for a use of a freed object: *what* of it was used, and how."""
    grave = _look_up(obj)
    if grave is None:
        raise UseAfterFree(f"{type(obj).__name__}: its {what} {how}; a finalizer has kept it alive after it was freed")
    raise grave.allocation.used(f"{what} of its part {grave.part!r} {how}" if grave.part else f"its {what} {how}")


# -- classes -------------------------------------------------------------------------------------------------------

_MARK: Final = "__slab_freed__"


class _Shield:
    """Comes first among the bases of a class that is made here, and keeps it from the user's ``__init_subclass__``."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Do nothing."""


def _mro(cls: type) -> list[type]:
    first, *others = type.mro(cls)
    return [first, *others] if any(each is _Shield for each in others) else [first, _Shield, *others]


class _Meta(type):
    """The metaclass of the classes that are made here."""

    mro = _mro


# By the id of the class: the class that is made from it keeps it alive.
_METAS: Final[WeakValues[type[type]]] = WeakValues()
_FREED: Final[WeakValues[type]] = WeakValues()


def _subclass(cls: type, prefix: str, namespace: dict[str, object]) -> type:
    """Return a subclass of *cls* whose instances have the same memory."""
    meta = type(cls)
    made: type[type] | None = _Meta if meta is type else _METAS.get(id(meta))
    if made is None:
        made = type.__new__(type, _name_of(meta), (meta,), {"mro": _mro})
        _METAS.set(id(meta), made)
    new = ABCMeta.__new__ if issubclass(made, ABCMeta) else type.__new__
    module = namespace_of(cls).get("__module__")
    namespace |= {"__slots__": (), "__module__": module if type(module) is str else __name__}
    return new(made, f"{prefix}{_name_of(cls)}", (cls,), namespace)


def poison_for(call: str, obj: object) -> type:
    """Return the class that *obj* gets when it is freed.

    Raises:
        ArgumentTypeError: there can be none.
    """
    cls = type(obj)
    freed = _FREED.get(id(cls))
    if freed is None:
        try:
            weakref.ref(obj)
            # Tried with a class that changes nothing: another thread may be using it.
            _class_of.__set__(obj, _subclass(cls, "", {}))
            _class_of.__set__(obj, cls)
            freed = _subclass(cls, "Freed", _namespace(cls))
        except Exception as error:
            raise ArgumentTypeError(
                f"{call}: a {_name_of(cls)} cannot be poisoned ({error}); take an ordinary class, and if it has "
                "__slots__, add '__weakref__' to them (dataclass: weakref_slot=True)",
                call=call,
            ) from error
        _FREED.set(id(cls), freed)
    return freed


def _read(self: object, name: str) -> object:
    if name == "__class__":  # isinstance() asks for it
        return _class_of.__get__(self)
    _use(self, f"attribute {name!r}", "was read")


def _write(self: object, name: str, value: object) -> None:
    _use(self, f"attribute {name!r}", "was set")


def _delete(self: object, name: str) -> None:
    _use(self, f"attribute {name!r}", "was deleted")


def _describe(self: object) -> str:
    grave = _look_up(self)
    if grave is None:
        return "<freed>"
    part = f"part {grave.part!r} of " if grave.part else ""
    return f"<freed {part}{grave.allocation.name} ({grave.allocation.type_name})>"


def _format(self: object, spec: str) -> str:
    if spec:  # for its own class to interpret
        _use(self, "method __format__()", "was called")
    return str(self)


def _poisoned(name: str) -> Callable[..., NoReturn]:
    def use(self: object, *args: object, **kwargs: object) -> NoReturn:
        _use(self, f"method {name}()", "was called")

    use.__name__ = name
    return use


# These are no uses, belong to the class, or are never called of a freed object.
_KEPT: Final = frozenset(
    f"__{name}__"
    for name in (
        *("class", "class_getitem", "del", "delattr", "format", "getattribute", "init", "init_subclass", "new"),
        *("repr", "setattr", "set_name", "sizeof", "str", "subclasshook"),
    )
)


def _namespace(cls: type) -> dict[str, object]:
    """Return what the freed objects of *cls* have in place of what they had."""
    namespace: dict[str, object] = {_MARK: True, "__repr__": _describe, "__str__": _describe}
    namespace["__format__"] = _format
    if issubclass(cls, Callout):
        namespace |= {"__getattribute__": _read_callout, "__setattr__": _write_callout, "__repr__": _describe_callout}
        namespace["__str__"] = _describe_callout
    elif issubclass(cls, Lock):
        namespace |= {"__getattribute__": _read_lock, "holds": _holds}
        namespace |= {name: _use_lock(how) for name, how in _LOCK_USES.items()}
        if issubclass(cls, RwLock):
            namespace["_unlock"] = _unlock
    else:
        namespace |= {"__getattribute__": _read, "__setattr__": _write, "__delattr__": _delete}
    # Python looks special methods up in the class, and asks no __getattribute__.
    seen = {*namespace, *_KEPT}
    of_object = namespace_of(object)
    special: dict[str, object] = {"__bool__": _poisoned("__bool__")}
    for each in mro_of(cls):
        for name, value in list(namespace_of(each).items()):
            if name in seen or not (name.startswith("__") and name.endswith("__")):
                continue
            seen.add(name)
            if not is_record(each) and callable(value):
                special[name] = value if value is of_object.get(name) else _poisoned(name)
    if "__eq__" in special and "__hash__" not in special:
        special["__hash__"] = None  # as Python does, which would have it only of a class of its own
    if any("__del__" in namespace_of(each) for each in mro_of(cls)):
        namespace["__del__"] = object.__init__  # does nothing, in C: what was freed needs no finalizer
    return special | namespace


# -- a freed callout: softclock may still be about to end its run, and reads and writes the record for that ------------

_run = FIELDS["run"]
_cpu = FIELDS["c_cpu"]


def _read_callout(self: Callout, name: str) -> object:
    slot = FIELDS.get(name)
    if slot is not None and (name != "state" or _run.__get__(self) is not None):
        return slot.__get__(self)
    if name == "__class__":
        return _class_of.__get__(self)
    if slot is not None:
        _cpu.__get__(self).lock.refuse()
    _use(self, f"attribute {name!r}", "was read")


def _write_callout(self: Callout, name: str, value: object) -> None:
    if name in ("run", "state") and _run.__get__(self) is not None:
        FIELDS[name].__set__(self, value)
        return
    if name in FIELDS or name == "__class__":  # callout_init()
        _cpu.__get__(self).lock.refuse()
    _use(self, f"attribute {name!r}", "was set")


def _describe_callout(self: Callout) -> str:
    cpu = cast(object, _cpu.__get__(self))
    return f"<freed Callout {cpu.name!r} of {cpu.allocation.name}>" if isinstance(cpu, GraveCpu) else "<freed Callout>"


# -- a freed lock: its holder must be able to release it, and softclock to see whether it holds it ---------------------

_raw = Lock.__dict__["_raw"]
_me = Lock.__dict__["me"]

_LOCK_NAMES: Final = frozenset(name for cls in (*Mtx.__mro__, *RmLock.__mro__) for name in namespace_of(cls))
# What would not come to the raw lock, or would look at something else first. What acquires or releases comes to it.
_LOCK_USES: Final = {
    "__enter__": "",
    "assert_": "was asserted",
    "destroy": "was destroyed",
    "initialized": "was asked whether it is initialized",
    "owned": "was asked for its owner",
    "recursed": "was asked for its owner",
    "try_acquire": "",
    "trylock": "",
}


def _use_lock(how: str) -> Callable[..., NoReturn]:
    def use(self: Lock, *args: object, **kwargs: object) -> NoReturn:
        grave = _raw.__get__(self)
        assert isinstance(grave, GraveLock)
        if how:
            raise grave.used(how)
        grave.refuse()

    return use


def _read_lock(self: Lock, name: str) -> object:
    if name not in _LOCK_NAMES and name not in _LOCK_USES:
        _use(self, f"attribute {name!r}", "was read")
    return object.__getattribute__(self, name)


def _holds(self: Lock) -> bool:
    """Return whether this thread held it when it was freed, and has not released it. The engine asks, no user."""
    if isinstance(self, Mtx):
        return Mtx.owned(self)
    assert isinstance(self, RwLock)
    return RwLock.owned(self) or _me.__get__(self)() in self._readers


@protected
def _unlock(self: RwLock, call: str, shared: bool) -> NoReturn:
    """Release a read/write lock that was freed while it was held, and raise. The fields are those of its holders now:
    nobody else gets past the raw lock.
    """
    me = _me.__get__(self)()
    if me in self._readers if shared else RwLock.owned(self):
        if shared:
            self._readers[me] -= 1
            if not self._readers[me]:
                del self._readers[me]
        else:
            self._depth -= 1
            if not self._depth:
                self._writer = None
        self._note_released()
    grave = _raw.__get__(self)
    assert isinstance(grave, GraveLock)
    raise grave.used("was released")


# -- freeing -----------------------------------------------------------------------------------------------------------


class _StandIn(Callout):
    """Takes the place of a callout that was freed while it was scheduled."""

    __slots__ = ("grave",)

    grave: GraveCpu

    def __repr__(self) -> str:
        return f"<freed Callout {self.grave.name!r} of {self.grave.allocation.name}>"


@exposed
def _ask(parts: Callable[[T], Iterable[object]], obj: T) -> list[object]:
    """Call the user's function."""
    named = parts(obj)
    try:
        each = iter(named)
    except TypeError:
        raise ArgumentTypeError(
            f"Slab.free: the slab's parts function has returned a {name_of_class(named)}; it must return a collection "
            "of objects",
            call="Slab.free",
        ) from None
    return list(each)


class Burial:
    """Everything that freeing one object takes."""

    __slots__ = ("_steps", "old")

    def __init__(
        self,
        obj: object,
        allocation: Allocation[object],
        borrowed: Iterable[str],
        more: Callable[[object], Iterable[object]] | None,
        separate: Callable[[object], bool],
    ) -> None:
        """Find what belongs to *obj*, but for what is *separate*, and get everything ready; nothing is changed."""
        self.old: list[object] = []  # what is dropped; it dies when all is done
        self._steps: list[_Part] = []
        parts = Parts()
        parts.whole("", obj, frozenset(borrowed))
        if more is not None:
            for number, each in enumerate(_ask(more, obj)):
                if type(each) in _NO_PARTS:
                    raise ArgumentTypeError(
                        f"Slab.free: the slab's parts function named a {_name_of(type(each))}; it must give objects",
                        call="Slab.free",
                    )
                parts.named(f"parts[{number}]", each)
        machines: list[Machine] = []
        for name, part in parts.find():
            if part is not obj and (is_freed(part) or separate(part)):
                continue
            step = _PARTS[next((kind for kind in _PARTS if isinstance(part, kind)), object)](name, part, allocation)
            self._steps.append(step)
            machine = step.machine
            if machine is not None and all(machine is not each for each in machines):
                machines.append(machine)
        locks = {id(step.thing) for step in self._steps if isinstance(step, _LockPart)}
        for step in self._steps:
            if isinstance(step, _CalloutPart) and step.lock in locks:
                step.told += WITH_LOCK
        for machine in machines:
            _refuse_reentry(machine)
        _need_stack(STACK)

    @protected
    def carry_out(self) -> None:
        """Poison it all."""
        for step in self._steps:
            step.mark()
        for step in self._steps:
            step.carry_out(self.old)


def _need_stack(frames: int) -> None:
    """Raise RecursionError unless there is room on the stack for that many calls, one within the other.

    Called before a change that is followed by calls which must not fail: a finalizer may recurse to the limit.
    """
    if frames:
        _need_stack(frames - 1)


_NO_PARTS: Final = (type(None), bool, int, float, str, bytes)


def _refuse_reentry(machine: Machine) -> None:
    """Raise ReentrantCallError if this interrupts the engine in the middle of another call."""
    for cpu in machine.cpus:
        if cpu.busy and cpu.lock._is_owned():
            acquire(cpu)


class _Part:
    """One object to be poisoned."""

    __slots__ = ("_done", "_freed", "_grave", "machine", "platform", "thing")

    def __init__(self, name: str, thing: object, allocation: Allocation[object]) -> None:
        self.thing = thing
        self.machine: Machine | None = None
        self.platform: Platform | None = None
        self._freed = poison_for("Slab.free", thing)
        self._grave = Grave(thing, _DEAD.append)
        self._grave.key, self._grave.allocation, self._grave.part = id(thing), allocation, name
        self._done = False

    def mark(self) -> None:
        """Say to whom it belonged."""
        if self.platform is not None:
            self.platform.freed(self.thing)
        forget_dead()
        with MUTEX:
            _GRAVES[self._grave.key] = self._grave

    def carry_out(self, old: list[object]) -> None:
        """Poison it; what it refers to no longer goes to *old*."""
        _class_of.__set__(self.thing, self._freed)


class _LockPart(_Part):
    """A lock. What waits for it is woken, to find out."""

    __slots__ = ("_refusal",)

    def __init__(self, name: str, thing: object, allocation: Allocation[object]) -> None:
        super().__init__(name, thing, allocation)
        assert isinstance(thing, Lock)
        self.platform = thing.machine.platform
        self._refusal = GraveLock(allocation, f"its lock {thing.name!r}", _raw.__get__(thing))

    def carry_out(self, old: list[object]) -> None:
        assert isinstance(self.thing, Lock)
        if isinstance(self.thing, Mtx):
            Mtx.poison(self.thing, self._refusal)
        else:
            Lock.poison(self.thing, self._refusal)
        super().carry_out(old)


class _EventPart(_Part):
    """An event. What waits for it is woken, to find out."""

    __slots__ = ()

    def carry_out(self, old: list[object]) -> None:
        event = cast("Event", self.thing)
        machine, sleepers = _event_machine.__get__(event), _event_sleepers.__get__(event)
        super().carry_out(old)
        for sleeper in list(sleepers):
            wake(machine, sleeper, Why.EVENT)


_event_machine = Event.__dict__["_machine"]
_event_sleepers = Event.__dict__["_sleepers"]


class _CvPart(_Part):
    """A condition variable. What waits for it is woken, to find out."""

    __slots__ = ()

    def carry_out(self, old: list[object]) -> None:
        machine = _cv_machine.__get__(self.thing)
        super().carry_out(old)
        disown(machine, self.thing)


_cv_machine = Cv.__dict__["_machine"]


class _CalloutPart(_Part):
    """A callout. If it is scheduled then, a stand-in takes its place."""

    __slots__ = ("_cpu", "_fired", "_scheduled", "_stand_in", "lock", "told")

    def __init__(self, name: str, thing: object, allocation: Allocation[object]) -> None:
        super().__init__(name, thing, allocation)
        assert isinstance(thing, Callout)
        armed = "a place that only checking mode notes: open_callouts(checking=True)"
        machine = thing.c_cpu.machine if thing.c_cpu.id >= 0 else None
        if machine is not None and machine.origins is not None:
            armed = machine.origins.get(thing) or "no place: it never was"
        self.machine = machine
        self.platform = None if machine is None else machine.platform
        self._cpu = GraveCpu(allocation, name or type(thing).__name__, describe.name_of(thing.func), armed)
        self._fired = self._cpu.fired
        self.lock = id(thing.lock)
        self.told = allocation.name  # to a trace
        self._scheduled: tuple[Cpu, int] | None = None
        self._stand_in: _StandIn | None = None
        if machine is not None:
            stand_in = _StandIn()
            stand_in.grave = self._cpu
            try:
                initialize("Slab.free", machine, stand_in, None, 0)
            except CalloutError:  # the system was closed: nothing is scheduled, nothing will run
                return
            self._stand_in = stand_in

    def carry_out(self, old: list[object]) -> None:
        if not self._done:
            self._take_out(old)
        scheduled, stand_in = self._scheduled, self._stand_in
        if scheduled is not None and stand_in is not None:
            cpu, when = scheduled
            self._stand_in = None
            try:
                arm("Slab.free", stand_in, when, 0, self._fired, None, cpu)
            except CalloutError:  # the system is being closed: it will not run
                return

    @protected
    def _take_out(self, old: list[object]) -> None:
        """Take it away from the engine and poison it, and note where and when it would have run, if it would."""
        c, freed, fired, grave = cast("Callout", self.thing), self._freed, self._fired, cast("Cpu", self._cpu)
        cpu: Cpu | None = None
        if c.c_cpu.id >= 0:
            try:
                cpu = lock_callout(c)
            except CalloutError:  # the system was closed: nothing is scheduled, nothing runs
                pass
        try:
            run: Run | None = None
            if cpu is not None:
                run, to, when = c.run, cpu, c.time
                if c.state & MOVING and run is not None and run.move is not None:
                    to, when = run.move.cpu, run.move.time
                    old.append(run.move)
                scheduled = to, when
                if unschedule(cpu, c):
                    self._scheduled = scheduled
                if run is not None and run.state == WAITING:
                    # Nobody has cancelled it. If its lock is not poisoned, because it is borrowed, this is called.
                    old += (run.func, run.arg)
                else:
                    run = None
                if cpu.plain is None:
                    tell(cpu, TraceKind.FREED, c, None, None, self.told)
            # A reference to the object itself, mostly: without this only the garbage collector would find it.
            old += (c.func, c.arg, c.lock)
            # From here on there are plain stores only, as everywhere under a CPU's lock.
            self._done = True
            if run is not None:
                run.func, run.arg = fired, None
            c.state &= ~FRESH  # what was never initialised is initialised by a short path
            c.func = None
            c.lock = None  # a call shall find out that c was freed before it finds that this lock is not held
            c.arg = None
            c.c_cpu = grave
            c.__class__ = freed
        finally:
            if cpu is not None:
                cpu.busy = False
                cpu.lock.release()


_PARTS: Final[dict[type, type[_Part]]] = {
    Callout: _CalloutPart,
    Lock: _LockPart,
    Event: _EventPart,
    Cv: _CvPart,
    object: _Part,
}
