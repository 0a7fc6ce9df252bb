"""``Slab``: what is used after it was freed, freed twice, or never."""

from __future__ import annotations

import abc
import inspect
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    CalloutError,
    Mtx,
    RwLock,
    UseAfterFree,
    callout_active,
    callout_deactivate,
    callout_drain,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_pending,
    callout_reset,
    callout_reset_on,
    callout_schedule,
    callout_stop,
    draining,
    open_callouts,
)
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP


class Session:
    """Something with a lock and callouts, as a user would write it."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.lock = Mtx("session lock")
        self.timers = {"idle": Callout()}
        self.refs = 0
        callout_init_mtx(self.timers["idle"], self.lock)

    @property
    def idle(self) -> Callout:
        """Its timer."""
        return self.timers["idle"]


def ignore(arg: object) -> None:
    """Do nothing."""


def say_hello(session: Session) -> None:
    """Use it."""
    session.peer  # noqa: B018 - a use


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give two virtual CPUs whose clock is driven by hand."""
    with VirtualSMP(2, free_clock=False) as machine:
        yield machine


@pytest.fixture
def slab() -> Slab[Session]:
    """Give a slab."""
    return Slab("session")


def line_of(function: Callable[..., object], text: str) -> int:
    """Return the number of the line of *function* that contains *text*."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


# -- objects -----------------------------------------------------------------------------------------------------


def test_a_live_object_is_as_it_was_made(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """``alloc`` passes on its arguments and returns an ordinary instance."""
    session = slab.alloc(Session, peer="a")

    assert type(session) is Session
    assert session.peer == "a"
    assert (slab.allocated, slab.freed) == (1, 0)
    assert not slab.is_freed(session)


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.peer,
        lambda session: setattr(session, "peer", "b"),
        lambda session: delattr(session, "peer"),
        lambda session: session.idle,
        lambda session: vars(session),
    ],
    ids=["read", "set", "delete", "property", "vars"],
)
def test_every_use_of_an_attribute_is_found(
    vm: VirtualSMP, slab: Slab[Session], use: Callable[[Session], object]
) -> None:
    """Reading, setting and deleting an attribute of what was freed raise UseAfterFree."""
    session = slab.alloc(Session, "a")
    slab.free(session)

    with pytest.raises(UseAfterFree, match=r"^session 1, generation 1 \(Session\) was used after it was freed"):
        use(session)


def test_looking_is_no_use(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """A freed object can be printed, compared by identity, tested for its class, and asked about."""
    session = slab.alloc(Session, "a")
    slab.free(session)

    assert repr(session) == "<freed session 1, generation 1 (Session)>"
    assert isinstance(session, Session)
    assert slab.is_freed(session)
    assert slab.reports == []


def test_the_report_names_the_object_and_the_three_places(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """A report says which object, and who allocated, freed and used it, each with file, line and function."""

    def free(session: Session) -> None:
        slab.free(session)

    def use(session: Session) -> None:
        say_hello(session)

    session = slab.alloc(Session, "a")
    free(session)
    with pytest.raises(UseAfterFree) as caught:
        use(session)
    here = re.escape(f"at {__file__}:")
    me = "test_the_report_names_the_object_and_the_three_places"
    lines = str(caught.value).split("\n  ")

    assert lines[0] == "session 1, generation 1 (Session) was used after it was freed: its attribute 'peer' was read"
    used = line_of(say_hello, "session.peer")
    assert re.fullmatch(rf"used by thread 'outside' {here}{used} in say_hello\(\) <- .*use\(\) <- {me}\(\)", lines[1])
    assert re.fullmatch(rf"freed by thread 'outside' {here}\d+ in {me}\.<locals>\.free\(\) <- {me}\(\) <- .*", lines[2])
    assert re.fullmatch(rf"allocated by thread 'outside' {here}\d+ in {me}\(\) <- .*", lines[3])
    assert slab.reports == [str(caught.value)]


def test_a_slot_that_is_used_again_has_another_generation(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """The slot freed last is used first, and a report tells its objects apart."""
    first = slab.alloc(Session, "a")
    other = slab.alloc(Session, "b")
    slab.free(first)
    again = slab.alloc(Session, "c")

    assert [allocation.name for allocation in slab.leaks()] == ["session 2, generation 1", "session 1, generation 2"]
    with pytest.raises(UseAfterFree, match=r"session 1, generation 1 "):
        say_hello(first)
    assert (other.peer, again.peer) == ("b", "c")


def test_a_double_free_is_found(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """Freeing a second time raises UseAfterFree, which says so, and is not counted as a free."""
    session = slab.alloc(Session, "a")
    slab.free(session)

    with pytest.raises(UseAfterFree, match="double free"):
        slab.free(session)
    assert slab.freed == 1


def test_leaks_are_what_was_not_freed(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """``leaks()`` gives each live object with its name and the place of its allocation."""
    freed, leaked = slab.alloc(Session, "a"), slab.alloc(Session, "b")
    slab.free(freed)
    [leak] = slab.leaks()

    assert leak.obj is leaked
    assert f"session 2, generation 1 (Session), allocated by thread 'outside' at {__file__}:" in str(leak)


def test_what_is_not_of_the_slab_is_refused(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """Freeing what another slab or nobody has allocated is an ArgumentValueError, and changes nothing."""
    other: Slab[Session] = Slab("other")
    session = other.alloc(Session, "a")

    with pytest.raises(ArgumentValueError, match="was not allocated from"):
        slab.free(session)
    assert session.peer == "a"


def test_an_object_is_allocated_once(slab: Slab[Session]) -> None:
    """A factory that returns a live object is an ArgumentValueError."""
    things: Slab[Plain] = Slab("plain")
    plain = things.alloc(Plain)

    with pytest.raises(ArgumentValueError, match="allocated already: plain 1, generation 1"):
        things.alloc(lambda: plain)


class Impatient:
    """Arms what frees it before its ``__init__`` has returned."""

    def __init__(self, slab: Slab[Impatient], fails: bool = False) -> None:
        self.slab = slab
        self.entry = Callout()
        callout_init(self.entry, 1)
        callout_reset(self.entry, 1, Impatient.over, self)
        if fails:
            raise LookupError("no such peer")

    def over(self) -> None:
        """End it."""
        self.slab.free(self)


def test_an_object_may_be_freed_while_it_is_made() -> None:
    """What ``__init__`` arms may run, and free the object, before ``alloc()`` has returned: it is allocated already."""

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Impatient] = Slab("session")
        slab.alloc(Impatient, slab)
        vm.settle()

        assert slab.freed == 1

    explore(scenario, bound=2)


def test_what_cannot_be_made_was_not_allocated(vm: VirtualSMP) -> None:
    """If ``__init__`` raises nothing was allocated, and the callback that would free it is told so."""
    slab: Slab[Impatient] = Slab("session")

    with pytest.raises(LookupError):
        slab.alloc(Impatient, slab, fails=True)

    assert slab.allocated == 0
    vm.tick(1)
    with pytest.raises(ArgumentValueError, match="not allocated from"):
        raise vm.errors.pop()


def test_what_new_makes_of_another_class_is_not_initialised() -> None:
    """As where such a class is called: also if isinstance() says that it is of this class."""

    class Shape(abc.ABC):  # noqa: B024
        def __new__(cls, n: int) -> Any:  # noqa: ANN401 - of another class
            return Circle(n)

    class Circle:
        def __init__(self, n: int) -> None:
            made.append(n)

    made: list[int] = []
    Shape.register(Circle)
    shapes: Slab[Any] = Slab("shape")
    shapes.alloc(Shape, 1)

    assert made == [1]


def test_a_name_is_not_used_up_by_what_could_not_be_made(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """The next object has the slot, and the generation."""
    slabs: Slab[Impatient] = Slab("session")
    for _ in range(2):
        with pytest.raises(LookupError):
            slabs.alloc(Impatient, slabs, fails=True)
    slabs.alloc(Impatient, slabs)

    assert [leak.name for leak in slabs.leaks()] == ["session 1, generation 1"]


@pytest.mark.parametrize("what", [None, 5, "x"])
def test_what_makes_no_object_is_refused(what: Any) -> None:  # noqa: ANN401 - the wrong types are what is tested
    """``alloc()`` wants a class or a function, and says so; of an asynchronous one nothing is left to be awaited."""

    async def later() -> None:
        """Would never run."""

    things: Slab[Any] = Slab("thing")
    with pytest.raises(ArgumentTypeError, match=r"^Slab.alloc: give a class"):
        things.alloc(what)
    with pytest.raises(ArgumentTypeError, match=r"^Slab.alloc: "):
        things.alloc(later)


def test_an_init_that_returns_something_is_the_error_of_python(slab: Slab[Session]) -> None:
    """As where such a class is called."""

    class Odd:
        def __init__(self) -> None:
            return 3  # type: ignore[return-value]  # noqa: PLE0101

    with pytest.raises(TypeError, match="__init__") as calling:
        Odd()
    with pytest.raises(TypeError, match="__init__") as allocating:
        slab.alloc(Odd)  # type: ignore[arg-type]

    assert str(allocating.value) == str(calling.value)


@dataclass
class Plain:
    """A dataclass, with a generated ``__eq__`` and ``__repr__``."""

    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Frozen:
    """One that cannot be changed."""

    name: str = "x"


@dataclass(slots=True)
class Bare:
    """One that cannot be poisoned."""

    name: str = "x"


@pytest.mark.parametrize("make", [Plain, Frozen])
def test_it_needs_no_system(make: Callable[[], Plain | Frozen]) -> None:
    """Objects without callouts and locks, frozen and slotted ones too, need no open system."""
    things: Slab[Plain | Frozen] = Slab("thing")
    thing = things.alloc(make)
    things.free(thing)

    with pytest.raises(UseAfterFree):
        hash(thing) if make is Frozen else str(vars(thing))


@pytest.mark.parametrize("make", [Bare, object, dict])
def test_what_cannot_be_poisoned_is_refused_at_once(make: Callable[[], object]) -> None:
    """``alloc`` of what has neither weak references nor an ordinary class raises, and says what to do."""
    with pytest.raises(ArgumentTypeError, match="__weakref__"):
        Slab[object]("thing").alloc(make)


def test_what_nobody_refers_to_is_not_kept() -> None:
    """A freed object goes when its last reference goes: the slab keeps nothing of it."""
    things: Slab[Plain] = Slab("plain")
    thing = things.alloc(Plain)
    names = thing.names
    before = sys.getrefcount(names)
    things.free(thing)
    del thing

    assert sys.getrefcount(names) == before - 1


# -- callouts and locks in it ---------------------------------------------------------------------------------------

CALLS: Final[dict[str, Callable[[Callout], object]]] = {
    "reset": lambda c: callout_reset(c, 1, ignore, None),
    "reset_on": lambda c: callout_reset_on(c, 1, ignore, None, 1),
    "schedule": lambda c: callout_schedule(c, 1),
    "stop": callout_stop,
    "drain_async": lambda c: callout_drain_async(c, ignore, None),
    "pending": callout_pending,
    "active": callout_active,
    "deactivate": callout_deactivate,
    "init": lambda c: callout_init(c, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_for_a_freed_callout_is_found(vm: VirtualSMP, slab: Slab[Session], call: str) -> None:
    """Every function of callout(9) raises UseAfterFree for a callout in freed memory, and says which one."""
    session = slab.alloc(Session, "a")
    idle = session.idle
    slab.free(session)

    with pytest.raises(UseAfterFree, match=re.escape("callout \"timers['idle']\"")):
        CALLS[call](idle)


def test_draining_a_freed_callout_is_found(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """So does ``callout_drain``, before it waits."""
    session = slab.alloc(Session, "a")
    idle = session.idle
    slab.free(session)

    with pytest.raises(UseAfterFree):
        vm.run(lambda: callout_drain(idle))


@pytest.mark.parametrize("inside", [False, True])
def test_leaving_a_block_that_drains_a_freed_callout_is_found(
    vm: VirtualSMP, slab: Slab[Session], *, inside: bool
) -> None:
    """``draining`` raises for a freed callout, also if the block itself has freed it; one never initialised is none."""
    session = slab.alloc(Session, "a")
    idle = session.idle
    if not inside:
        slab.free(session)

    async def leave() -> None:
        async with draining(Callout(), idle):
            if inside:
                slab.free(session)

    with pytest.raises(UseAfterFree, match=rf"timers\['idle'\][^\n]*\n  used by [^\n]* at {__file__}"):
        vm.run(leave)
    assert len(slab.reports) == 1


def test_a_callout_that_is_freed_while_scheduled_is_found_when_it_fires(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """``free`` raises nothing; in the place of the callback softclock reports the use, and where it was armed."""
    session = slab.alloc(Session, "a")
    with session.lock:
        callout_reset_on(session.idle, 2, say_hello, session, 1)
    slab.free(session)
    vm.tick(1)

    assert vm.errors == []

    vm.tick(2)
    [error] = vm.errors
    me = test_a_callout_that_is_freed_while_scheduled_is_found_when_it_fires
    armed = line_of(me, "callout_reset_on(session.idle")

    assert isinstance(error, UseAfterFree)
    assert "softclock ran its callout" in str(error)
    assert "used by softclock of cpu 1 at " in str(error)
    assert f"function say_hello, armed at {__file__}:{armed} in {me.__name__}()" in str(error)
    for cpu in vm.machine.cpus:
        cpu.wheel.check()


def test_a_callback_that_uses_what_was_freed_is_named(vm: VirtualSMP) -> None:
    """A callback whose argument was freed reports softclock of its CPU, in the function that used it."""
    things: Slab[Plain] = Slab("plain")
    thing, c = things.alloc(Plain), Callout()
    callout_init(c, 1)
    callout_reset_on(c, 1, lambda it: it.names, thing, 1)
    things.free(thing)
    vm.tick(2)
    [error] = vm.errors

    assert isinstance(error, UseAfterFree)
    assert f"used by softclock of cpu 1 at {__file__}:" in str(error)


def test_a_freed_lock_is_found_when_acquired(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """Taking a lock in freed memory raises UseAfterFree and names the lock."""
    session = slab.alloc(Session, "a")
    lock = session.lock
    slab.free(session)

    with pytest.raises(UseAfterFree, match="its lock 'session lock' was acquired"), lock:
        pass


def test_a_lock_that_is_freed_while_held_is_found_when_released(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """Freeing before unlocking raises UseAfterFree at the unlock."""
    session = slab.alloc(Session, "a")

    with pytest.raises(UseAfterFree, match="its lock 'session lock' was released"), session.lock:
        slab.free(session)


@pytest.mark.parametrize(("frees", "unlocks"), [("holder", False), ("holder", True), ("another", True)])
def test_who_blocks_at_a_lock_that_is_freed_is_told(
    vm: VirtualSMP, slab: Slab[Session], frees: str, unlocks: bool
) -> None:
    """A thread that blocks at a lock gets UseAfterFree when that is freed, also if its holder never releases it.

    Where another thread than the holder has freed it the release is what tells, and is a use after free itself.
    """
    session = slab.alloc(Session, "a")
    lock, told = session.lock, list[str]()

    def block() -> None:
        with pytest.raises(UseAfterFree, match="its lock 'session lock' was acquired"):
            lock.__enter__()
        told.append("blocks")

    lock.__enter__()
    vm.spawn(block)
    vm.settle()
    if frees == "holder":
        slab.free(session)
    else:
        vm.spawn(slab.free, session)
    vm.settle()
    if unlocks:
        with pytest.raises(UseAfterFree, match="its lock 'session lock' was released"):
            lock.__exit__(None, None, None)
    vm.settle()

    assert told == ["blocks"]


def test_a_callback_that_frees_under_its_lock_is_reported(vm: VirtualSMP, slab: Slab[Session]) -> None:
    """If a callback frees the lock that softclock holds for it, softclock reports that and lives on."""
    session, later, ran = slab.alloc(Session, "a"), Callout(), list[int]()
    callout_init(later, 1)
    callout_reset(later, 2, ran.append, 1)
    with session.lock:
        callout_reset(session.idle, 1, slab.free, session)
    vm.tick(3)
    [error] = vm.errors

    assert isinstance(error, UseAfterFree)
    assert "was released" in str(error)
    assert ran == [1]


@pytest.mark.parametrize("kind", [Mtx, RwLock])
def test_borrowed_members_and_giant_stay_as_they_are(vm: VirtualSMP, kind: type[Mtx | RwLock]) -> None:
    """What ``borrowed`` names, and Giant always, is not poisoned."""
    shared = kind("shared")

    class User:
        def __init__(self) -> None:
            self.shared = shared
            self.giant = vm.machine.giant

    users: Slab[User] = Slab("user", borrowed=["shared"])
    users.free(users.alloc(User))

    with shared, vm.machine.giant:
        pass


def test_a_callout_can_be_the_object_itself(vm: VirtualSMP) -> None:
    """A subclass of Callout is poisoned as a whole."""

    class Timer(Callout):
        __slots__ = ("due",)

    timers: Slab[Timer] = Slab("timer")
    timer = timers.alloc(Timer)
    callout_init(timer, 1)
    timers.free(timer)

    with pytest.raises(UseAfterFree, match="timer 1"):
        callout_stop(timer)
    with pytest.raises(UseAfterFree, match="double free"):
        timers.free(timer)


# -- every schedule, and real loops -----------------------------------------------------------------------------------


def stop_and_free(vm: VirtualSMP) -> None:
    """Tear down as one must not: free while softclock may still wait for the lock."""
    slab: Slab[Session] = Slab("session")
    session = slab.alloc(Session, "a")
    lock = session.lock
    with lock:
        callout_reset(session.idle, 1, ignore, session)
    with lock:
        callout_stop(session.idle)
    slab.free(session)
    vm.settle()


def drain_async_and_free(vm: VirtualSMP) -> None:
    """Tear down as one must: refcount = callouts + 1."""
    slab: Slab[Session] = Slab("session")
    session = slab.alloc(Session, "a")
    with session.lock:
        callout_reset(session.idle, 1, ignore, session)

    def drop(it: Session) -> None:
        with it.lock:
            it.refs -= 1
            last = it.refs == 0
        if last:
            slab.free(it)

    with session.lock:
        session.refs = 2
        if not callout_drain_async(session.idle, drop, session):
            session.refs -= 1
    drop(session)
    vm.settle()
    assert not slab.leaks()


def test_the_explorer_finds_stop_and_free() -> None:
    """Some schedule of stop-and-free ends with softclock at a freed lock, though the stop had returned 1."""
    with pytest.raises(Violation) as caught:
        explore(stop_and_free)

    assert isinstance(caught.value.__cause__, UseAfterFree)
    assert "softclock of cpu 0" in str(caught.value.__cause__)


def test_no_schedule_of_the_drain_async_pattern_is_found() -> None:
    """The reference-counted pattern survives every schedule with at most two preemptions."""
    certificate = explore(drain_async_and_free)

    assert certificate.exhausted
    assert certificate.schedules >= 97


@pytest.mark.trio
async def test_on_real_loops_a_use_in_softclock_leaves_through_on_error() -> None:
    """On trio a callout freed while scheduled is reported to ``on_error`` by the CPU's softclock, after its time."""
    errors: list[Exception] = []
    reported = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def on_error(error: Exception, c: Callout | None) -> None:
        errors.append(error)
        token.run_sync_soon(reported.set)

    async with open_callouts(2, on_error=on_error):
        slab: Slab[Session] = Slab("session")
        session = slab.alloc(Session, "a")
        # Whether softclock has taken it from its queue by then or not: the mutex, which it cannot have, is freed.
        lock = session.lock
        lock.lock()
        callout_reset_on(session.idle, 1, ignore, session, 1)
        slab.free(session)
        with pytest.raises(UseAfterFree):
            lock.unlock()
        await reported.wait()

    assert [type(error) for error in errors] == [UseAfterFree]
    assert "softclock of cpu 1" in str(errors[0])


@pytest.mark.trio
async def test_on_real_loops_reports_name_tasks_and_threads() -> None:
    """On trio a report names the task and the thread that used and freed."""
    async with open_callouts():
        slab: Slab[Session] = Slab("session")
        session = slab.alloc(Session, "a")
        thread = threading.Thread(target=slab.free, args=(session,), name="the freer")
        thread.start()
        thread.join()
        with pytest.raises(UseAfterFree) as caught:
            say_hello(session)

    assert "used by task " in str(caught.value)
    assert "freed by thread 'the freer' at " in str(caught.value)


@pytest.mark.trio
async def test_freeing_after_the_system_was_closed_is_no_error() -> None:
    """Memory may be freed when the system is gone; later uses are found all the same."""
    slab: Slab[Session] = Slab("session")
    async with open_callouts():
        session = slab.alloc(Session, "a")
        idle = session.idle
        with session.lock:
            callout_reset(idle, 1000, ignore, session)
    slab.free(session)

    with pytest.raises(UseAfterFree):
        callout_stop(idle)


# -- imports ------------------------------------------------------------------------------------------------------


def test_slab_needs_no_extra() -> None:
    """Without greenlet ``Slab`` can be imported, and ``VirtualSMP`` raises MissingExtraError, which names the extra."""
    script = """
import sys
sys.modules["greenlet"] = None
from callout import MissingExtraError
from callout.testing import Slab
try:
    from callout.testing import VirtualSMP
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "callout[explore]" in done.stdout


def test_a_typo_is_an_attribute_error() -> None:
    """A name that ``callout.testing`` has not is an ImportError, as of any module."""
    with pytest.raises(ImportError, match="VirtualSPM"):
        exec("from callout.testing import VirtualSPM")  # noqa: S102 - mypy would see it, too


def test_use_after_free_is_a_callout_error() -> None:
    """``except CalloutError`` catches it, as everything that this package raises on purpose."""
    assert issubclass(UseAfterFree, CalloutError)
