"""A slab of objects that finds what is used after it was freed.

Python frees nothing that anybody can still reach, so the bugs of teardown code hide: what C would have crashed on
goes on working. A ``Slab`` makes them show. What is freed is *poisoned*:

- the object's class becomes one in which every use raises ``UseAfterFree``;
- a ``Lock`` in it raises when it is acquired or released, and who waits for it is woken, to find out;
- an ``Event`` or a ``Cv`` in it raises in every call, and what waits for it is woken, to find out;
- a ``Callout`` in it raises in every call. If it is still scheduled then, softclock still holds on to it: a stand-in
  takes its place and raises at the moment at which softclock would have come to it. If softclock stands at its lock,
  it finds the poisoned lock.

Memory is never handed out again, but names are: a slot of the slab gets a new *generation* each time it is reused, so a
report says which of the objects that had this place it was.

Nothing of this costs the engine anything: poison is a lock that refuses (``refusal``), put where the real one was. The
text of a report is made when it is raised, from the stack as it is then.

This module has the books. ``_parts`` finds what belongs to an object, ``_poison`` poisons it, ``_allocation`` reports.

Prior art: SLUB poisoning and debugobjects of Linux, UMA's trash destructors of FreeBSD, the quarantine of
AddressSanitizer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypeVar, cast

from .._core import describe
from .._core.errors import ArgumentTypeError, ArgumentValueError, UseAfterFree
from .._core.guard import protected
from .._core.machine import Machine
from .._core.weak import WeakValues
from ._allocation import Allocation, current, look
from ._parts import check_declared
from ._poison import MUTEX, Burial, forget_dead, grave_of, is_freed, name_of_class, poison_for

P = ParamSpec("P")
T = TypeVar("T")

MAX_REPORTS: Final = 1000

# A list for each test that looks for what is left behind: the slabs that are made meanwhile.
WATCHED: Final[list[list[Slab[Any]]]] = []  # Any: of whatever

# By the id of the object: what is allocated, from whatever slab. An allocation that is not freed refers to its object.
_ALLOCATED: Final[WeakValues[Allocation[object]]] = WeakValues()


def _is_allocated(obj: object) -> bool:
    return _ALLOCATED.get(id(obj)) is not None


def live() -> list[Allocation[object]]:
    """Return what is allocated and not freed, from any slab that is still there."""
    found = [ref() for ref, _ in _ALLOCATED._rows.copy().values()]
    return [each for each in found if each is not None and each.freed is None]


def leaked(machine: Machine) -> list[Allocation[Any]]:  # Any: of whatever
    """Return what was allocated in a run on *machine*, on virtual CPUs, and not freed."""
    slabs = [each for each in machine.attached.values() if isinstance(each, Slab)]
    found = [each for slab in slabs for each in slab.leaks()]
    return [each for each in found if each._machine is not None and each._machine() is machine]


def _initialize(obj: object, *args: object, **kwargs: object) -> None:
    result = type(obj).__init__(obj, *args, **kwargs)
    if result is not None:
        raise TypeError(f"__init__() should return None, not {name_of_class(result)!r}")


class Slab(Generic[T]):
    """Objects that are allocated and freed explicitly, so that misuse shows.

    ::

        slab: Slab[Session] = Slab("session")
        session = slab.alloc(Session, peer)  # a Session
        ...
        slab.free(session)
        session.peer  # UseAfterFree: which session, freed by whom where, used by whom where

        assert not slab.leaks()

    The callouts, locks, events and condition variables that an object has as attributes, also in lists, tuples, sets,
    dicts and deques there, belong to it and are poisoned with it; and so do objects whose class says which of its
    attributes to look at: ``slab_parts = ("timer", "lock")``. The timers of ``callout_linux`` say that. *parts*, a
    function of the object, returns what belongs to it besides: such things, containers of them, and any other objects,
    which are poisoned like the object itself. Name in *borrowed* the attributes that are somebody else's. Giant always
    is, and so is what was allocated from a slab on its own.

    To learn where a callout was armed, open the system with ``checking=True``, as it is by default under pytest and on
    virtual CPUs.

    An error that happens in a callback or in softclock leaves through the system as every error of a callback does
    (``on_error`` of ``open_callouts()``; ``VirtualSMP.errors``). Every report is in ``reports``, too, wherever the
    error was caught: the first 1000, oldest first. In an exploration every report is a ``Violation``.

    All methods may be called from any thread and never block for longer than a lock is held. It needs no open system.
    """

    def __init__(
        self,
        name: str,
        *,
        borrowed: Collection[str] = (),
        parts: Callable[[T], Iterable[object]] | None = None,
    ) -> None:
        """Make an empty slab of things called *name*.

        Raises:
            ArgumentTypeError: *name* is not a str; *borrowed* is no collection of them; *parts* cannot be called.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError(f"Slab: name must be a str, not {name!r}", call="Slab")
        given: object = borrowed
        names = frozenset(given) if isinstance(given, Iterable) and not isinstance(given, str) else {None}
        if not all(isinstance(each, str) for each in names):
            raise ArgumentTypeError(
                f"Slab: borrowed must be a collection of attribute names, such as ('lock',), not {borrowed!r}",
                call="Slab",
            )
        if parts is not None and not callable(parts):
            raise ArgumentTypeError(
                f"Slab: parts must be a function of an object, not a {name_of_class(parts)}", call="Slab"
            )
        self.name = name
        self.reports: list[str] = []
        self._borrowed = cast("frozenset[str]", names)
        self._parts = parts
        self._live: dict[int, Allocation[T]] = {}  # by the id of the object
        self._slots: dict[int, int] = {}  # id -> slot, of what lives
        self._generations: list[int] = []  # of each slot
        self._unused: list[int] = []  # slots, the one last freed at the end
        self._freed = 0
        for made in WATCHED:
            made.append(self)

    def __repr__(self) -> str:
        return f"<Slab {self.name!r}: {self.allocated} allocated, {self.freed} freed>"

    @property
    def allocated(self) -> int:
        """How many objects were allocated so far."""
        with MUTEX:
            return self._freed + len(self._live)

    @property
    def freed(self) -> int:
        """How many objects were freed so far."""
        return self._freed

    def alloc(self, make: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        r"""Return a new object, made by *make(\*args, \*\*kwargs)*: mostly a class and what its ``__init__`` takes.

        An instance of a class is allocated before its ``__init__`` runs, which may arm what frees it; if that raises,
        it was not allocated.

        Raises:
            ArgumentTypeError: such objects cannot be poisoned. Instances of ordinary classes can, if their
                ``__slots__``, where they have any, contain ``__weakref__``. Or ``slab_parts`` of the class is no tuple
                of names.
            ArgumentValueError: *make* has returned what is allocated already, from this slab or another.
            UseAfterFree: *make* has returned what was freed.
        """
        if not callable(make):
            raise ArgumentTypeError(
                f"Slab.alloc: give a class, or a function that makes the object, not {describe.shown(make)}",
                call="Slab.alloc",
            )
        # As type.__call__() does it, in two steps.
        if isinstance(make, type) and type(make).__call__ is type.__call__:
            obj = cast("T", make.__new__(make, *args, **kwargs))
            if make in type(obj).__mro__:  # what isinstance() says can be made up
                self._allocate(make, obj)
                try:
                    _initialize(obj, *args, **kwargs)
                except BaseException:
                    self._forget(obj)
                    raise
                return obj
        else:
            obj = make(*args, **kwargs)
            if isinstance(obj, Coroutine):
                obj.close()  # it is refused now, as nothing that can be poisoned, and is not to be awaited
        self._allocate(make, obj)
        return obj

    def _allocate(self, make: object, obj: T) -> None:
        """Note that *obj*, which *make* has made, was allocated."""
        if is_freed(obj):
            self._refuse_freed(obj, "it was handed out again by alloc()")
        check_declared(obj)
        poison = poison_for("Slab.alloc", obj)
        forget_dead()
        where, _ = look()
        machine = current()
        with MUTEX:
            other = _ALLOCATED.get(id(obj))
            if other is not None:
                raise ArgumentValueError(
                    f"Slab.alloc: {describe.name_of(make)} has returned what is allocated already: {other}",
                    call="Slab.alloc",
                )
            if self._unused:
                slot = self._unused.pop()
                self._generations[slot] += 1
            else:
                slot = len(self._generations)
                self._generations.append(1)
            name = f"{self.name} {slot + 1}, generation {self._generations[slot]}"
            allocation: Allocation[T] = Allocation(name, name_of_class(obj), where, obj, self)
            allocation._poison = poison
            if machine is not None:
                allocation._machine = weakref.ref(machine)
                if machine.faults is not None:  # kept until the end of the run, when it is asked what it has lost
                    machine.attached.setdefault(f"slab {id(self)}", self)
            self._live[id(obj)] = allocation
            self._slots[id(obj)] = slot
            _ALLOCATED.set(id(obj), cast("Allocation[object]", allocation))

    def _forget(self, obj: T) -> None:
        """Note that *obj* was not allocated, unless it was freed meanwhile."""
        with MUTEX:
            allocation = self._live.get(id(obj))
            if allocation is not None and allocation.freed is None:
                del self._live[id(obj)]
                _ALLOCATED.pop(id(obj))
                slot = self._slots.pop(id(obj))
                self._generations[slot] -= 1
                self._unused.append(slot)

    @protected
    def free(self, obj: T, /) -> None:
        """Poison *obj*: from now on every use of it, and of the callouts, locks, events and condition variables in it,
        raises ``UseAfterFree``.

        Whether its callouts are stopped and its lock is free is not looked at: that is what the later uses show. No
        code of the user runs before all is done, but for the slab's *parts* function. Whatever is raised, the object
        was not freed then, and nothing has changed.

        Raises:
            UseAfterFree: it was freed before, or another thread is doing so.
            ArgumentValueError: it was not allocated here; or ``slab_parts`` names what is no attribute.
            ArgumentTypeError: something that belongs to it cannot be poisoned; *parts* has returned no collection of
                objects.
            ReentrantCallError: a finalizer or signal handler that has interrupted the engine calls this, and a
                callout of the object would have to be removed there.
        """
        where, _ = look()
        with MUTEX:
            allocation = self._live.get(id(obj))
            first = allocation is not None and allocation.freed is None
            if first:
                assert allocation is not None
                allocation.freed = where
        if allocation is None:
            if is_freed(obj):
                self._refuse_freed(obj, "double free, it was freed again")
            raise ArgumentValueError(
                f"Slab.free: a {name_of_class(obj)} that was not allocated from {self!r}", call="Slab.free"
            )
        if not first:
            raise allocation.used("double free, it was freed again")
        try:
            known = cast("Allocation[object]", allocation)
            parts = cast("Callable[[object], Iterable[object]] | None", self._parts)
            burial = Burial(obj, known, self._borrowed, parts, _is_allocated)
        except BaseException:
            allocation.freed = None
            raise
        try:
            try:
                burial.carry_out()
            except BaseException:  # of a signal handler
                burial.carry_out()
                raise
        finally:
            with MUTEX:
                del self._live[id(obj)]
                _ALLOCATED.pop(id(obj))
                self._unused.append(self._slots.pop(id(obj)))
                self._freed += 1
            allocation.obj = allocation._poison = None

    def is_freed(self, obj: object, /) -> bool:
        """Return whether *obj* was freed, alone or as a part, without that being a use."""
        grave = grave_of(obj)
        return grave is not None and cast(object, grave.allocation.slab) is self

    def leaks(self) -> list[Allocation[T]]:
        """Return what was allocated and not freed, in the order of allocation."""
        with MUTEX:
            return [allocation for allocation in self._live.values() if allocation.freed is None]

    def _refuse_freed(self, obj: object, how: str) -> NoReturn:
        grave = grave_of(obj)
        if grave is None:
            raise UseAfterFree(f"{name_of_class(obj)}: {how}; a finalizer has kept it alive after it was freed")
        raise grave.allocation.used(f"its part {grave.part!r}: {how}" if grave.part else how)

    def _report(self, text: str) -> None:
        with MUTEX:
            if len(self.reports) < MAX_REPORTS:
                self.reports.append(text)
