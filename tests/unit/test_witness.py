"""The graph behind the order of locks: against a plain reference, without leaks, when it is interrupted, and planted
bugs. What users see of it, on virtual CPUs and on real ones, is tests/conformance/test_witness.py.
"""

from __future__ import annotations

import functools
import gc
import random
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import trio

from callout import (
    MTX_DUPOK,
    MTX_RECURSE,
    RM_SLEEPABLE,
    Callout,
    LockError,
    LockOrderError,
    Mtx,
    RmLock,
    RwLock,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    open_callouts,
)
from callout._core import frames
from callout._core import witness as module
from callout._core.witness import Node, Witness
from callout._locks.lock import Lock
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP
from tests.race.mutants import Mutant


@pytest.fixture
def vm() -> Iterator[VirtualSMP]:
    """Give a system whose clock does not move by itself."""
    with VirtualSMP(1, free_clock=False) as smp:
        yield smp


def witness_of(vm: VirtualSMP) -> Witness:
    """Return the witness of a system in checking mode."""
    assert vm.machine.witness is not None
    return vm.machine.witness


def refused(func: Callable[..., object], *args: object) -> bool:
    """Whether the order of locks forbids that."""
    try:
        func(*args)
    except LockOrderError:
        return True
    return False


def nested(*locks: Lock) -> None:
    """Acquire *locks*, each with those before it held; release all, however it ends."""
    held: list[Any] = []
    try:
        for lock in locks:
            assert isinstance(lock, Mtx | RwLock)
            lock.__enter__()
            held.append(lock)
    finally:
        for lock in reversed(held):
            lock.__exit__()


def in_thread(vm: VirtualSMP, func: Callable[..., object], *args: object) -> bool:
    """Have a thread without a loop do that, to its end; return whether it was refused."""
    thread = vm.spawn(refused, func, *args)
    vm.settle()
    assert isinstance(thread.result, bool)
    return thread.result


# -- against a reference -----------------------------------------------------------------------------------------------


class Reference:
    """What may be waited for with what held: a set of pairs."""

    def __init__(self) -> None:
        self.before: set[tuple[int, int]] = set()
        self.held: dict[str, list[int]] = {}

    def reaches(self, start: int, goal: int) -> bool:
        """Whether there is a way from one lock to another."""
        todo, seen = [start], {start}
        while todo:
            here = todo.pop()
            if here == goal:
                return True
            new = {then for first, then in self.before if first == here} - seen
            seen |= new
            todo += new
        return False

    def waits(self, thread: str, lock: int) -> bool:
        """Note a wait, and return whether it is in order."""
        mine = self.held.setdefault(thread, [])
        if lock in mine:
            return True
        if any(self.reaches(lock, held) for held in mine):
            return False
        self.before |= {(held, lock) for held in mine}
        return True


@pytest.mark.parametrize("seed", range(40))
def test_random_acquisitions_are_refused_exactly_when_they_close_a_cycle(seed: int) -> None:
    """Three threads acquire, try and release six locks at random; the reference looks for the cycle another way."""
    chance = random.Random(seed)
    known, refusals = Reference(), 0
    with VirtualSMP(1, free_clock=False) as vm:
        who = ["t0"]
        kinds: list[Callable[[str], Any]] = [Mtx, lambda name: Mtx(name, MTX_RECURSE), RwLock]
        locks = [kinds[n % 3](f"lock {n}") for n in range(6)]
        for lock in locks:
            lock.me = lambda: who[0]
        for _ in range(250):
            thread = who[0] = chance.choice(["t0", "t1", "t2"])
            mine = known.held.setdefault(thread, [])
            number = chance.randrange(len(locks))
            lock = locks[number]
            if mine and (len(mine) > 3 or chance.random() < 0.4):
                number = chance.choice(mine)
                del mine[len(mine) - 1 - mine[::-1].index(number)]
                locks[number].__exit__()
            elif any(number in others for name, others in known.held.items() if name != thread):
                continue  # it would wait
            elif number in mine and not (isinstance(lock, Mtx) and lock._recurse):
                continue  # it would wait for itself
            elif number not in mine and chance.random() < 0.3:
                assert lock.try_acquire(shared=False)
                mine.append(number)
            elif known.waits(thread, number):
                lock.__enter__()
                mine.append(number)
            else:
                refusals += 1
                with pytest.raises(LockOrderError):
                    lock.__enter__()
                assert not lock.owned()
        for thread, numbers in known.held.items():
            who[0] = thread
            assert vm.machine.held is not None
            assert vm.machine.held.get(thread, []) == [locks[number] for number in numbers]
            for number in numbers:
                locks[number].__exit__()
        graph = witness_of(vm)._nodes.values()
        pairs = {(int(a.name[-2]), int(b.name[-2])) for a in graph for b in a.after}
        assert pairs == known.before
    assert refusals


# -- what it keeps -----------------------------------------------------------------------------------------------------


def test_a_million_names_are_forgotten_again(vm: VirtualSMP) -> None:
    """Locks with names of their own, acquired inside another one, leave nothing that grows with their number."""
    table = Mtx("table")
    witness = witness_of(vm)
    assert table.kind is not None
    for number in range(6_000):
        nested(table, Mtx(f"connection {number}"))
        nested(table, Mtx())
        assert len(witness) <= 2 * module._MANY
        assert len(table.kind.node.after) <= 2 * module._MANY


def test_live_locks_are_never_forgotten(vm: VirtualSMP) -> None:
    """However many classes come and go, the order of the locks that there are stays."""
    a, b = Mtx("a"), Mtx("b")
    nested(a, b)
    Mtx("b")  # which dies at once, and its twin lives on
    for number in range(3 * module._MANY):
        Mtx(f"connection {number}")

    assert refused(nested, b, a)


def test_what_lives_is_not_looked_through_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of nodes from which on the dead ones are removed grows with that of the living."""
    monkeypatch.setattr(module, "_MANY", 8)
    with VirtualSMP(1) as vm:
        locks = [Mtx(f"lock {number}") for number in range(50)]

        assert witness_of(vm)._limit >= len(locks)


def test_a_class_outlives_its_locks(vm: VirtualSMP) -> None:
    """The order of names is known when the last lock of a name has died, and one of that name is made again."""
    a, b = Mtx("a"), Mtx("b")
    nested(a, b)
    del a, b
    gc.collect()

    assert refused(nested, Mtx("b"), Mtx("a"))

    x, y, z = Mtx("x"), Mtx("y"), Mtx("z")
    nested(x, y)
    nested(y, z)
    del y
    gc.collect()
    assert refused(nested, z, x)  # by way of a class that has no lock now


def test_a_lock_without_a_name_that_has_died_is_in_nobodys_way(vm: VirtualSMP) -> None:
    """Nothing can wait for it any more, so a way through it is none."""
    a, b, between = Mtx("a"), Mtx("b"), Mtx()
    nested(a, between)
    nested(between, b)
    assert refused(nested, b, a)
    del between
    gc.collect()

    nested(b, a)


def test_neither_locks_nor_callouts_nor_functions_are_kept_alive(vm: VirtualSMP) -> None:
    """What the order of locks was learned from dies as it would without."""

    class Owner:
        def __init__(self) -> None:
            self.mtx, self.conf, self.c = Mtx("m"), RmLock("conf", RM_SLEEPABLE), Callout()
            callout_init_mtx(self.c, self.mtx)

        def expire(self, _: object) -> None:
            nested(Mtx("inner"))

    def use() -> list[weakref.ref[Any]]:
        owner = Owner()
        callout_reset(owner.c, 1, owner.expire, owner)
        vm.tick(2)

        def drain() -> None:
            with owner.conf:
                callout_drain_sync(owner.c)

        assert not in_thread(vm, drain)
        vm.platform.contexts.clear()
        return [weakref.ref(thing) for thing in (owner, owner.mtx, owner.conf, owner.c)]

    gone = use()
    gc.collect()

    assert [ref() for ref in gone] == [None] * 4


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there CPython 3.13 keeps all code")
def test_generated_functions_are_forgotten_again(vm: VirtualSMP) -> None:
    """A callback's node is its code; code that has died makes room, and one that has its address is another one."""
    c = Callout()
    callout_init(c, 1)
    for number in range(3 * module._MANY):
        space: dict[str, Any] = {}
        if number % 100 == 0:
            exec(f"def generated(_): return None or {number} and None", space)  # noqa: S102 - code of its own
            callout_reset(c, 1, space["generated"], None)
            vm.tick()
        witness_of(vm)._callback(eval(f"lambda _: {number}"))  # noqa: S307 - as above

    assert len(witness_of(vm)) <= 2 * module._MANY
    of_another = witness_of(vm)._callback(refused)
    witness_of(vm)._nodes[id(plain.__code__)] = of_another
    assert witness_of(vm)._callback(plain) is not of_another


def test_a_callout_that_was_never_armed_has_no_callback(vm: VirtualSMP) -> None:
    """A drain of it is no edge."""
    conf, c = RmLock("conf", RM_SLEEPABLE), Callout()
    callout_init(c, 1)

    def drain() -> None:
        with conf:
            callout_drain_sync(c)

    before = len(witness_of(vm))
    assert not in_thread(vm, drain)
    assert len(witness_of(vm)) == before


# -- words -------------------------------------------------------------------------------------------------------------


def test_what_a_callback_waits_for_is_told_with_its_loop(vm: VirtualSMP) -> None:
    """The loop of a CPU is named once, and not as on that CPU."""
    a, b, caught = Mtx("a"), Mtx("b"), list[str]()
    nested(a, b)

    def callback(_: object) -> None:
        try:
            nested(b, a)
        except LockOrderError as error:
            caught.append(str(error))

    c = Callout()
    callout_init(c, 1)
    callout_reset(c, 1, callback, None)
    vm.tick(2)

    assert "\n  2. the loop of cpu 0 acquires 'a' at " in caught[0]


def test_code_that_is_nobodys_has_no_place(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a loop itself calls the package there is no place to be named, and the rest is told all the same."""
    monkeypatch.setattr(frames, "spot", lambda _=1: None)
    a, b = Mtx(), Mtx()
    nested(a, b)

    with pytest.raises(LockOrderError, match="thread outside on cpu 0 acquires 'mtx' with 'mtx' held\n"):
        nested(b, a)


# -- functions ---------------------------------------------------------------------------------------------------------


def decorated(func: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a function that calls *func*, as decorators do."""

    @functools.wraps(func)
    def inner(arg: object) -> object:
        return func(arg)

    return inner


class Methods:
    """Callbacks of other kinds."""

    def method(self, _: object) -> None:
        """Be a method."""

    def other(self, _: object) -> None:
        """Be another one."""

    def __call__(self, _: object) -> None:
        """Be an object that can be called."""

    def __getattr__(self, name: str) -> object:
        raise ValueError(name)


def plain(_: object, __: object = None) -> None:
    """Be a function."""


def test_callbacks_are_told_apart_by_what_is_called_in_the_end(vm: VirtualSMP) -> None:
    """A method of two objects is one callback; two functions in the same decorator are two."""
    node = witness_of(vm)._callback
    one, two = Methods(), Methods()

    assert node(one.method) is node(two.method) is not node(one.other)
    assert node(one) is node(two)
    assert node(decorated(plain)) is node(plain) is node(functools.partial(functools.partial(plain), 1))
    assert node(decorated(plain)) is not node(decorated(one.other))
    assert node(decorated(one.other)) is node(one.other)
    assert node([].append) is node(print)
    assert "plain()" in node(decorated(plain)).name
    endless: Any = functools.partial(plain)
    for _ in range(20):
        endless = decorated(endless)
    assert node(endless) is not None


# -- interrupted, and in threads ---------------------------------------------------------------------------------------


def test_of_two_that_close_a_cycle_at_the_same_time_one_is_refused(
    vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the adding of an edge and its examination another thread adds the opposite one."""
    a, b = Mtx("a"), Mtx("b")
    path = module._path
    outcomes: list[bool] = []

    def slow(start: Node, goal: Node) -> object:
        if not outcomes:
            outcomes.append(False)
            outcomes[0] = in_thread(vm, opposite)
        return path(start, goal)

    def opposite() -> None:
        assert a.kind is not None
        assert b.kind is not None
        witness_of(vm).acquire("", a, a.kind, [(b.kind, None)], None)

    monkeypatch.setattr(module, "_path", slow)
    outcomes.append(refused(nested, a, b))

    assert True in outcomes
    monkeypatch.undo()
    assert {refused(nested, a, b), refused(nested, b, a)} == {False, True}


def test_an_edge_that_was_not_examined_is_examined_next_time(vm: VirtualSMP, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises between the two steps leaves the graph whole, and loses no cycle."""
    a, b = Mtx("a"), Mtx("b")
    nested(a, b)

    def interrupted(start: object, goal: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_path", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nested(b, a)
    monkeypatch.undo()

    assert not a.owned()
    assert refused(nested, b, a)
    assert not refused(nested, a, b)


@pytest.mark.trio
async def test_threads_that_keep_one_order_are_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that learn, make locks and forget dead ones at the same time leave the graph whole."""
    monkeypatch.setattr(module, "_MANY", 40)
    interval = sys.getswitchinterval()
    async with open_callouts(checking=True) as system:
        locks = [Mtx(f"lock {number}") for number in range(10)]
        refusals: list[LockOrderError] = []

        def use(seed: int) -> None:
            chance = random.Random(seed)
            with system.bound():
                for _ in range(150):
                    chosen = [locks[number] for number in sorted(chance.sample(range(10), 3))]
                    try:
                        nested(*chosen, Mtx(f"fresh {chance.random()}"))
                    except LockOrderError as error:
                        refusals.append(error)

        sys.setswitchinterval(1e-5)
        try:
            async with trio.open_nursery() as nursery:
                for seed in range(4):
                    nursery.start_soon(trio.to_thread.run_sync, use, seed)
        finally:
            sys.setswitchinterval(interval)

        assert refusals == []
        assert refused(nested, *reversed(locks))
        assert system._machine.witness is not None
        assert len(system._machine.witness) < 200


def test_a_freed_lock_that_is_still_held_is_no_obstacle(vm: VirtualSMP) -> None:
    """A thread that holds a lock which a Slab has freed may acquire another one; the use of the freed one is told."""

    class Thing:
        def __init__(self) -> None:
            self.rw = RwLock("rw")

    slab: Slab[Thing] = Slab("thing")
    thing, other = slab.alloc(Thing), Mtx("other")
    lock = thing.rw
    lock.__enter__()
    slab.free(thing)
    nested(other)


@pytest.mark.trio
async def test_only_checking_mode_has_a_witness() -> None:
    """A system that is opened without it keeps no order, and its locks have no class."""
    async with open_callouts(checking=False) as system:
        assert system._machine.witness is None
        a, b = Mtx("a"), Mtx("b")
        nested(a, b)
        nested(b, a)
        assert a.kind is None
        assert a.since is None
    async with open_callouts() as system:
        assert system._machine.witness is not None
        a, b = Mtx("a"), Mtx("b")
        nested(a, b)
        with pytest.raises(LockOrderError, match=r"in nested\(\)"):
            nested(b, a)


def test_a_type_is_a_str(vm: VirtualSMP) -> None:
    """The class of a lock is named by a str."""
    with pytest.raises(TypeError, match="Mtx: type must be a str or None, not 5"):
        Mtx("m", type=5)  # type: ignore[arg-type]


# -- in explorations ---------------------------------------------------------------------------------------------------


def opposite_orders(vm: VirtualSMP) -> None:
    """Have two threads use two orders, the one after the other, so that none can wait for the other."""
    a, b, done = Mtx("a"), Mtx("b"), vm.cell(False, "done")

    def first() -> None:
        nested(a, b)
        done.value = True

    def second() -> None:
        vm.wait_until(lambda: done.value)
        nested(b, a)

    vm.spawn(first)
    vm.spawn(second)


def test_a_cycle_that_no_schedule_runs_into_is_a_violation() -> None:
    """No schedule deadlocks, and yet the first one that is run is a violation, with a diagram that names the lock."""
    with pytest.raises(Violation) as caught:
        explore(opposite_orders, bound=0)

    assert isinstance(caught.value.__cause__, LockOrderError)
    assert caught.value.number == 1
    assert "lock order reversal: 'a' -> 'b' -> 'a'" in str(caught.value)
    assert "thread second on cpu 0 acquires 'a' at " in str(caught.value)


def test_a_scenario_that_swallows_the_error_is_a_violation_all_the_same() -> None:
    """The report is kept, as that of a use after free is."""

    def scenario(vm: VirtualSMP) -> None:
        a, b = Mtx("a"), Mtx("b")
        nested(a, b)
        try:
            nested(b, a)
        except LockError:
            pass

    with pytest.raises(Violation) as caught:
        explore(scenario)
    assert isinstance(caught.value.__cause__, LockOrderError)


def test_each_schedule_has_an_order_of_its_own() -> None:
    """Two schedules that acquire in different orders are no cycle: each is a system of its own."""

    def scenario(vm: VirtualSMP) -> None:
        a, b, turn = Mtx("a"), Mtx("b"), vm.cell(0, "turn")
        vm.spawn(lambda: setattr(turn, "value", 1), name="other")
        nested(*((a, b) if turn.value else (b, a)))

    certificate = explore(scenario)

    assert certificate.exhausted
    assert certificate.schedules >= 2


# -- planted bugs ------------------------------------------------------------------------------------------------------


def outcomes() -> dict[str, bool]:
    """Play the uses of locks that tell a right witness from a wrong one; return what was refused."""
    out: dict[str, bool] = {}
    with VirtualSMP(1, free_clock=False) as vm:
        a, b, c, r = Mtx("a"), Mtx("b"), Mtx("c"), Mtx("r", MTX_RECURSE)
        nested(a, b)
        out["the same order"] = refused(nested, a, b)
        nested(a, c)
        out["the opposite"] = refused(nested, b, a)
        out["the opposite, again"] = refused(nested, b, a)
        nested(b, r)
        out["a cycle of three"] = refused(nested, r, a)
        out["recursion"] = refused(nested, r, c, r)
        assert r.trylock()
        out["tried, against the order"] = not b.trylock()
        b.unlock()
        r.unlock()
        x = Mtx("x")
        assert x.trylock()
        nested(Mtx("y"))
        x.unlock()
        out["after what was tried"] = refused(nested, Mtx("y"), x)
        p, q, last = Mtx("p"), Mtx("q"), Mtx("last")
        nested(p, q, last)
        out["not the last one"] = refused(nested, last, p)
        out["two of a class"] = refused(nested, Mtx("dup"), Mtx("dup"))
        out["two of a class that allows it"] = refused(nested, Mtx("ok", MTX_DUPOK), Mtx("ok", MTX_DUPOK))

        for name, wait_first in (("callback, then drain", False), ("drain, then callback", True)):
            conf, c1 = RmLock(f"conf {name}", RM_SLEEPABLE), Callout()
            callout_init(c1, 1)

            # Code of its own for each: the callback is known by that.
            space: dict[str, Any] = {"nested": nested, "refused": refused, "conf": conf, "out": out, "name": name}
            exec("def callback(_): out[name + ': callback'] = refused(nested, conf)", space)  # noqa: S102

            def drain(c: Callout = c1, held: RmLock = conf) -> None:
                with held:
                    callout_drain_sync(c)

            callout_reset(c1, 1, space["callback"], None)
            if wait_first:
                callout_reset(c1, 5, space["callback"], None)
                out[name] = in_thread(vm, drain)
                callout_reset(c1, 1, space["callback"], None)
            vm.tick(2)
            if not wait_first:
                out[name] = in_thread(vm, drain)

        conf, mine, c2 = RmLock("conf", RM_SLEEPABLE), Mtx("mine"), Callout()
        callout_init_mtx(c2, mine)
        callout_reset(c2, 5, plain, None)
        nested(mine, conf)

        def drain_own() -> None:
            with conf:
                callout_drain_sync(c2)

        out["the callout's own lock"] = in_thread(vm, drain_own)

        later, c3 = RmLock("later", RM_SLEEPABLE), Callout()
        callout_init(c3, 1)
        callout_reset(c3, 1, plain, None)
        vm.tick(2)
        vm.spawn(nested, later, cpu=0)  # on the loop that has run the callback
        vm.settle()

        def drain_later() -> None:
            with later:
                callout_drain_sync(c3)

        out["outside the callback"] = in_thread(vm, drain_later)
    return out


RIGHT: Final = {
    "the same order": False,
    "the opposite": True,
    "the opposite, again": True,
    "a cycle of three": True,
    "recursion": False,
    "tried, against the order": False,
    "after what was tried": True,
    "not the last one": True,
    "two of a class": True,
    "two of a class that allows it": False,
    "callback, then drain": True,
    "callback, then drain: callback": False,
    "drain, then callback": False,
    "drain, then callback: callback": True,
    "the callout's own lock": True,
    "outside the callback": False,
}

PLANTED: Final = [
    Mutant("a drain adds no edge", Witness.wait, "self._callbacks(c)", "()"),
    Mutant(
        "what a callback acquires is forgotten",
        Witness.acquire,
        "self._running.get(self._machine.platform.current_thread(), ())",
        "()",
    ),
    Mutant("a callback that has returned counts for ever", Witness.run, "del inside[-1]", "pass"),
    Mutant("the callout's own lock is forgotten", Witness.wait, "own is not None", "False"),
    Mutant(
        "only the newest edge is remembered",
        Witness._follow,
        "edge = first.after[then] = Edge(say())",
        "first.after.clear(); edge = first.after[then] = Edge(say())",
    ),
    Mutant("only two locks make a cycle", module._path, "queue.append(other)", "pass"),
    Mutant("a refused edge stays, and is in order next time", Witness._follow,
           "first.after.pop(then, None)", "edge.examined = True"),
    Mutant("a lock that is held is waited for", Lock._check_order, "lock is self", "False"),
    Mutant("a try is a wait", Mtx.try_acquire, "self._note_acquired()", "self._note_acquired(self._check_order())"),
    Mutant("a mutex is in no order", Mtx.__enter__, "self._check_order()", "None"),
    Mutant("two of a class are never refused", Witness._follow, "not first.dup_ok", "False"),
    Mutant("two of a class are always refused", Witness._follow, "not first.dup_ok", "True"),
]  # fmt: skip


def test_the_order_of_locks_is_as_it_should_be() -> None:
    """Without a planted bug each use is refused, or not, as the table says."""
    assert outcomes() == RIGHT


@pytest.mark.pure
@pytest.mark.parametrize("mutant", PLANTED, ids=str)
def test_a_planted_bug_shows(mutant: Mutant) -> None:
    """With any of these bugs some use is refused that should not be, or the other way round."""
    with mutant.planted():
        try:
            assert outcomes() != RIGHT
        except (LockOrderError, RuntimeError):
            pass  # a use that must be in order was refused
