"""What belongs to an object: what is freed with it (callouts, locks, events, condition variables), by what names.

They are looked for in its attributes, and in containers of Python's own there. What other objects hold is somebody
else's, unless their class says ``slab_parts = ("attribute", …)``: then they are parts themselves, and what these
attributes hold belongs to them. The slab's ``parts`` function names the rest.

No code of the user runs here, neither properties nor the methods of a container's subclass, and nothing is compared,
hashed or printed: an object is read by the descriptors of its slots and by its dictionary.
"""

from __future__ import annotations

import gc
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Collection, Iterable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType, SimpleNamespace
from typing import Final, cast

from .._api.callout import Callout
from .._api.condvar9 import Cv
from .._api.event import Event
from .._core.errors import ArgumentTypeError, ArgumentValueError
from .._locks.lock import Lock
from .._locks.mutex import Mtx
from .._locks.rwlock import RmLock

# What a class says: the names of the attributes that hold what belongs to its instances.
DECLARED: Final = "slab_parts"

# How to read a class without asking its metaclass.
namespace_of = type.__dict__["__dict__"].__get__
mro_of = type.__dict__["__mro__"].__get__
_name_of = type.__dict__["__name__"].__get__

_machine = Lock.__dict__["machine"]

# Their own slots are the package's business.
_RECORDS: Final = (*Callout.__mro__, *Event.__mro__, *Mtx.__mro__, *RmLock.__mro__, Cv)
_PLAIN_KEYS: Final = (str, bytes, int, float, bool, type(None))


def is_record(cls: type) -> bool:
    """Whether *cls* is one of the package's own classes, or ``object``."""
    return any(cls is record for record in _RECORDS)


class Parts:
    """The walk through what belongs to one object."""

    __slots__ = ("_found", "_kept", "_seen", "_todo")

    def __init__(self) -> None:
        self._found: list[tuple[str, object]] = []
        self._todo: list[tuple[str, object]] = []
        self._seen: set[int] = set()
        self._kept: list[object] = []  # another thread may drop what we have read, and its id could come again

    def whole(self, name: str, obj: object, borrowed: Collection[str] = ()) -> None:
        """Add an object that belongs here whatever it is, with its attributes, but for those in *borrowed*."""
        if not self._is_new(obj):
            return
        self._found.append((name, obj))
        prefix = f"{name}." if name else ""
        self._todo += (
            (f"{prefix}{attribute}", value) for attribute, value in _attributes(obj) if attribute not in borrowed
        )

    def named(self, name: str, obj: object) -> None:
        """Add what the slab's ``parts`` function has named."""
        if isinstance(obj, _CONTAINERS) or _kind(obj):
            self._todo.append((name, obj))
        else:
            self.whole(name, obj)

    def find(self) -> list[tuple[str, object]]:
        """Return everything that belongs to what was added."""
        while self._todo:
            name, value = self._todo.pop()
            if _kind(value):
                if self._is_new(value) and not _is_giant(value):
                    self._found.append((name, value))
                    if _declared(type(value)) is not None:
                        self._todo += ((f"{name}.{attribute}", each) for attribute, each in _attributes(value))
            elif isinstance(value, _CONTAINERS) and self._is_new(value):
                self._todo += _contents(name, value)
        return self._found

    def _is_new(self, value: object) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._kept.append(value)
        return True


def _kind(value: object) -> bool:
    """Whether *value* is a part wherever it is found."""
    cls = type(value)
    return issubclass(cls, (Callout, Lock, Event, Cv)) or _declared(cls) is not None


def _is_giant(value: object) -> bool:
    return isinstance(value, Lock) and _machine.__get__(value).giant is value


def _declared(cls: type) -> tuple[str, ...] | None:
    """Return the attributes that *cls* has declared; None if it has declared nothing.

    Raises:
        ArgumentTypeError: what it has declared is no collection of names.
    """
    for each in mro_of(cls):
        declared = namespace_of(each).get(DECLARED)
        if declared is not None:
            names = tuple(declared) if type(declared) in (tuple, list, frozenset, set) else None
            if names is None or any(type(name) is not str for name in names):
                raise ArgumentTypeError(
                    f"Slab: {_name_of(each)}.{DECLARED} must be a tuple of attribute names, such as ('timer',), not "
                    f"{repr(declared) if type(declared) is str else f'a {_name_of(type(declared))}'}",
                    call="Slab",
                )
            return names
    return None


def check_declared(obj: object) -> None:
    """Raise if the class of *obj* declares what are no names."""
    _declared(type(obj))


def _attributes(obj: object) -> Iterator[tuple[str, object]]:
    """Yield the attributes of *obj* that hold what belongs to it: those declared by its class, or else all."""
    cls = type(obj)
    declared = _declared(cls)
    read = set()
    for name, value in _values(obj):
        if declared is None or name in declared:
            read.add(name)
            yield name, value
    for name in declared or ():
        # A slot that was never set, or an attribute of which there is only the default of the class.
        if name not in read and not any(name in namespace_of(each) for each in mro_of(cls)):
            raise ArgumentValueError(
                f"Slab: {_name_of(cls)}.{DECLARED} names {name!r}, and this {_name_of(cls)} has no such attribute; one "
                "that it may lack needs a default in the class",
                call="Slab",
            )


def _values(obj: object) -> Iterator[tuple[str, object]]:
    """Yield what the slots and the dictionary of *obj* hold. A slot may be hidden by one of a subclass."""
    read = False
    for cls in mro_of(type(obj)):
        if is_record(cls):
            continue
        for name, member in list(namespace_of(cls).items()):
            if type(member) is MemberDescriptorType:
                try:
                    yield name, member.__get__(obj)
                except AttributeError:  # never set
                    continue
            elif name == "__dict__" and type(member) is GetSetDescriptorType and not read:
                read = True
                values = member.__get__(obj)
                if isinstance(values, dict):
                    yield from _items(values)


def _items(values: dict[object, object]) -> Iterator[tuple[str, object]]:
    # Copied in one piece, since other threads may set attributes meanwhile.
    for key, value in dict.copy(values).items():
        yield key if type(key) is str else "?", value


_ITERABLE: Final = (list, tuple, set, frozenset, deque)
_WRAPPERS: Final = (UserDict, UserList, ChainMap, SimpleNamespace)  # containers that are ordinary objects
_CONTAINERS: Final = (dict, *_ITERABLE, *_WRAPPERS)


def _contents(name: str, container: object) -> Iterator[tuple[str, object]]:
    """Yield what a container holds, and what it is called there."""
    if isinstance(container, _WRAPPERS):
        yield from ((f"{name}.{attribute}", value) for attribute, value in _values(container))
    elif isinstance(container, dict):
        try:
            pairs = list(dict.items(container))
        except RuntimeError:  # another thread changes it; taken in one piece, keys and values look alike
            yield from ((f"{name}[?]", each) for each in gc.get_referents(container))
            return
        for number, (key, value) in enumerate(pairs):
            yield f"{name}[{key!r}]" if type(key) in _PLAIN_KEYS else f"{name}[key {number}]", value
            yield f"key {number} of {name}", key
    else:
        kind = next(each for each in _ITERABLE if isinstance(container, each))
        try:
            inside = list(cast("Iterable[object]", kind.__iter__(container)))  # type: ignore[arg-type]  # one of that kind
        except RuntimeError:  # as above
            inside = gc.get_referents(container)
        yield from ((f"{name}[{number}]", value) for number, value in enumerate(inside))
