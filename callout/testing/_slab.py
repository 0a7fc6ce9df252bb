"""A slab of objects that finds what is used after it was freed.

Python frees nothing that anybody can still reach, so the bugs of teardown code hide: what C would have crashed on
goes on working. A ``Slab`` makes them show. What is freed is *poisoned*:

- the object's class becomes one whose every attribute raises ``UseAfterFree``;
- a ``Lock`` in it raises when it is taken or given up, and who waits for it is woken, to find out;
- a ``Callout`` in it raises in every call. If it is still scheduled then, softclock still holds on to it: a stand-in
  takes its place and raises at the moment at which softclock would have come to it. If softclock stands at its lock,
  it finds the poisoned lock.

Memory is never handed out again, but names are: a slot of the slab gets a new *generation* each time it is reused, so a
report says which of the objects that had this place it was.

Nothing of this costs the engine anything: poison is a lock that refuses (``_state.Refusal``), put where the real one
was. The text of a report is made when it is raised, from the stack as it is then.

Prior art: SLUB poisoning and debugobjects of Linux, UMA's trash destructors of FreeBSD, the quarantine of
AddressSanitizer.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import FrameType, MemberDescriptorType, new_class
from typing import Final, Generic, NoReturn, ParamSpec, TypeVar, cast

import trio
from trio.lowlevel import enable_ki_protection

from .._core import frames, softclock
from .._core.arm import arm, initialize, unschedule
from .._core.cpu import WAITING, Cpu, Run
from .._core.cpulock import lock_callout
from .._core.errors import ArgumentTypeError, ArgumentValueError, CalloutError, UseAfterFree
from .._core.machine import CURRENT
from .._core.platform import RawLock
from .._core.refusal import Refusal
from .._core.state import MOVING, Callout
from .._locks.lock import Lock

P = ParamSpec("P")
T = TypeVar("T")

MAX_REPORTS: Final = 1000
CALLERS: Final = 2  # how many are noted with a place


# -- who, and where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the code, and who was there."""

    who: str  # a task, a thread, or softclock of a CPU
    file: str
    line: int
    function: str
    callers: tuple[str, ...]  # the functions that called it, the nearest first: two at most

    def __str__(self) -> str:
        chain = " <- ".join(f"{name}()" for name in (self.function, *self.callers))
        return f"{self.who} at {self.file}:{self.line} in {chain}"


def _look() -> tuple[Where, Run | None]:
    """Return who called, and the run of softclock that this happens in, if it does."""
    frame: FrameType | None = sys._getframe(1)
    at = frame
    users: list[FrameType] = []
    run: Run | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        at = frame
        if not frames.is_own(frame):
            users.append(frame)
        elif file == softclock.__file__ and isinstance(found := frame.f_locals.get("run"), Run):
            run = found
            break
        frame = frame.f_back
    at = users[0] if users else at
    assert at is not None
    callers = tuple(user.f_code.co_qualname for user in users[1 : 1 + CALLERS] if not _of_trio(user))
    return Where(_who(run), at.f_code.co_filename, at.f_lineno, at.f_code.co_qualname, callers), run


def _of_trio(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "trio"


def _who(run: Run | None) -> str:
    if run is not None:
        return str(run.lane)
    machine = CURRENT.get(None)
    if machine is not None:
        thread = machine.platform.current_thread()
        if not isinstance(thread, int):  # a virtual one
            return f"cpu {thread[1]}" if isinstance(thread, tuple) else f"thread {thread!r}"
    name = threading.current_thread().name
    if trio.lowlevel.in_trio_task():
        return f"task {trio.lowlevel.current_task().name} of thread {name!r}"
    return f"thread {name!r}"


# -- what is known of an object ------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class Allocation(Generic[T]):
    """One object of a slab: which, and what became of it."""

    name: str  # "pcb 17, generation 3": slab, slot, and how often that was used
    type_name: str
    allocated: Where
    obj: T | None  # while it is not freed
    slab: Slab[T]
    freed: Where | None = None

    def __str__(self) -> str:
        end = "" if self.freed is None else f", freed by {self.freed}"
        return f"{self.name} ({self.type_name}), allocated by {self.allocated}{end}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def used(self, how: str, grave: _GraveCpu | None = None) -> UseAfterFree:
        """Return the error for a use, by whoever calls."""
        where, run = _look()
        if grave is None and run is not None:
            cpu = run.callout.cpu
            if isinstance(cpu, _GraveCpu) and cpu.allocation is self:
                grave = cpu
        lines = [
            f"{self.name} ({self.type_name}) was used after it was freed: {how}",
            f"used by {where}",
            f"freed by {self.freed}",
            f"allocated by {self.allocated}",
        ]
        if grave is not None:
            lines.append(f"callout {grave.name!r}, function {grave.function}, armed at {grave.armed}")
        text = "\n  ".join(lines)
        self.slab._report(text)
        error = UseAfterFree(text)
        machine = CURRENT.get(None)
        if machine is not None and machine.faults is not None:
            machine.faults.append(error)  # the user's code may catch it, and the schedule has gone wrong all the same
        return error


class _Grave(Refusal):
    """Stands where the raw lock of something freed was."""

    __slots__ = ("_allocation", "_cpu", "_what")

    def __init__(
        self, allocation: Allocation[object], what: str, inner: RawLock | None = None, cpu: _GraveCpu | None = None
    ) -> None:
        super().__init__(UseAfterFree, what, inner)
        self._allocation = allocation
        self._what = what
        self._cpu = cpu

    def acquire(self, blocking: bool = True) -> NoReturn:
        """Raise: a lock is taken, or a callout used."""
        how = self._what if self._cpu is not None else f"{self._what} was taken"
        raise self._allocation.used(how, self._cpu)

    def release(self) -> None:
        """Release what was held when it was freed, and raise: giving a lock up is a use, too."""
        super().release()
        raise self._allocation.used(f"{self._what} was given up")


class _GraveCpu:
    """Stands where the CPU of a freed callout was. Its number is nobody's, so each call looks here before anything."""

    __slots__ = ("allocation", "armed", "function", "lock", "name")

    id: Final = -2

    def __init__(self, allocation: Allocation[object], name: str, function: str, armed: str) -> None:
        self.allocation = allocation
        self.name = name
        self.function = function
        self.armed = armed
        self.lock = _Grave(allocation, f"a call was made for its callout {name!r}", cpu=self)

    def fired(self, arg: object = None) -> None:
        """Raise, in the place of the callback."""
        raise self.allocation.used(f"softclock ran its callout {self.name!r}, which nobody had stopped", self)


_state = Callout.__dict__["state"]


class _FreedCallout(Callout):
    """The class of a freed callout. Softclock may still be about to end its run, and reads its state for that."""

    __slots__ = ()

    def __repr__(self) -> str:
        cpu = cast(object, self.cpu)
        return f"<freed Callout {cpu.name!r} of {cpu.allocation.name}>" if isinstance(cpu, _GraveCpu) else "<Callout>"


def _read_state(c: Callout) -> object:
    if c.run is None:
        c.cpu.lock.acquire()  # raises
    return _state.__get__(c)


def _write_state(c: Callout, value: int) -> None:
    if c.run is None:
        c.cpu.lock.acquire()  # raises
    _state.__set__(c, value)


setattr(_FreedCallout, "state", property(_read_state, _write_state))  # noqa: B010 - mypy: over a slot of the record


class _StandIn(Callout):
    """Takes the place of a callout that was freed while it was scheduled."""

    __slots__ = ("grave",)

    grave: _GraveCpu

    def __repr__(self) -> str:
        return f"<freed Callout {self.grave.name!r} of {self.grave.allocation.name}>"


# -- poisoning -----------------------------------------------------------------------------------------------------

# id -> what is known of a freed object, while anybody still refers to that object.
_GRAVES: Final[dict[int, tuple[weakref.ref[object], Allocation[object]]]] = {}
_FREED: Final[weakref.WeakValueDictionary[type, type]] = weakref.WeakValueDictionary()  # weak: see _RACY


def _read(self: object, name: str) -> object:
    if name == "__class__":  # isinstance() asks for it
        return object.__getattribute__(self, name)
    raise _GRAVES[id(self)][1].used(f"its attribute {name!r} was read")


def _write(self: object, name: str, value: object) -> None:
    raise _GRAVES[id(self)][1].used(f"its attribute {name!r} was set")


def _delete(self: object, name: str) -> None:
    raise _GRAVES[id(self)][1].used(f"its attribute {name!r} was deleted")


def _describe(self: object) -> str:
    grave = _GRAVES.get(id(self))
    return "<freed>" if grave is None else f"<freed {grave[1].name} ({grave[1].type_name})>"


def _freed_class(cls: type) -> type:
    """Return the class that freed objects of *cls* get: a subclass, so that its memory looks the same."""
    made = _FREED.get(cls)
    if made is None:
        namespace: dict[str, object] = {"__slots__": (), "__module__": cls.__module__, "__repr__": _describe}
        if issubclass(cls, Callout):
            del namespace["__repr__"]
            made = type(f"Freed{cls.__name__}", (_FreedCallout, cls), namespace)
        else:
            namespace |= {"__getattribute__": _read, "__setattr__": _write, "__delattr__": _delete}
            if hasattr(cls, "__del__"):  # what was freed needs no finalizer
                namespace["__del__"] = lambda self: None
            made = new_class(f"Freed{cls.__name__}", (cls,), {}, lambda body: body.update(namespace))
        _FREED[cls] = made
    return made


def _members(obj: object, borrowed: Collection[str]) -> Iterator[tuple[str, Callout | Lock]]:
    """Yield the callouts and locks that *obj* is or has, in containers too, and what they are called there."""
    if isinstance(obj, Callout | Lock):
        yield type(obj).__name__, obj
    values: dict[str, object] = {}
    for cls in type(obj).__mro__:
        if cls not in _RECORDS and not (issubclass(cls, Lock) and cls.__module__ == Lock.__module__):
            for name, member in vars(cls).items():
                if isinstance(member, MemberDescriptorType):
                    try:
                        values.setdefault(name, member.__get__(obj))
                    except AttributeError:  # never set
                        continue
    values |= getattr(obj, "__dict__", {})
    seen: set[int] = set()
    todo = [(name, value) for name, value in values.items() if name not in borrowed]
    while todo:
        name, value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Callout):
            yield name, value
        elif isinstance(value, Lock):
            if value is not value.machine.giant:
                yield name, value
        elif isinstance(value, dict):
            todo += ((f"{name}[{key!r}]", each) for key, each in value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            todo += ((f"{name}[{number}]", each) for number, each in enumerate(value))


_RECORDS: Final = (Callout, object)


@enable_ki_protection
def _take_out(c: Callout, grave: _GraveCpu) -> tuple[Cpu, int] | None:
    """Take *c* away from the engine and poison it; return where and when it would have run, if it would."""
    scheduled = None
    cpu: Cpu | None = None
    if c.cpu.id >= 0:
        try:
            cpu = lock_callout(c)
        except CalloutError:  # the system was closed: nothing is scheduled, nothing runs
            pass
    try:
        if cpu is not None:
            run, to, when = c.run, cpu, c.time
            if c.state & MOVING and run is not None and run.move is not None:
                to, when = run.move.cpu, run.move.time
            if unschedule(cpu, c):
                scheduled = to, when
            if run is not None and run.state == WAITING:
                # Nobody has cancelled it. If its lock is not poisoned, because it is borrowed, this is called instead.
                run.func, run.arg = grave.fired, None
        c.lock = None  # a call shall find out that c was freed before it finds that this lock is not held
        c.arg = None  # mostly the object itself: without this only the garbage collector would find it
        freed = _freed_class(type(c))
        c.cpu = cast("Cpu", grave)
        c.__class__ = freed
    finally:
        if cpu is not None:
            cpu.busy = False
            cpu.lock.release()
    return scheduled


def _bury_callout(c: Callout, name: str, allocation: Allocation[object]) -> None:
    function = getattr(c.func, "__qualname__", repr(c.func))
    armed = "a place that only checking mode notes: open_callouts(checking=True)"
    machine = c.cpu.machine if c.cpu.id >= 0 else None
    if machine is not None and machine.origins is not None:
        armed = machine.origins.get(c) or "no place: it never was"
    grave = _GraveCpu(allocation, name, function, armed)
    scheduled = _take_out(c, grave)
    if scheduled is None or machine is None:
        return
    cpu, when = scheduled
    stand_in = _StandIn()
    stand_in.grave = grave
    try:
        initialize("Slab.free", machine, stand_in, None, 0)
        arm("Slab.free", stand_in, when, 0, grave.fired, None, cpu)
    except CalloutError:  # the system is being closed: it will not run
        return


# -- the slab ------------------------------------------------------------------------------------------------------


class Slab(Generic[T]):
    """Objects that are allocated and freed explicitly, so that misuse shows.

    ::

        slab: Slab[Session] = Slab("session")
        session = slab.alloc(Session, peer)  # a Session
        ...
        slab.free(session)
        session.peer  # UseAfterFree: which session, freed by whom where, used by whom where

        assert not slab.leaks()

    The callouts and locks that an object has as attributes, also in lists, tuples, sets and dicts, are part of it and
    are poisoned with it: name in *borrowed* the attributes that are somebody else's. Giant always is. To learn where a
    callout was armed, open the system with ``checking=True``, as it is by default under pytest and on virtual CPUs.

    An error that happens in a callback or in softclock leaves through the system as every error of a callback does
    (``on_error`` of ``open_callouts()``; ``VirtualSMP.errors``). Every report is in ``reports``, too, whoever may have
    caught the error: the first 1000, oldest first.

    All methods may be called from any thread and never block for longer than a lock is held. It needs no open system.
    """

    def __init__(self, name: str, *, borrowed: Collection[str] = ()) -> None:
        """Make an empty slab of things called *name*."""
        self.name = name
        self.reports: list[str] = []
        self._borrowed = frozenset(borrowed)
        # Recursive: a finalizer may free something in the middle of this very code.
        self._lock = threading.RLock()
        self._live: dict[int, Allocation[T]] = {}
        self._slots: dict[int, int] = {}  # id -> slot, of what lives
        self._generations: list[int] = []  # of each slot
        self._unused: list[int] = []  # slots, the one last freed at the end
        self._freed = 0

    def __repr__(self) -> str:
        return f"<Slab {self.name!r}: {self.allocated} allocated, {self.freed} freed>"

    @property
    def allocated(self) -> int:
        """How many objects were allocated so far."""
        with self._lock:
            return self._freed + len(self._live)

    @property
    def freed(self) -> int:
        """How many objects were freed so far."""
        return self._freed

    def alloc(self, make: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        r"""Return a new object, made by *make(\*args, \*\*kwargs)*: mostly a class and what its ``__init__`` takes.

        Raises:
            ArgumentTypeError: such objects cannot be poisoned. Instances of ordinary classes can, if their
                ``__slots__``, where they have any, contain ``__weakref__``.
            ArgumentValueError: *make* has returned what is allocated already.
        """
        obj = make(*args, **kwargs)
        _check_class(obj)
        where, _ = _look()
        with self._lock:
            if id(obj) in self._live:
                raise ArgumentValueError(
                    f"Slab.alloc: {make!r} has returned what is allocated already: {self._live[id(obj)]}"
                )
            if self._unused:
                slot = self._unused.pop()
                self._generations[slot] += 1
            else:
                slot = len(self._generations)
                self._generations.append(1)
            name = f"{self.name} {slot + 1}, generation {self._generations[slot]}"
            self._live[id(obj)] = Allocation(name, type(obj).__name__, where, obj, self)
            self._slots[id(obj)] = slot
        return obj

    def free(self, obj: T, /) -> None:
        """Poison *obj*: from now on every use of it, of its callouts and of its locks raises ``UseAfterFree``.

        Whether its callouts are stopped and its lock is free is not looked at: that is what the later uses show.

        Raises:
            UseAfterFree: it was freed before.
            ArgumentValueError: it was not allocated here.
        """
        with self._lock:
            allocation = self._live.pop(id(obj), None)
            if allocation is not None:
                slot = self._slots.pop(id(obj))
                self._unused.append(slot)
                self._freed += 1
        if allocation is None:
            grave = _GRAVES.get(id(obj))
            if grave is None:
                raise ArgumentValueError(f"Slab.free: {obj!r} was not allocated from {self!r}")
            raise grave[1].used("double free, it was freed again")
        allocation.freed, _ = _look()
        allocation.obj = None
        _bury(obj, cast("Allocation[object]", allocation), self._borrowed)

    def is_freed(self, obj: T, /) -> bool:
        """Return whether *obj* was freed, without that being a use."""
        grave = _GRAVES.get(id(obj))
        return grave is not None and cast(object, grave[1].slab) is self

    def leaks(self) -> list[Allocation[T]]:
        """Return what was allocated and not freed, in the order of allocation."""
        with self._lock:
            return list(self._live.values())

    def _report(self, text: str) -> None:
        if len(self.reports) < MAX_REPORTS:
            self.reports.append(text)


def _check_class(obj: object) -> None:
    """Raise unless *obj* can be poisoned."""
    cls = type(obj)
    if cls in _FREED or isinstance(obj, Lock):
        return
    try:
        weakref.ref(obj)
        object.__setattr__(obj, "__class__", _freed_class(cls))
        object.__setattr__(obj, "__class__", cls)
    except TypeError as error:
        raise ArgumentTypeError(
            f"Slab.alloc: a {cls.__name__} cannot be poisoned ({error}); take an ordinary class, and if it has "
            "__slots__, add '__weakref__' to them (dataclass: weakref_slot=True)"
        ) from error


def _bury(obj: object, allocation: Allocation[object], borrowed: Collection[str]) -> None:
    """Poison an object and what it has."""
    key = id(obj)
    members = list(_members(obj, borrowed))
    _GRAVES[key] = (weakref.ref(obj, lambda _: _GRAVES.pop(key, None)), allocation)
    for name, member in members:
        if isinstance(member, Callout):
            _bury_callout(member, name, allocation)
        else:
            what = f"its lock {member.name!r}"
            member.poison(_Grave(allocation, what, member._raw))
    if not isinstance(obj, Callout | Lock):
        object.__setattr__(obj, "__class__", _freed_class(type(obj)))
