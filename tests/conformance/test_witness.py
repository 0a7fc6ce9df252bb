"""witness(4): the order of locks, and of what a drain waits for, in checking mode, on virtual CPUs and on real ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from callout import (
    CALLOUT_TRYLOCK,
    MTX_DUPOK,
    MTX_NOWITNESS,
    MTX_RECURSE,
    PDROP,
    RM_DUPOK,
    RM_NOWITNESS,
    RM_SLEEPABLE,
    RW_DUPOK,
    RW_NOWITNESS,
    Callout,
    LockError,
    LockHeldError,
    LockOrderError,
    Mtx,
    RmLock,
    RwLock,
    SleepError,
    callout_barrier_all_sync,
    callout_barrier_sync,
    callout_drain,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_quiesce_sync,
    callout_reset,
    callout_terminate_sync,
    giant,
    msleep_sync,
    mtx_init,
    mtx_lock,
    rw_rlock,
)
from callout_linux.timer import (
    add_timer,
    timer_delete_sync_blocking,
    timer_list,
    timer_setup,
    timer_shutdown_sync_blocking,
)

from .world import LOCKED, AnyLock, Stage

HERE: Final = re.escape(__file__)

WAITING: Final[list[Callable[[Callout], int]]] = [
    callout_drain_sync,
    callout_terminate_sync,
    callout_barrier_sync,
    callout_quiesce_sync,
]


def nested(*locks: AnyLock) -> None:
    """Acquire *locks*, each with those before it held, and release them."""
    for lock in locks:
        lock.__enter__()
    for lock in reversed(locks):
        lock.__exit__()


def named(s: Stage, kind: str) -> AnyLock:
    """Return a new lock of that kind, which has a name of its own."""
    return s.do(Mtx, "a") if kind == "mtx" else s.lock(kind)


def reading(outer: AnyLock, inner: RwLock) -> None:
    """Read *inner* with *outer* held."""
    with outer, inner.read():
        pass


def read_then(outer: RwLock, inner: AnyLock) -> None:
    """Acquire *inner* with *outer* read."""
    with outer.read(), inner:
        pass


def free(s: Stage, *locks: AnyLock) -> bool:
    """Whether another thread can have each of *locks* without waiting."""
    return all(s.t2.do(_try, lock) for lock in locks)


def _try(lock: AnyLock) -> bool:
    if not lock.try_acquire(shared=False):
        return False
    lock.release_as(shared=False)
    return True


# -- two locks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKED)
@pytest.mark.parametrize("other", ["mtx", "rw"])
def test_two_orders_are_an_error_though_nobody_waits(s: Stage, kind: str, other: str) -> None:
    """The second order is refused when it is first seen, whatever the locks are; both places are in the text."""
    a = named(s, kind)
    b: AnyLock = s.do(Mtx, "other") if other == "mtx" else s.do(RwLock, "other")
    s.t0.do(nested, a, b)

    with pytest.raises(LockOrderError) as caught:
        s.t1.do(nested, b, a)

    text = str(caught.value)
    assert caught.value.lock is a
    assert isinstance(caught.value, LockError)
    line = nested.__code__.co_firstlineno + 3
    acquires = rf"acquires '(\w+)' at {HERE}:{line} in nested\(\) with '(\w+)' held, acquired at {HERE}:{line} in "
    assert re.findall(acquires, text) == [("other", a.name), (a.name, "other")]
    assert f"lock order reversal: '{a.name}' -> 'other' -> '{a.name}', " in text
    assert re.findall(r"\n  (\d)\. thread '?(t\d)'? on cpu (\d) acquires", text) == [
        ("1", "t0", "0"),
        ("2", "t1", str(s.last)),
    ]
    s.t1.do(b.__exit__)  # which is all that it has
    assert free(s, a, b)


def test_the_refusal_changes_nothing_and_comes_each_time(s: Stage) -> None:
    """What was refused is not known as an order: the right order works on, and the wrong one is refused again."""
    a, b = s.do(Mtx, "a"), s.do(Mtx, "b")
    s.t0.do(nested, a, b)
    for _ in range(3):
        with pytest.raises(LockOrderError):
            s.t1.do(nested, b, a)
        s.t1.do(b.__exit__)
        s.t0.do(nested, a, b)


def test_a_deadlock_that_is_about_to_happen_is_refused(s: Stage) -> None:
    """A thread that would wait for ever is told so, though the other order is that of a thread that still waits."""
    a, b = s.do(Mtx, "a"), s.do(Mtx, "b")
    s.t0.do(a.__enter__)
    s.t1.do(b.__enter__)
    waits = s.t0.begin(b.__enter__)
    assert waits.blocked

    with pytest.raises(LockOrderError):
        s.t1.do(a.__enter__)

    s.t1.do(b.__exit__)
    assert not waits.blocked
    s.t0.do(b.__exit__)
    s.t0.do(a.__exit__)


@pytest.mark.parametrize("kind", ["rw", "rm"])
def test_reading_counts_as_writing_does(s: Stage, kind: str) -> None:
    """A read lock that is held, and one that is waited for, are in the order of locks."""
    make = RwLock if kind == "rw" else RmLock
    m, rw, fresh = s.do(Mtx, "m"), s.do(make, "rw"), s.do(make, "fresh")
    s.t0.do(reading, m, rw)
    with pytest.raises(LockOrderError):
        s.t1.do(read_then, rw, m)
    assert free(s, m, rw)

    s.t0.do(nested, m, fresh)
    with pytest.raises(LockOrderError):
        s.t1.do(read_then, fresh, m)
    s.t0.do(read_then, rw, fresh)
    with pytest.raises(LockOrderError):
        s.t1.do(reading, fresh, rw)
    assert free(s, m, rw, fresh)


def test_the_place_of_another_reader_is_not_told(s: Stage) -> None:
    """A lock notes one place; where another thread has read it since, the text has none for this one."""
    a, rw = s.do(Mtx, "a"), s.do(RwLock, "rw")
    s.t0.do(nested, a, rw)
    s.t0.do(rw.rlock)
    with pytest.raises(LockOrderError, match="with 'rw' held, acquired at "):
        s.t0.do(a.__enter__)
    s.t1.do(rw.rlock)

    with pytest.raises(LockOrderError, match="with 'rw' held\n"):
        s.t0.do(a.__enter__)
    s.t0.do(rw.runlock)
    s.t1.do(rw.runlock)


def test_a_cycle_of_three_is_told_whole(s: Stage) -> None:
    """No two of the threads have opposite orders, and yet all three can wait for one another: each step is named."""
    a, b, c = (s.do(Mtx, name) for name in "abc")
    s.t0.do(nested, a, b)
    s.t1.do(nested, b, c)

    with pytest.raises(LockOrderError) as caught:
        s.t2.do(nested, c, a)

    assert "lock order reversal: 'a' -> 'b' -> 'c' -> 'a', " in str(caught.value)
    assert re.findall(r"\n  (\d)\. thread '?(t\d)'? on", str(caught.value)) == [("1", "t0"), ("2", "t1"), ("3", "t2")]
    s.t2.do(c.__exit__)


def test_each_lock_that_is_held_counts(s: Stage) -> None:
    """The order is that of every pair, not only of those acquired one after the other."""
    a, b, c = (s.do(Mtx, name) for name in "abc")

    def try_b_between() -> None:
        with a:
            assert b.trylock()
            with c:
                b.unlock()

    s.t0.do(try_b_between)
    for outer in (a, b):
        with pytest.raises(LockOrderError, match=f"'{outer.name}' -> 'c' -> '{outer.name}'"):
            s.t1.do(nested, c, outer)
        s.t1.do(c.__exit__)


def test_a_gate_makes_no_difference(s: Stage) -> None:
    """As with witness(4) two orders are an error, though a third lock, always held, keeps them apart."""
    gate, a, b = (s.do(Mtx, name) for name in ("gate", "a", "b"))
    s.t0.do(nested, gate, a, b)

    with pytest.raises(LockOrderError):
        s.t1.do(nested, gate, b, a)

    s.t1.do(b.__exit__)
    s.t1.do(gate.__exit__)


# -- what is no error --------------------------------------------------------------------------------------------------


def test_what_is_only_tried_is_not_waited_for(s: Stage) -> None:
    """A trylock against the order is no error, of a mutex, of a read/write lock, of either kind."""
    m, rw = s.do(Mtx, "m"), s.do(RwLock, "rw")
    s.t0.do(nested, m, rw)
    s.t1.do(rw.__enter__)
    assert s.t1.do(m.trylock)
    s.t1.do(m.unlock)
    s.t1.do(rw.__exit__)

    one, other = s.do(RwLock, "one"), s.do(RwLock, "other")
    s.t0.do(nested, one, other)
    for tries, release in ((one.try_rlock, one.runlock), (one.try_wlock, one.wunlock)):
        s.t1.do(other.__enter__)
        assert s.t1.do(tries)
        s.t1.do(release)
        s.t1.do(other.__exit__)
    s.t0.do(nested, one, other)


def test_what_was_tried_and_is_held_counts(s: Stage) -> None:
    """A lock that was acquired by a try has what is acquired after it behind it."""
    m, other = s.do(Mtx, "m"), s.do(Mtx, "other")
    assert s.t0.do(m.trylock)
    s.t0.do(nested, other)
    s.t0.do(m.unlock)

    with pytest.raises(LockOrderError, match="'m' held\n"):  # where it was tried is not known
        s.t1.do(nested, other, m)
    s.t1.do(other.__exit__)


def test_what_a_thread_holds_already_it_does_not_wait_for(s: Stage) -> None:
    """Acquiring a recursive lock once more is in no order with what was acquired in between."""
    r, b = s.do(Mtx, "r", MTX_RECURSE), s.do(Mtx, "b")
    s.t0.do(nested, r, b, r)
    s.t1.do(nested, r, b)
    s.t0.do(nested, s.lock("Giant"), b, s.lock("Giant"))
    rw = s.do(RwLock, "rw")

    def read_twice() -> None:
        with rw.read(), b, rw.read():
            pass

    s.t0.do(read_twice)
    s.t0.do(nested, rw, b)


def test_a_lock_that_is_not_watched_is_in_no_order(s: Stage) -> None:
    """MTX_NOWITNESS and its relatives keep a lock out of it, and what it is held with stays in."""
    unwatched = (s.do(Mtx, "m", MTX_NOWITNESS), s.do(RwLock, "rw", RW_NOWITNESS), s.do(RmLock, "rm", RM_NOWITNESS))
    a, b = s.do(Mtx, "a"), s.do(Mtx, "b")
    for lock in unwatched:
        s.t0.do(nested, lock, b)
        s.t1.do(nested, b, lock)
    s.t0.do(nested, a, unwatched[0], b)
    with pytest.raises(LockOrderError):
        s.t1.do(nested, b, a)
    s.t1.do(b.__exit__)


# -- classes -----------------------------------------------------------------------------------------------------------


def test_locks_of_one_name_are_one_class(s: Stage) -> None:
    """What was seen with one lock counts for all of its name, those that are made later included."""
    table = s.do(Mtx, "table")
    s.t0.do(nested, s.do(Mtx, "conn"), table)

    later = s.do(Mtx, "conn")
    with pytest.raises(LockOrderError):
        s.t1.do(nested, table, later)
    s.t1.do(table.__exit__)


def test_locks_of_one_type_are_one_class(s: Stage) -> None:
    """The type that mtx_init() is given is the class, and the name is not; a name of another type is another class."""
    table = s.do(Mtx, "table")
    s.t0.do(nested, s.do(mtx_init, "conn 1", "conn"), table)

    with pytest.raises(LockOrderError, match="'conn'"):
        s.t1.do(nested, table, s.do(mtx_init, "conn 2", "conn"))
    s.t1.do(table.__exit__)
    s.t1.do(nested, table, s.do(mtx_init, "conn", "other"))


def test_locks_with_no_name_are_no_class(s: Stage) -> None:
    """Each lock that keeps the name which all have is a class of its own, and known by where it was made."""
    a, b = s.do(Mtx), s.do(Mtx)
    s.t0.do(nested, a, b)

    with pytest.raises(LockOrderError, match=r"'mtx', made at .*\d+ in "):
        s.t1.do(nested, b, a)
    s.t1.do(b.__exit__)


@pytest.mark.parametrize(
    ("make", "dup_ok"),
    [(Mtx, MTX_DUPOK), (RwLock, RW_DUPOK), (RmLock, RM_DUPOK)],
    ids=["mtx", "rw", "rm"],
)
def test_two_of_a_class_are_held_together_only_if_that_is_said(
    s: Stage, make: Callable[[str, int], AnyLock], dup_ok: int
) -> None:
    """Acquiring a lock of the class of one that is held is an error, unless they were made with DUPOK."""
    one, two = s.do(make, "conn", 0), s.do(make, "conn", 0)
    with pytest.raises(LockOrderError, match="two locks of the class 'conn' are held together") as caught:
        s.t0.do(nested, one, two)
    assert len(re.findall(rf"at {HERE}:\d+ in nested\(\)", str(caught.value))) == 2
    s.t0.do(one.__exit__)
    assert free(s, one, two)

    three, four = s.do(make, "conn", dup_ok), s.do(make, "conn", dup_ok)
    s.t0.do(nested, three, four)
    s.t1.do(nested, four, three)


# -- callouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOCKED)
def test_what_a_callback_acquires_comes_after_its_callouts_lock(s: Stage, kind: str) -> None:
    """Softclock acquires the lock for the callback, so the callback's own locks come after it."""
    lock, other = named(s, kind), s.do(Mtx, "other")

    def function(_: object) -> None:
        with other:
            pass

    s.do(callout_reset, s.callout(lock), 1, function, None)
    s.tick()

    with pytest.raises(LockOrderError, match=rf"'other' at .* with '{lock.name}' held\n"):
        s.t1.do(nested, other, lock)
    s.t1.do(other.__exit__)


def test_a_callback_that_reverses_the_order_is_reported(s: Stage) -> None:
    """The error leaves the callback as any exception does, and its locks are released."""
    a, b = s.do(Mtx, "a"), s.do(Mtx, "b")
    s.t0.do(nested, a, b)

    s.do(callout_reset, s.callout(b), 1, lambda _: nested(a), None)
    s.tick()

    error = s.error()
    assert isinstance(error, LockOrderError)
    assert "lock order reversal: 'a' -> 'b' -> 'a'" in str(error)
    assert free(s, a, b)


def sleepable(s: Stage) -> RmLock:
    """Return a new lock that may be held while its thread sleeps."""
    return s.do(RmLock, "conf", RM_SLEEPABLE)


def wait_with(held: AnyLock, wait: Callable[[Callout], int], c: Callout) -> None:
    """Wait for *c* with *held* held."""
    with held:
        wait(c)


@pytest.mark.parametrize("wait", WAITING, ids=lambda wait: wait.__name__)
def test_a_drain_waits_for_what_the_callback_acquires(s: Stage, wait: Callable[[Callout], int]) -> None:
    """Waiting for a callout with a lock held that its callback has ever acquired is refused, though it is idle."""
    conf = sleepable(s)

    def function(_: object) -> None:
        with conf.read():
            s.seen("function")

    c = s.callout()
    s.do(callout_reset, c, 1, function, None)
    s.tick()
    assert s.ran == ["function"]

    with pytest.raises(LockOrderError) as caught:
        s.t1.do(wait_with, conf, wait, c)

    assert caught.value.callout is c
    assert caught.value.lock is conf
    callback, waiting = re.findall(r"\n  \d\. (.*)", str(caught.value))
    assert re.search(rf"function\(\), run by .* acquires 'conf' at {HERE}:\d+ in .*function\(\)", callback)
    assert re.search(rf"t1'? on cpu {s.last} waits in {wait.__name__}\(\) at {HERE}:\d+ in wait_with\(\) for ", waiting)
    assert re.search(rf"with 'conf' held, acquired at {HERE}:\d+ in wait_with\(\)$", waiting)
    assert s.do(wait, c) in (-1, 0)  # with nothing held
    assert free(s, conf)


@pytest.mark.parametrize("wait", WAITING, ids=lambda wait: wait.__name__)
def test_a_callback_may_not_acquire_what_a_drain_held(s: Stage, wait: Callable[[Callout], int]) -> None:
    """The other way round: once a drain was made with a lock held, the callback is refused that lock."""
    conf = sleepable(s)

    def function(_: object) -> None:
        with conf.read():
            raise AssertionError("it has it")

    c, twin = s.callout(), s.callout()
    s.do(callout_reset, c, 5, function, None)
    s.t1.do(wait_with, conf, wait, c)

    s.do(callout_reset, twin, 1, function, None)  # another callout with the same function
    s.tick()

    error = s.error()
    assert isinstance(error, LockOrderError)
    assert re.search(rf"1\. .*waits in {wait.__name__}\(\) at {HERE}", str(error))
    assert re.search(rf"2\. .*function\(\), run by .* acquires 'conf' at {HERE}", str(error))
    assert free(s, conf)


def test_a_drain_waits_for_the_callouts_lock(s: Stage) -> None:
    """A run may stand at the callout's lock, so what is acquired with that held counts, though nothing ever ran."""
    conf, m = sleepable(s), s.do(Mtx, "m")
    c = s.callout(m)
    s.do(callout_reset, c, 5, s.seen, None)
    s.t0.do(nested, m, conf)

    with pytest.raises(LockOrderError, match=r"softclock acquires 'm' for the callback .*it is the callout's lock"):
        s.t1.do(wait_with, conf, callout_drain_sync, c)


def test_softclock_that_only_tries_is_not_waited_for(s: Stage) -> None:
    """With CALLOUT_TRYLOCK no run stands at the callout's lock, and so a drain does not wait for that."""
    conf, m = sleepable(s), s.do(Mtx, "m")
    c = s.callout(m, CALLOUT_TRYLOCK)
    s.do(callout_reset, c, 5, s.seen, None)
    s.t0.do(nested, m, conf)
    s.t1.do(wait_with, conf, callout_drain_sync, c)


def test_a_drain_waits_for_locks_further_on(s: Stage) -> None:
    """The callback acquires a lock with which another thread waits for the one that the drain holds: three steps."""
    conf, m = sleepable(s), s.do(Mtx, "m")
    c = s.callout()
    s.do(callout_reset, c, 1, lambda _: nested(m), None)
    s.tick()
    s.t0.do(nested, m, conf)

    with pytest.raises(LockOrderError, match=r"(?s)1\. .*2\. .*3\. "):
        s.t1.do(wait_with, conf, callout_drain_sync, c)


def test_a_drain_waits_for_the_function_that_runs(s: Stage) -> None:
    """While a callout runs it may have been armed with another function: a drain waits for the one that runs."""
    conf = sleepable(s)

    def function(gate: str) -> None:
        if gate:
            s.halt(gate)
        else:
            nested(conf)

    c, other = s.callout(), s.callout()
    s.do(callout_reset, other, 1, function, "")
    s.tick()
    s.do(callout_reset, c, 1, function, "gate")
    s.tick()
    s.do(callout_reset, c, 5, s.seen, None)

    with pytest.raises(LockOrderError):
        s.t1.do(wait_with, conf, callout_drain_sync, c)
    s.open("gate")
    s.t1.do(wait_with, conf, callout_drain_sync, c)  # now it has the other one


def test_the_error_names_the_call(s: Stage) -> None:
    """Its attributes are those of all errors: the call, where there is one to name, and the lock."""
    a, b, conf = s.do(Mtx, "a"), s.do(RwLock, "b"), sleepable(s)
    c = s.callout()
    s.do(callout_reset, c, 1, lambda _: nested(conf), None)
    s.tick()
    s.t0.do(nested, b, a)
    s.t0.do(nested, a, conf)

    def errors() -> Iterator[LockOrderError]:
        for held, acquire in (
            (a, lambda: b.wlock()),
            (a, lambda: rw_rlock(b)),
            (conf, lambda: mtx_lock(a)),
            (conf, a.__enter__),
            (conf, lambda: callout_drain_sync(c)),
        ):
            with held, pytest.raises(LockOrderError) as caught:
                acquire()
            yield caught.value

    told = s.t1.do(lambda: list(errors()))

    assert [str(error).partition("lock order reversal: ")[0] for error in told] == [
        "rw_wlock: ",
        "rw_rlock: ",
        "",
        "",
        "callout_drain_sync: ",
    ]
    assert [(error.call, error.lock, error.callout) for error in told] == [
        ("rw_wlock", b, None),
        ("rw_rlock", b, None),
        ("", a, None),
        ("", a, None),
        ("callout_drain_sync", conf, c),
    ]


def test_two_functions_that_share_nothing_are_told_apart(s: Stage) -> None:
    """A drain waits for the function of its own callout, not for that of others."""
    conf = sleepable(s)
    c, other = s.callout(), s.callout()
    s.do(callout_reset, other, 1, lambda _: nested(conf), None)
    s.tick()
    s.do(callout_reset, c, 5, s.seen, None)
    s.t1.do(wait_with, conf, callout_drain_sync, c)


def test_what_does_not_wait_adds_nothing(s: Stage) -> None:
    """callout_drain_async() does not wait, so its callback may acquire what the caller held, and so may completions."""
    conf = sleepable(s)

    def function(_: object) -> None:
        with conf.read():
            s.seen("function")

    c = s.callout()
    s.do(callout_reset, c, 1, function, None)

    def close() -> None:
        with conf:
            callout_drain_async(c, s.ran.append, "never")

    s.t1.do(close)
    s.do(callout_reset, c, 1, function, None)
    s.tick()
    s.do(callout_reset, c, 1, s.halt, "gate")
    s.tick()
    assert s.t1.do(callout_drain_async, c, function, None) == 1
    s.open("gate")

    assert s.ran == ["function", "gate", "function"]


def test_a_drain_with_a_mutex_held_says_where_the_callback_acquires_it(s: Stage) -> None:
    """That is refused in any case; if the callback is known to acquire it, the place is in the text."""
    m = s.do(Mtx, "m")
    c = s.callout()
    s.do(callout_reset, c, 5, lambda _: nested(m), None)
    with pytest.raises(LockHeldError, match=r"nobody may sleep with a mutex held$"):
        s.t1.do(wait_with, m, callout_drain_sync, c)
    s.tick(5)

    with pytest.raises(LockHeldError, match=rf"; the callback .*, run by .*, acquires 'm' at {HERE}:\d+ in nested"):
        s.t1.do(wait_with, m, callout_drain_sync, c)


def test_only_a_thread_that_blocks_may_hold_a_sleepable_lock(s: Stage) -> None:
    """A task that awaits a drain, and what waits for more than one callout or for an event, hold no lock at all."""
    conf = sleepable(s)
    c = s.callout()
    with pytest.raises(LockHeldError):
        s.t1.do(wait_with, conf, callout_drain, c)  # type: ignore[arg-type]  # it raises at once
    with pytest.raises(SleepError):
        s.t1.do(wait_with, conf, lambda _: callout_barrier_all_sync(), c)


# -- Giant, which a wait releases --------------------------------------------------------------------------------------


def test_a_drain_acquires_giant_again(s: Stage) -> None:
    """A drain releases Giant and acquires it again with the sleepable lock held: so that may not be acquired in it."""
    conf = sleepable(s)
    c = s.callout()

    def right() -> None:
        with conf, giant():
            callout_drain_sync(c)

    def wrong() -> None:
        with giant(), conf:
            callout_drain_sync(c)

    s.t0.do(right)
    with pytest.raises(LockOrderError):
        s.t1.do(wrong)
    assert free(s, conf, s.lock("Giant"))

    fresh = s.do(RmLock, "fresh", RM_SLEEPABLE)

    def first_wrong() -> None:
        with giant(), fresh:
            callout_drain_sync(c)

    with pytest.raises(LockOrderError, match=r"waits in callout_drain\w*\(\) at .*, and then acquires 'Giant' with "):
        s.t1.do(first_wrong)


def test_a_drain_that_has_not_giant_does_not_acquire_it(s: Stage) -> None:
    """So a sleepable lock that is acquired in Giant may be held by a drain."""
    conf = sleepable(s)
    c = s.callout()

    def in_giant() -> None:
        with giant(), conf:
            pass

    def drain() -> None:
        with conf:
            callout_drain_sync(c)

    s.t0.do(in_giant)
    s.t1.do(drain)
    assert free(s, conf, s.lock("Giant"))


def test_a_sleep_acquires_giant_before_its_mutex(s: Stage) -> None:
    """msleep() releases both and acquires Giant first, so a mutex in which Giant is acquired may not sleep with it."""
    right, wrong = s.do(Mtx, "right"), s.do(Mtx, "wrong")

    def sleep(priority: int, *locks: AnyLock) -> None:
        for lock in locks:
            lock.__enter__()
        mtx = locks[0] if isinstance(locks[0], Mtx) and locks[0].name != "Giant" else locks[1]
        assert isinstance(mtx, Mtx)
        try:
            msleep_sync(s, mtx, priority, "wait", 1)
        finally:
            for lock in locks:
                if lock.owned():
                    lock.__exit__()

    slept = s.t0.begin(sleep, 0, s.lock("Giant"), right)
    s.tick(2)
    slept.result()
    with pytest.raises(LockOrderError, match=r"waits in msleep_sync\(\) at .*, and then acquires 'wrong' with 'Giant'"):
        s.t1.do(sleep, 0, wrong, s.lock("Giant"))
    dropped = s.t1.begin(sleep, PDROP, wrong, s.lock("Giant"))
    s.tick(2)
    dropped.result()


# -- the Linux shim ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [timer_delete_sync_blocking, timer_shutdown_sync_blocking])
def test_a_timers_function_is_what_its_deletion_waits_for(s: Stage, wait: Callable[[timer_list], int]) -> None:
    """Timers are told apart by their functions; the places are the user's, not those of the shim."""
    conf = sleepable(s)
    timer, other = timer_list(), timer_list()

    def function(_: timer_list) -> None:
        with conf.read():
            s.seen("function")

    s.do(timer_setup, timer, function, 0)
    s.do(timer_setup, other, s.ran.append, 0)
    s.do(add_timer, timer)
    s.tick(3)
    assert s.ran == ["function"]

    def delete(which: timer_list) -> None:
        with conf:
            wait(which)

    s.t1.do(delete, other)
    with pytest.raises(LockOrderError) as caught:
        s.t1.do(delete, timer)
    assert re.search(
        rf"waits in {wait.__name__}\(\) at {HERE}:\d+ in .*delete\(\) for the callback ", str(caught.value)
    )


def test_without_checking_mode_nothing_is_kept(s: Stage) -> None:
    """A system that is not in checking mode has no witness, and refuses no order."""
    machine = s.world.machine
    held, machine.held, machine.witness = machine.held, None, None
    a, b = s.do(Mtx, "a"), s.do(Mtx, "b")
    assert a.kind is None
    s.t0.do(nested, a, b)
    s.t1.do(nested, b, a)
    c = Callout()
    s.do(callout_init, c, 1)
    s.t1.do(wait_with, a, callout_drain_sync, c)
    machine.held = held
