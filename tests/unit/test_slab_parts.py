"""What belongs to an object of a ``Slab``, and that freeing it is done whole or not at all, whatever is in it."""

from __future__ import annotations

import contextvars
import gc
import operator
import sys
import sysconfig
import threading
import weakref
from collections import ChainMap, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NoReturn, cast
from unittest.mock import MagicMock

import pytest
import trio

from callout import (
    MTX_RECURSE,
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    Cv,
    Event,
    Mtx,
    ReentrantCallError,
    RwLock,
    UseAfterFree,
    callout_init,
    callout_init_mtx,
    callout_init_rw,
    callout_pending,
    callout_reset,
    callout_reset_sbt,
    callout_stop,
    cv_broadcast,
    cv_destroy,
    cv_signal,
    cv_timedwait,
    cv_timedwait_sync,
    cv_wait,
    cv_wait_sync,
    mtx_assert,
    mtx_initialized,
    mtx_owned,
    mtx_trylock,
    open_callouts,
    rw_assert,
    rw_initialized,
    rw_try_wlock,
    rw_wowned,
    tick_sbt,
)
from callout._core import arm
from callout._core.platform import Waiter
from callout._core.rawlock import RawLock
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP, _poison
from callout_linux import v2_3
from callout_linux.timer import (
    jiffies,
    mod_timer,
    timer_delete,
    timer_delete_sync_blocking,
    timer_list,
    timer_pending,
    timer_setup,
)

C_DIRECT_EXEC: Final = 0x0001


class Thing:
    """An object of the user's."""

    def __init__(self, part: object = None) -> None:
        self.part = part


def ignore(arg: object) -> None:
    """Do nothing."""


def armed() -> Callout:
    """Return a callout that is due in two ticks."""
    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 2, ignore, None)
    return c


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give a virtual CPU whose clock is driven by hand."""
    with VirtualSMP(1, free_clock=False) as machine:
        yield machine


@pytest.fixture
def slab() -> Slab[Thing]:
    """Give a slab."""
    return Slab("thing")


# -- what belongs to it -----------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - a container of that kind is what is tested

CONTAINERS: Final[dict[str, Callable[[Callout], object]]] = {
    "list of tuples": lambda c: [(c,)],
    "set": lambda c: {c},
    "frozenset": lambda c: frozenset([c]),
    "deque": lambda c: deque([c]),
    "dict value": lambda c: {1: c},
    "dict value under a key of the user's": lambda c: {Thing(): c},
    "dict key": lambda c: {c: 1},
    "namedtuple": lambda c: Pair(1, c),
    "defaultdict": lambda c: defaultdict(list, a=[c]),
    "UserList": lambda c: UserList([c]),
    "UserDict": lambda c: UserDict(a=c),
    "ChainMap": lambda c: ChainMap({}, {"a": c}),
    "SimpleNamespace": lambda c: SimpleNamespace(c=c),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_in_a_container_belongs_to_the_object(vm: VirtualSMP, slab: Slab[Thing], container: str) -> None:
    """A callout in any container of Python's own is poisoned with the object that has the container."""
    c = armed()
    slab.free(slab.alloc(Thing, CONTAINERS[container](c)))

    with pytest.raises(UseAfterFree):
        callout_stop(c)


def test_what_a_hidden_slot_holds_belongs_to_the_object(vm: VirtualSMP) -> None:
    """The slot of a base class is looked at, also if a subclass has one of the same name."""

    class Base:
        __slots__ = ("__weakref__", "c")

    class Hides(Base):
        __slots__ = ("c",)

        c: Callout

    c, other = armed(), armed()
    things: Slab[Hides] = Slab("thing")
    thing = things.alloc(Hides)
    thing.c = other
    vars(Base)["c"].__set__(thing, c)
    things.free(thing)

    for each in (c, other):
        with pytest.raises(UseAfterFree):
            callout_stop(each)


def linux_timer() -> timer_list:
    """Return a timer of Linux 6.12 that is due in two jiffies."""
    timer = timer_list()
    timer_setup(timer, ignore, 0)
    mod_timer(timer, jiffies + 2)
    return timer


def old_timer() -> v2_3.timer_list:
    """Return a timer of Linux 2.3 that is due in two jiffies."""
    timer = v2_3.timer_list()
    v2_3.init_timer(timer)
    timer.function = ignore
    v2_3.mod_timer(timer, jiffies + 2)
    return timer


@pytest.mark.parametrize("make", [linux_timer, old_timer])
def test_an_embedded_linux_timer_is_found_when_it_falls_due(
    vm: VirtualSMP, slab: Slab[Thing], make: Callable[[], object]
) -> None:
    """A Linux timer in what was freed is reported when its function would have been called, and named."""
    slab.free(slab.alloc(Thing, make()))
    vm.tick(5)
    [error] = vm.errors

    assert isinstance(error, UseAfterFree)
    assert "softclock ran its callout 'part.entry'" in str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda timer: mod_timer(timer, jiffies + 9),
        timer_delete,
        timer_pending,
        timer_delete_sync_blocking,
        lambda timer: timer.expires,
    ],
    ids=["mod", "delete", "pending", "sync", "expires"],
)
def test_every_call_for_an_embedded_linux_timer_is_found(
    vm: VirtualSMP, slab: Slab[Thing], call: Callable[[timer_list], object]
) -> None:
    """A call for a Linux timer in what was freed raises UseAfterFree, and changes nothing."""
    timer = linux_timer()
    slab.free(slab.alloc(Thing, timer))

    with pytest.raises(UseAfterFree, match="of its part 'part' was read"):
        call(timer)
    assert slab.is_freed(timer)


class Retransmit:
    """A sub-object that says what belongs to it."""

    slab_parts: ClassVar = ("timer",)

    def __init__(self) -> None:
        self.timer = armed()
        self.owner_timer = armed()


def test_a_class_can_say_what_belongs_to_its_instances(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """An object whose class has ``slab_parts`` is a part, with what these attributes hold and nothing else."""
    retransmit = Retransmit()
    timer, other = retransmit.timer, retransmit.owner_timer
    slab.free(slab.alloc(Thing, [retransmit]))

    with pytest.raises(UseAfterFree, match=r"callout 'part\[0\]\.timer'"):
        callout_stop(timer)
    with pytest.raises(UseAfterFree, match=r"attribute 'timer' of its part 'part\[0\]' was read"):
        retransmit.timer  # noqa: B018 - a use
    assert callout_stop(other) == 1


def test_what_other_objects_hold_is_not_touched(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """An object that the freed one merely refers to is somebody else's, and so is its callout."""
    other = Thing(armed())
    slab.free(slab.alloc(Thing, other))

    assert isinstance(other.part, Callout)
    assert callout_stop(other.part) == 1


def test_the_parts_function_names_the_rest(vm: VirtualSMP) -> None:
    """What ``parts`` returns belongs to the object: callouts, containers of them, and other objects whole."""
    inner, c, hidden = Thing(armed()), armed(), armed()
    timer = inner.part

    def get() -> Callout:
        return hidden

    def parts(thing: Thing) -> Iterator[object]:
        yield thing.part
        yield [c]
        yield get()

    things: Slab[Thing] = Slab("thing", parts=parts)
    things.free(things.alloc(Thing, inner))

    for each in (timer, c, hidden):
        assert isinstance(each, Callout)
        with pytest.raises(UseAfterFree):
            callout_pending(each)
    with pytest.raises(UseAfterFree, match=r"of its part 'parts\[0\]' was read"):
        inner.part  # noqa: B018 - a use


def test_what_was_allocated_on_its_own_is_freed_on_its_own(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """A callout that was itself allocated from a slab is no part of an object that refers to it."""
    timers: Slab[Callout] = Slab("timer")
    timer = timers.alloc(armed)
    slab.free(slab.alloc(Thing, timer))

    assert callout_stop(timer) == 1
    timers.free(timer)


@pytest.mark.parametrize(
    "bad", [{"borrowed": "lock"}, {"borrowed": 5}, {"borrowed": [5]}, {"borrowed": None}, {"parts": 1}, {"name": 5}]
)
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    """A ``borrowed`` that is no collection of str, a ``parts`` that cannot be called and a name that is no str are
    ArgumentTypeErrors that name the argument.
    """
    with pytest.raises(ArgumentTypeError, match=f"Slab: {next(iter(bad))} must"):
        Slab(**{"name": "thing"} | bad)


@pytest.mark.parametrize("given", [None, 5, "part", [None], ["part"]])
def test_a_parts_function_that_gives_no_objects_is_refused(given: object) -> None:
    """What is no collection of objects is an ArgumentTypeError that names the function, and nothing is freed."""
    things: Slab[Thing] = Slab("thing", parts=lambda thing: cast("list[object]", given))
    thing = things.alloc(Thing)

    with pytest.raises(ArgumentTypeError, match="parts function"):
        things.free(thing)
    assert thing.part is None
    assert not things.is_freed(thing)


def declaring(parts: object) -> type[Thing]:
    """Return a class that declares that."""
    return type("Declaring", (Thing,), {"slab_parts": parts, "__slots__": ("never",), "default": None})


@pytest.mark.parametrize("parts", ["part", 5, (5,), ("part", None), {"part": 1}], ids=repr)
def test_a_declaration_that_is_no_tuple_of_names_is_refused(slab: Slab[Thing], parts: object) -> None:
    """A forgotten comma is an ArgumentTypeError: in alloc(), or, of an object in another, in free(), and nothing is
    freed.
    """
    cls = declaring(parts)
    with pytest.raises(ArgumentTypeError, match=r"Declaring\.slab_parts must be a tuple"):
        slab.alloc(cls)
    thing = slab.alloc(Thing, cls())
    with pytest.raises(ArgumentTypeError, match=r"Declaring\.slab_parts must be a tuple"):
        slab.free(thing)

    assert slab.leaks()[0].obj is thing
    assert isinstance(thing.part, Thing)


def test_a_declaration_of_what_is_no_attribute_is_refused(slab: Slab[Thing]) -> None:
    """A misspelt name is an ArgumentValueError, and nothing is freed; a slot that was never set is not misspelt."""
    wrong = slab.alloc(declaring(("part", "prat")))
    with pytest.raises(ArgumentValueError, match=r"Declaring\.slab_parts names 'prat'"):
        slab.free(wrong)
    assert not slab.is_freed(wrong)

    right = slab.alloc(declaring(["part", "never", "default"]))
    slab.free(right)
    assert slab.is_freed(right)


# -- events and locks -------------------------------------------------------------------------------------------------


def test_setting_a_freed_event_is_found(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """``Event.set()`` raises for an event of a freed object."""
    event = Event()
    slab.free(slab.alloc(Thing, event))

    with pytest.raises(UseAfterFree, match="attribute 'set' of its part 'part' was read"):
        event.set()


def test_who_waits_for_an_event_that_is_freed_finds_out(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """A thread that waits for the event of an object gets UseAfterFree when that is freed."""
    event = Event()
    thing = slab.alloc(Thing, event)
    caught: list[UseAfterFree] = []

    def wait() -> None:
        try:
            event.wait_sync()
        except UseAfterFree as error:
            caught.append(error)

    vm.spawn(wait)
    vm.settle()
    slab.free(thing)
    vm.settle()

    assert len(caught) == 1


CV_USES: Final[dict[str, Callable[[Cv, Mtx], object]]] = {
    "signal": lambda cv, mtx: cv_signal(cv),
    "broadcast": lambda cv, mtx: cv_broadcast(cv),
    "destroy": lambda cv, mtx: cv_destroy(cv),
    "wait": cv_wait,
    "wait, blocking": cv_wait_sync,
    "timedwait": lambda cv, mtx: cv_timedwait(cv, mtx, 1),
    "timedwait, blocking": lambda cv, mtx: cv_timedwait_sync(cv, mtx, 1),
    "name": lambda cv, mtx: cv.name,
}


@pytest.mark.parametrize("use", CV_USES)
def test_every_use_of_a_freed_condition_variable_is_found(vm: VirtualSMP, slab: Slab[Thing], use: str) -> None:
    """Each call of condvar(9) raises for a condition variable of a freed object, and names it."""
    cv, mtx = Cv("ready"), Mtx("m")
    slab.free(slab.alloc(Thing, cv))

    with mtx, pytest.raises(UseAfterFree, match="of its part 'part' was read"):
        CV_USES[use](cv, mtx)
    assert mtx.holds() is False


@pytest.mark.parametrize("many", [1, 3])
def test_who_waits_for_a_condition_variable_that_is_freed_finds_out(
    vm: VirtualSMP, slab: Slab[Thing], many: int
) -> None:
    """All that wait for the condition variable of an object get UseAfterFree when that is freed, and hold the mutex."""
    cv, mtx = Cv("ready"), Mtx("m")
    thing = slab.alloc(Thing, cv)
    caught: list[bool] = []

    def wait() -> None:
        with mtx:
            try:
                cv_wait_sync(cv, mtx)
            except UseAfterFree:
                caught.append(mtx.owned())

    for _ in range(many):
        vm.spawn(wait)
    vm.settle()
    slab.free(thing)
    vm.settle()

    assert caught == [True] * many


def test_what_was_woken_before_the_free_has_not_used_what_was_freed() -> None:
    """In no schedule a waiter that was woken before the condition variable was freed touches it, and in each one that
    was not finds out.
    """
    outcomes: set[tuple[str, ...]] = set()

    def scenario(vm: VirtualSMP) -> None:
        things: Slab[Thing] = Slab("thing")
        thing, mtx, went = things.alloc(Thing, Cv("ready")), Mtx("m"), list[str]()
        cv = thing.part
        assert isinstance(cv, Cv)

        def wait() -> None:
            with mtx:
                if "over" in went:
                    return
                went.append("waits")
                cv_wait_sync(cv, mtx)
                went.append("woken")

        vm.spawn(wait)
        with mtx:
            went.append("over")
            cv_broadcast(cv)
        things.free(thing)
        vm.settle()
        outcomes.add(tuple(went))

    explore(scenario, cpus=1, bound=2)

    assert outcomes == {("over",), ("waits", "over", "woken")}


def test_a_wait_that_begins_while_its_condition_variable_is_freed_is_found() -> None:
    """No schedule of a wait and a free ends in a wait for ever: the wait finds out, however far it has come."""

    def scenario(vm: VirtualSMP) -> None:
        things: Slab[Thing] = Slab("thing")
        thing, mtx, caught = things.alloc(Thing, Cv("ready")), Mtx("m"), list[BaseException]()
        cv = thing.part
        assert isinstance(cv, Cv)
        assert vm.machine.faults is not None

        def wait() -> None:
            try:
                with mtx:
                    cv_wait_sync(cv, mtx)
            except UseAfterFree as error:
                caught.append(error)

        vm.spawn(wait)
        vm.platform.point()
        things.free(thing)
        vm.settle()
        assert len(caught) == 1
        vm.machine.faults.clear()

    assert explore(scenario, cpus=1, bound=2).schedules >= 5


LOCK_USES: Final[dict[str, Callable[[Any], object]]] = {
    "owned": lambda lock: lock.owned(),
    "assert": lambda lock: (rw_assert if isinstance(lock, RwLock) else mtx_assert)(
        lock, 4 if isinstance(lock, RwLock) else 1
    ),
    "initialized": lambda lock: lock.initialized(),
    "destroy": lambda lock: lock.destroy(),
    "enter": lambda lock: lock.__enter__(),
    "function: owned": lambda lock: (rw_wowned if isinstance(lock, RwLock) else mtx_owned)(lock),
    "function: initialized": lambda lock: (rw_initialized if isinstance(lock, RwLock) else mtx_initialized)(lock),
    "function: try": lambda lock: (rw_try_wlock if isinstance(lock, RwLock) else mtx_trylock)(lock),
    "repr of nothing": lambda lock: lock.what_the_user_has_added,
}


@pytest.mark.parametrize("use", LOCK_USES)
@pytest.mark.parametrize("make", [Mtx, lambda: Mtx("m", MTX_RECURSE), RwLock], ids=["Mtx", "recursive", "RwLock"])
def test_every_use_of_a_freed_lock_is_found(
    vm: VirtualSMP, slab: Slab[Thing], make: Callable[[], Mtx | RwLock], use: str
) -> None:
    """Looking at a freed lock, and acquiring it once more, raise UseAfterFree, for its holder as for others."""
    lock = make()
    lock.__enter__()
    slab.free(slab.alloc(Thing, lock))

    with pytest.raises(UseAfterFree):
        LOCK_USES[use](lock)
    with pytest.raises(UseAfterFree, match=r"was (released|acquired)"):
        lock.__exit__()


def test_a_callback_may_free_a_lock_that_it_has_released(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """A CALLOUT_RETURNUNLOCKED callback that releases its lock and frees it has done nothing wrong."""
    lock, c = Mtx("m"), Callout()
    thing = slab.alloc(Thing, lock)
    callout_init_mtx(c, lock, 0x10)  # CALLOUT_RETURNUNLOCKED

    def free(_: object) -> None:
        lock.unlock()
        slab.free(thing)

    with lock:
        callout_reset(c, 1, free, None)
    vm.tick(2)

    assert vm.errors == []
    assert slab.freed == 1


class Signalling(RawLock):
    """A raw lock that says when somebody is about to block at it."""

    def __init__(self, inner: RawLock) -> None:
        self._inner = inner
        self.about_to_block = threading.Event()

    def acquire(self, blocking: bool = True, /) -> bool:
        """Acquire it."""
        if blocking:
            self.about_to_block.set()
        return self._inner.acquire(blocking)

    def release(self, /) -> None:
        """Release it."""
        self._inner.release()

    def _is_owned(self, /) -> bool:
        return self._inner._is_owned()


class SignallingLot(deque[Waiter]):
    """A parking lot that says when somebody has parked."""

    def __init__(self) -> None:
        super().__init__()
        self.parked = threading.Event()

    def append(self, waiter: Waiter) -> None:
        """Park."""
        super().append(waiter)
        self.parked.set()


@pytest.mark.trio
@pytest.mark.parametrize("make", [Mtx, RwLock])
async def test_a_thread_that_is_blocked_at_a_lock_that_is_freed_does_not_get_it(
    slab: Slab[Thing], make: Callable[[], Mtx | RwLock]
) -> None:
    """On real threads, who is blocked at a lock while its holder frees it gets UseAfterFree instead of the lock."""
    outcomes: list[str] = []
    async with open_callouts() as system:
        lock = make()
        thing = slab.alloc(Thing, lock)
        raw, lot = Signalling(lock._raw), SignallingLot()
        lock._raw, lock.parked = raw, lot

        def wait() -> None:
            with system.bound():
                try:
                    lock.__enter__()
                    outcomes.append("acquired")
                except UseAfterFree:
                    outcomes.append("UseAfterFree")

        def hold() -> None:
            with system.bound():
                lock.__enter__()
                waiter = threading.Thread(target=wait)
                waiter.start()
                (raw.about_to_block if make is Mtx else lot.parked).wait()
                slab.free(thing)
                try:
                    lock.__exit__()
                except UseAfterFree:
                    outcomes.append("released")
                waiter.join()

        await trio.to_thread.run_sync(hold)

    assert sorted(outcomes) == ["UseAfterFree", "released"]


@pytest.mark.parametrize("make", [Mtx, RwLock])
def test_in_no_schedule_a_freed_lock_is_acquired(make: Callable[[], Mtx | RwLock]) -> None:
    """On virtual CPUs nobody has a lock after it was freed, wherever he stood at that time; some stood at it."""
    refused: list[str] = []

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Thing] = Slab("thing")
        lock = make()
        thing = slab.alloc(Thing, lock)
        freed: list[bool] = []

        def other() -> None:
            before = bool(freed)
            try:
                lock.__enter__()
            except UseAfterFree:
                if not before:
                    refused.append("it had looked before")
                return
            assert not freed, "a freed lock was acquired"
            lock.__exit__()

        vm.spawn(other)
        lock.__enter__()
        slab.free(thing)
        freed.append(True)
        with pytest.raises(UseAfterFree):
            lock.__exit__()
        vm.settle()
        assert vm.machine.faults
        vm.machine.faults.clear()  # they are what is wanted here

    assert explore(scenario, cpus=1).exhausted
    assert refused


# -- whole or not at all ----------------------------------------------------------------------------------------------


class Hostile:
    """Whatever of it is run says so."""

    ran: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.x = 1

    def _say(self, *args: object) -> NoReturn:
        Hostile.ran.append("a special method")
        raise RuntimeError("user code")

    __eq__ = __repr__ = __len__ = __bool__ = __getattr__ = _say

    def __hash__(self) -> int:
        Hostile.ran.append("__hash__")
        return id(self)

    prop = property(_say)


class HostileDict(dict[object, object]):
    """A dict whose own methods raise."""

    def items(self) -> NoReturn:
        """Raise."""
        Hostile.ran.append("items")
        raise RuntimeError("lazy")

    __iter__ = keys = values = copy = items


def test_no_code_of_the_user_runs_in_free(vm: VirtualSMP) -> None:
    """Neither reprs nor comparisons, properties, finalizers or methods of containers run, and the use is found."""

    class Obj(Hostile):
        def go(self, arg: object) -> None:
            """Be a callback."""

    obj = Obj()
    objects: Slab[Obj] = Slab("object")
    c, lock = Callout(), Mtx("m")
    callout_init_mtx(c, lock)
    obj.__dict__ |= {"keys": {Hostile(): c}, "mine": HostileDict({1: lock, Hostile(): 2}), "set": {Hostile()}}
    with lock:
        callout_reset(c, 5, obj.go, obj)
    Hostile.ran.clear()
    objects.alloc(lambda: obj)
    objects.free(obj)

    assert Hostile.ran == []
    with pytest.raises(UseAfterFree):
        obj.x  # noqa: B018 - a use
    with pytest.raises(UseAfterFree), lock:
        pass
    with pytest.raises(UseAfterFree):
        callout_stop(c)
    with pytest.raises(UseAfterFree, match="double free"):
        objects.free(obj)


def test_old_arguments_die_when_all_is_done(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """The finalizer of a freed callout's argument may use the engine, and finds the object freed."""
    other = Callout()
    callout_init(other, 1)
    found: list[bool] = []

    class Argument:
        def __del__(self) -> None:
            callout_reset(other, 1, ignore, None)
            found.append(slab.is_freed(thing))

    c = Callout()
    callout_init(c, 1)
    thing = slab.alloc(Thing, c)
    callout_reset(c, 5, ignore, Argument())
    slab.free(thing)

    assert found == [True]
    assert callout_stop(other) == 1


@pytest.mark.parametrize("bad", ["raises", "gives a number", "gives what cannot be poisoned"])
def test_what_fails_has_changed_nothing(vm: VirtualSMP, bad: str) -> None:
    """If ``parts`` raises or names what cannot be poisoned, the object lives on as it was, and can be freed later."""
    wrong = [True]

    def parts(thing: Thing) -> list[object]:
        if not wrong:
            return []
        if bad == "raises":
            raise RuntimeError("mine")
        return [thing.part, 3 if bad == "gives a number" else object()]

    c, lock = armed(), Mtx("m")
    things: Slab[Thing] = Slab("thing", parts=parts)
    thing = things.alloc(Thing, [c, lock])
    with pytest.raises(RuntimeError if bad == "raises" else ArgumentTypeError):
        things.free(thing)

    assert (things.allocated, things.freed, len(things.leaks())) == (1, 0, 1)
    assert not things.is_freed(thing)
    assert thing.part == [c, lock]
    with lock:
        assert callout_pending(c) == 1

    wrong.clear()
    things.free(thing)

    assert (things.freed, things.leaks()) == (1, [])


@pytest.mark.parametrize("where", ["before the stand-in is armed", "at a lock"])
def test_an_interrupted_free_is_completed(
    vm: VirtualSMP, slab: Slab[Thing], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What a signal handler raises in the middle leaves ``free()`` when everything is poisoned."""
    c, lock = armed(), Mtx("m")
    thing = slab.alloc(Thing, [c, lock, armed()])
    struck: list[bool] = []

    def strike(*args: object) -> object:
        if not struck:
            struck.append(True)
            raise InterruptedError("by a signal handler")
        return real(*args)

    if where == "at a lock":
        real: Callable[..., object] = _poison._LockPart.carry_out
        monkeypatch.setattr(_poison._LockPart, "carry_out", strike)
    else:
        real = arm.arm
        monkeypatch.setattr(_poison, "arm", strike)
    with pytest.raises(InterruptedError):
        slab.free(thing)

    assert (slab.freed, slab.leaks()) == (1, [])
    with pytest.raises(UseAfterFree), lock:
        pass
    with pytest.raises(UseAfterFree):
        callout_stop(c)


def test_a_free_that_interrupts_the_engine_is_refused(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """Called by a finalizer in the middle of an engine call, ``free()`` raises, and the callout is as it was."""
    c = armed()
    thing = slab.alloc(Thing, c)
    cpu = vm.machine.cpus[0]
    cpu.lock.acquire()
    cpu.busy = True  # as in the middle of a call
    try:
        with pytest.raises(ReentrantCallError):
            slab.free(thing)
    finally:
        cpu.busy = False
        cpu.lock.release()

    assert slab.freed == 0
    assert callout_stop(c) == 1


def test_a_dict_that_changes_meanwhile_is_read_all_the_same(vm: VirtualSMP, slab: Slab[Thing]) -> None:
    """Whatever other code does to a container while it is being read, ``free()`` succeeds."""
    table: dict[object, object] = {number: Thing() for number in range(500)}
    thing = slab.alloc(Thing, table)
    c = table["c"] = armed()
    grown: list[int] = []

    def grow(phase: str, info: dict[str, int]) -> None:
        grown.append(0)
        table[f"grown {len(grown)}"] = None

    old = gc.get_threshold()
    gc.callbacks.append(grow)
    gc.set_threshold(1)
    try:
        slab.free(thing)
    finally:
        gc.set_threshold(*old)
        gc.callbacks.remove(grow)

    with pytest.raises(UseAfterFree):
        callout_stop(c)


# -- initialising what was freed --------------------------------------------------------------------------------------

INITS: Final[dict[str, Callable[[Callout], object]]] = {
    "init": lambda c: callout_init(c, 1),
    "init_mtx": lambda c: callout_init_mtx(c, Mtx("m")),
    "init_rw": lambda c: callout_init_rw(c, RwLock("rw")),
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("before", [False, True], ids=["never initialised", "initialised before"])
def test_initialising_a_freed_callout_is_found(vm: VirtualSMP, slab: Slab[Thing], init: str, before: bool) -> None:
    """No function revives a freed callout on virtual CPUs, where records get another class."""
    c = Callout()
    if before:
        callout_init(c, 1)
    slab.free(slab.alloc(Thing, c))

    with pytest.raises(UseAfterFree):
        INITS[init](c)
    with pytest.raises(UseAfterFree):
        callout_reset(c, 1, ignore, None)
    vm.tick(3)
    assert vm.errors == []


@pytest.mark.trio
@pytest.mark.parametrize("init", INITS)
async def test_initialising_a_freed_callout_is_found_on_real_loops(slab: Slab[Thing], init: str) -> None:
    """Nor on real loops, and the record is not half initialised."""
    async with open_callouts():
        c = Callout()
        slab.free(slab.alloc(Thing, c))
        with pytest.raises(UseAfterFree):
            INITS[init](c)

        assert c.lock is None
        assert slab.is_freed(c)


# -- finalizers, threads ----------------------------------------------------------------------------------------------


def test_a_use_in_a_finalizer_is_found(slab: Slab[Thing], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the garbage collector finds with the freed object and uses it then gets UseAfterFree, and it is reported."""
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: seen.append(it.exc_type))

    class Owner:
        def __init__(self, thing: Thing) -> None:
            self.thing = thing
            thing.part = self

        def __del__(self) -> None:
            self.thing.part  # noqa: B018 - a use

    thing = slab.alloc(Thing)
    Owner(thing)
    slab.free(thing)
    key = id(thing)
    del thing
    gc.collect()

    assert seen == [UseAfterFree]
    assert len(slab.reports) == 1
    _poison.forget_dead()

    assert key not in _poison._GRAVES


def test_a_finalizer_that_keeps_it_alive_does_not_make_it_usable(slab: Slab[Thing]) -> None:
    """A freed object that is rescued from the garbage collector still refuses every use."""
    rescued: list[Thing] = []

    class Rescuer:
        def __init__(self, thing: Thing) -> None:
            self.thing = thing
            thing.part = self

        def __del__(self) -> None:
            rescued.append(self.thing)

    thing = slab.alloc(Thing)
    Rescuer(thing)
    slab.free(thing)
    del thing
    gc.collect()

    with pytest.raises(UseAfterFree, match="kept it alive"):
        rescued[0].part  # noqa: B018 - a use
    with pytest.raises(UseAfterFree):
        slab.free(rescued[0])
    assert repr(rescued[0]) == "<freed>"


def test_of_two_threads_that_free_an_object_one_is_told() -> None:
    """A second ``free()`` while the first is under way is a double free."""
    inside, go_on = threading.Event(), threading.Event()

    def parts(thing: Thing) -> list[object]:
        if not inside.is_set():
            inside.set()
            go_on.wait()
        return []

    things: Slab[Thing] = Slab("thing", parts=parts)
    thing = things.alloc(Thing)
    first = threading.Thread(target=things.free, args=(thing,))
    first.start()
    inside.wait()
    try:
        with pytest.raises(UseAfterFree, match="double free"):
            things.free(thing)
        assert things.leaks() == []
    finally:
        go_on.set()
        first.join()

    assert things.freed == 1


# -- what can be allocated --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [set, deque, frozenset, threading.local, bytearray, object])
def test_what_cannot_be_poisoned_is_refused_each_time(make: Callable[[], object]) -> None:
    """The second object of a class that cannot be poisoned is refused as the first."""
    things: Slab[object] = Slab("thing")

    for _ in range(2):
        with pytest.raises(ArgumentTypeError, match="cannot be poisoned"):
            things.alloc(make)
    assert things.allocated == 0


def test_a_mock_can_be_poisoned() -> None:
    """What pretends to be of another class is poisoned all the same."""
    mocks: Slab[MagicMock] = Slab("mock")
    mock = mocks.alloc(MagicMock)
    mocks.free(mock)

    with pytest.raises(UseAfterFree):
        mock.anything  # noqa: B018 - a use


def test_no_code_of_a_class_runs_when_its_objects_are_allocated() -> None:
    """Neither ``__init_subclass__`` nor a metaclass sees the class that freed objects get."""
    seen: list[str] = []

    class Meta(type):
        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Meta:
            seen.append(name)
            return super().__new__(cls, name, bases, namespace)

    class Base(metaclass=Meta):
        def __init_subclass__(cls) -> None:
            raise ValueError("give name=")

    things: Slab[Base] = Slab("thing")
    thing = things.alloc(Base)
    things.free(thing)

    assert seen == ["Base"]
    assert isinstance(thing, Base)


def test_a_live_object_is_never_poisoned_for_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """While ``alloc()`` finds out whether the first object of a class can be poisoned, others may use it."""

    class Published:
        x = 1

    real, read = _poison._class_of, list[int]()

    class Spy:
        def __get__(self, obj: object, kind: type | None = None) -> object:
            raise NotImplementedError

        def __set__(self, obj: object, kind: type) -> None:
            real.__set__(obj, kind)
            assert isinstance(obj, Published)
            read.append(obj.x)

    with monkeypatch.context() as patch:
        patch.setattr(_poison, "_class_of", Spy())
        Slab[Published]("thing").alloc(Published)

    assert read == [1, 1]


def test_what_was_freed_or_is_allocated_elsewhere_is_not_allocated(slab: Slab[Thing]) -> None:
    """A pool that hands out a freed object has used it; a live object of another slab is refused."""
    things: Slab[Thing] = Slab("other")
    thing = slab.alloc(Thing)
    with pytest.raises(ArgumentValueError, match="allocated already: thing 1, generation 1"):
        things.alloc(lambda: thing)
    slab.free(thing)

    for each in (slab, things):
        with pytest.raises(UseAfterFree, match=r"thing 1, generation 1 .*handed out again"):
            each.alloc(lambda: thing)
    assert things.allocated == 0


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there CPython 3.13 keeps all code")
def test_classes_do_not_accumulate() -> None:
    """A class that a test defines goes with its last object, and so do the classes made for it."""

    class Mine(Callout):
        __slots__ = ("thing",)

    class Other:
        pass

    made: list[weakref.ref[object]] = []

    def use(cls: type) -> None:
        things: Slab[object] = Slab("thing")
        obj = things.alloc(cls)
        things.free(obj)
        made.extend((weakref.ref(cls), weakref.ref(type(obj))))

    use(Mine)
    use(Other)
    del Mine, Other
    gc.collect()

    assert [ref() for ref in made] == [None] * 4


# -- uses that ask no attribute ---------------------------------------------------------------------------------------


class Everything(dict[int, int]):
    """It can be used in all the ways that read no attribute."""

    def __call__(self) -> None:
        """Do nothing."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *args: object) -> None:
        """Do nothing."""

    def __add__(self, other: int) -> int:
        return other

    async def __aenter__(self) -> None:
        """Do nothing."""

    async def __aexit__(self, *args: object) -> None:
        """Do nothing."""


def _with(it: Everything) -> None:
    with it:
        pass


def _async_with(it: Everything) -> None:
    async def use() -> None:
        async with it:
            pass

    use().send(None)


USES: Final[dict[str, Callable[[Everything], object]]] = {
    "len": len,
    "bool": bool,
    "iteration": iter,
    "copied into a list": list,
    "item": lambda it: it[1],
    "set item": lambda it: operator.setitem(it, 1, 2),
    "delete item": lambda it: operator.delitem(it, 1),
    "contains": lambda it: 1 in it,
    "call": lambda it: it(),
    "with": _with,
    "async with": _async_with,
    "operator": lambda it: it + 1,
    "==": lambda it: it == {},
}


@pytest.mark.parametrize("use", USES)
def test_every_special_method_is_a_use(use: str) -> None:
    """What Python looks up in the class is poisoned there, and it is said which method it was."""
    things: Slab[Everything] = Slab("thing")
    thing = things.alloc(Everything)
    things.free(thing)

    with pytest.raises(UseAfterFree, match=r"its method __\w+__\(\) was called|its attribute '\w+' was read"):
        USES[use](thing)


def test_the_truth_of_any_freed_object_is_a_use(slab: Slab[Thing]) -> None:
    """``if thing:`` is a use, also if its class says nothing of truth; ``is`` and ``==`` by identity are none."""
    thing = slab.alloc(Thing)
    slab.free(thing)

    with pytest.raises(UseAfterFree, match=r"__bool__"):
        bool(thing)
    assert thing == thing  # noqa: PLR0124 - by identity
    assert len({thing, thing}) == 1
    assert f"{thing}" == str(thing) == "<freed thing 1, generation 1 (Thing)>"


class Money:
    """It has a way of its own to be printed."""

    def __format__(self, spec: str) -> str:
        return f"1.00 {spec}"


@pytest.mark.parametrize("make", [Money, Thing, lambda: Mtx("m"), armed], ids=["own format", "plain", "Mtx", "Callout"])
def test_printing_in_a_format_of_its_own_is_a_use(vm: VirtualSMP, make: Callable[[], object]) -> None:
    """A freed object is printed without a format; with one, which its class would have to interpret, it is used."""
    things: Slab[object] = Slab("thing")
    thing = things.alloc(make)
    things.free(thing)

    assert f"{thing}" == str(thing) == repr(thing)
    assert things.reports == []
    with pytest.raises(UseAfterFree, match="__format__"):
        f"{thing:EUR}"


def test_what_a_subclass_of_callout_or_lock_adds_is_poisoned(vm: VirtualSMP) -> None:
    """The attributes that the user has added to a callout or to a lock are attributes of a freed object."""

    class Timer(Callout):
        __slots__ = ("due",)

    class Named(Mtx):
        __slots__ = ("place",)

    timers: Slab[Any] = Slab("timer")
    for cls, name in ((Timer, "due"), (Named, "place")):
        obj = timers.alloc(cls)
        setattr(obj, name, 1)
        timers.free(obj)
        with pytest.raises(UseAfterFree, match=f"its attribute '{name}' was read"):
            getattr(obj, name)


# -- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "who"), [(0, "softclock"), (C_DIRECT_EXEC, "the clock interrupt")])
def test_a_report_says_what_ran_the_callback(vm: VirtualSMP, slab: Slab[Thing], flags: int, who: str) -> None:
    """A use in a callback names softclock or the clock interrupt of its CPU, whichever ran it."""
    c = Callout()
    callout_init(c, 1)
    thing = slab.alloc(Thing)
    callout_reset_sbt(c, tick_sbt(), 0, lambda it: it.part, thing, flags)
    slab.free(thing)
    vm.tick(2)

    assert [f"used by {who} of cpu 0 at {__file__}:" in str(error) for error in vm.errors] == [True]


def test_a_caught_use_in_a_foreign_context_is_a_violation() -> None:
    """A use is told to the machine of the object, also where no system is current and the error is swallowed."""

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Thing] = Slab("thing")
        thing = slab.alloc(Thing)
        slab.free(thing)

        def use() -> None:
            try:
                thing.part  # noqa: B018 - a use
            except UseAfterFree:
                pass

        contextvars.Context().run(use)

    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=1)
    assert isinstance(caught.value.__cause__, UseAfterFree)
