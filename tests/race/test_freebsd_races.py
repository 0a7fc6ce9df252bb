"""The races of the FreeBSD mail and of what came after it, each with the wrong variant found and the right one clean.

The mail is Hans Petter Selasky's of 29 December 2014, which announced the rewrite of kern_timeout.c
(review D1438, committed as r277213 on 15 January 2015). What came after it: review D7135, on armings during an
asynchronous drain; commit bffebc336f4e and reviews D45746 and D45747 of 2024, with CALLOUT_TRYLOCK.

What is freed is a *pcb* with a mutex and callouts under it. Any use of it afterwards, by the engine too, is a
``UseAfterFree``; freeing it twice or never is an error of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Never

import pytest

from callout import (
    CALLOUT_TRYLOCK,
    Callout,
    LockHeldError,
    Mtx,
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
    callout_stop,
    giant,
    mtx_lock,
    mtx_unlock,
)
from callout._core.cpu import NOWHERE
from callout._core.stop import stop_locked
from callout.explore import Certificate, Violation, explore
from callout.testing import VirtualSMP
from tests.race import mutants
from tests.race.history import undisturbed
from tests.race.mutants import Mutant

Scenario = Callable[[VirtualSMP], None]


def used(_: object, *args: object) -> Never:
    """Stand for a field or method of freed memory."""
    raise UseAfterFree("freed memory was used")


class FreedMtx(Mtx):
    """Where a mutex was."""

    __slots__ = ()

    __enter__ = __exit__ = try_acquire = release_as = owned = used  # type: ignore[assignment]  # whatever the signature


class FreedCallout(Callout):
    """Where a callout was."""

    __slots__ = ()


# Afterwards, for a class is not made with these.
for _name in ("arg", "func", "lock", "run", "seq", "state", "time"):
    setattr(FreedCallout, _name, property(used, used))
setattr(FreedCallout, "c_cpu", property(lambda _: NOWHERE))  # noqa: B010 - so say the types of its slots


class Pcb:
    """A protocol control block: some callouts under one mutex."""

    def __init__(self, vm: VirtualSMP, callouts: int, *, flags: int = 0, rearms: bool = False) -> None:
        """With *rearms* each callout is armed once more, by its first run."""
        self.vm = vm
        self.freed = False
        self.refs = 0
        self.rearms = rearms
        with undisturbed(vm):
            self.lock = Mtx("pcb")
            self.callouts = [Callout() for _ in range(callouts)]
            for c in self.callouts:
                callout_init_mtx(c, self.lock, flags)
                callout_reset(c, 1, self.timer, (c, 0))

    def timer(self, arg: tuple[Callout, int]) -> None:
        """The callback."""
        c, times = arg
        assert not self.freed, "a callback runs on a freed pcb"
        self.vm.platform.point()
        if self.rearms and times == 0:
            callout_reset(c, 1, self.timer, (c, 1))

    def free(self) -> None:
        """Free the memory."""
        assert not self.freed, "freed twice"
        for c in self.callouts:
            assert not callout_pending(c), "an armed callout was freed"
        self.freed = True
        self.lock.__class__ = FreedMtx
        for c in self.callouts:
            c.__class__ = FreedCallout

    def release(self, _: object = None) -> None:
        """Drop one reference; the last one frees."""
        mtx_lock(self.lock)
        self.refs -= 1
        refs = self.refs
        mtx_unlock(self.lock)
        if refs == 0:
            self.free()

    def gone(self) -> None:
        """Let everything end; then it must have been freed."""
        self.vm.settle()
        assert self.freed, "never freed"


def clean(scenario: Scenario, *, at_least: int, bound: int = 2) -> Certificate:
    """Explore to the end and find nothing, in as many schedules at least."""
    certificate = explore(scenario, bound=bound)
    assert certificate.exhausted
    assert certificate.schedules >= at_least
    return certificate


def found(scenario: Scenario, *, bound: int = 2) -> BaseException:
    """Explore and find something; return what it was."""
    with pytest.raises(Violation) as caught:
        explore(scenario, bound=bound)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


# -- stop and free; drain and free; CALLOUT_TRYLOCK (D45746) ---------------------------------------------------------


def stop_and_free(vm: VirtualSMP) -> None:
    """Do what the mail calls wrong: stop all, then free."""
    pcb = Pcb(vm, 2)
    mtx_lock(pcb.lock)
    for c in pcb.callouts:
        callout_stop(c)
    mtx_unlock(pcb.lock)
    pcb.free()


def stop_check_and_free(flags: int) -> Scenario:
    """Free if every stop said that nothing will run, and else drain first.

    The clock ticks three times and no more: a try that is refused is repeated a tick later, and could be for ever.
    """

    def scenario(vm: VirtualSMP) -> None:
        pcb = Pcb(vm, 1, flags=flags)
        vm.platform.free_clock = False

        def clock() -> None:
            for _ in range(3):
                vm.platform.tick(vm.machine.tick)
                vm.platform.point()

        with undisturbed(vm):
            vm.spawn(clock)
        mtx_lock(pcb.lock)
        results = [callout_stop(c) for c in pcb.callouts]
        mtx_unlock(pcb.lock)
        if 0 in results:
            for c in pcb.callouts:
                vm.run(lambda c=c: callout_drain(c))  # type: ignore[misc]  # the default binds c
        pcb.free()
        pcb.gone()

    return scenario


def drain_and_free(vm: VirtualSMP) -> None:
    """Drain all, then free."""
    pcb = Pcb(vm, 2, rearms=True)
    for c in pcb.callouts:
        vm.run(lambda c=c: callout_drain(c))  # type: ignore[misc]  # the default binds c
    pcb.free()
    pcb.gone()


def drain_with_the_lock(vm: VirtualSMP) -> None:
    """Drain with the callout's lock held."""
    pcb = Pcb(vm, 1)
    mtx_lock(pcb.lock)
    with pytest.raises(LockHeldError, match="callout_drain"):
        vm.run(lambda: callout_drain(pcb.callouts[0]))
    mtx_unlock(pcb.lock)


def test_stop_and_free_is_found() -> None:
    """Freeing after callout_stop() frees under a softclock that stands at the lock."""
    assert isinstance(found(stop_and_free), UseAfterFree)


def test_stop_and_free_is_found_even_if_stop_said_that_nothing_will_run() -> None:
    """callout_stop() == 1 does not say that softclock has released the lock."""
    assert isinstance(found(stop_check_and_free(0)), UseAfterFree)


def test_drain_and_free_is_clean() -> None:
    """Once callout_drain() has returned nothing uses the callout or its lock."""
    clean(drain_and_free, at_least=379)


def test_draining_with_the_lock_held_is_an_error_in_every_schedule() -> None:
    """callout_drain() with the callout's lock held raises, whether or not the callback waits for it."""
    clean(drain_with_the_lock, at_least=13)


def test_trylock_closes_the_window() -> None:
    """With CALLOUT_TRYLOCK a stop that said that nothing will run is enough to free."""
    clean(stop_check_and_free(CALLOUT_TRYLOCK), at_least=12)


# -- the reference-counted teardown of the mail ----------------------------------------------------------------------


def teardown(pcb: Pcb) -> None:
    """Do what the mail calls right: a reference for each callout, and one for the code that tears it down."""
    mtx_lock(pcb.lock)
    pcb.refs = len(pcb.callouts) + 1
    for c in pcb.callouts:
        if callout_drain_async(c, pcb.release, None) == 0:
            pcb.refs -= 1
    mtx_unlock(pcb.lock)
    pcb.release()


def refcount_n(pcb: Pcb) -> None:
    """Forget one's own reference."""
    mtx_lock(pcb.lock)
    pcb.refs = len(pcb.callouts)
    for c in pcb.callouts:
        if callout_drain_async(c, pcb.release, None) == 0:
            pcb.refs -= 1
    mtx_unlock(pcb.lock)
    pcb.release()


def refcount_late(pcb: Pcb) -> None:
    """Set the references after the first drain."""
    mtx_lock(pcb.lock)
    for c in pcb.callouts:
        outstanding = callout_drain_async(c, pcb.release, None)
        if pcb.refs == 0:
            pcb.refs = len(pcb.callouts) + 1
        elif outstanding == 0:
            pcb.refs -= 1
    mtx_unlock(pcb.lock)
    pcb.release()


def inverted(pcb: Pcb) -> None:
    """Take the result for that of FreeBSD 13's callout_async_drain()."""
    mtx_lock(pcb.lock)
    pcb.refs = len(pcb.callouts) + 1
    for c in pcb.callouts:
        if callout_drain_async(c, pcb.release, None) != 0:
            pcb.refs -= 1
    mtx_unlock(pcb.lock)
    pcb.release()


def frees_before_unlock(pcb: Pcb) -> None:
    """Free with the mutex held, and unlock it then."""

    def release(_: object) -> None:
        mtx_lock(pcb.lock)
        pcb.refs -= 1
        if pcb.refs == 0:
            pcb.free()
        mtx_unlock(pcb.lock)

    mtx_lock(pcb.lock)
    pcb.refs = len(pcb.callouts) + 1
    for c in pcb.callouts:
        if callout_drain_async(c, release, None) == 0:
            pcb.refs -= 1
    mtx_unlock(pcb.lock)
    release(None)


def releases_under_the_lock(pcb: Pcb) -> None:
    """Drop one's own reference with the mutex held."""
    mtx_lock(pcb.lock)
    pcb.refs = len(pcb.callouts) + 1
    for c in pcb.callouts:
        if callout_drain_async(c, pcb.release, None) == 0:
            pcb.refs -= 1
    pcb.release()
    mtx_unlock(pcb.lock)


def tear_down_with(how: Callable[[Pcb], None], callouts: int = 2, *, rearms: bool = False) -> Scenario:
    """Return the scenario of a teardown that races with softclock."""

    def scenario(vm: VirtualSMP) -> None:
        pcb = Pcb(vm, callouts, rearms=rearms)
        how(pcb)
        pcb.gone()

    return scenario


@pytest.mark.parametrize("rearms", [False, True])
def test_the_reference_counted_teardown_is_clean(*, rearms: bool) -> None:
    """Counting callouts plus one frees exactly once, when nothing uses the pcb any more."""
    clean(tear_down_with(teardown, rearms=rearms), at_least=100, bound=3)


@pytest.mark.parametrize("wrong", [refcount_n, refcount_late, inverted, frees_before_unlock, releases_under_the_lock])
def test_each_mistake_in_it_is_found(wrong: Callable[[Pcb], None]) -> None:
    """Each way to get the reference-counted teardown wrong frees too early, twice or never, or stops at its lock."""
    found(tear_down_with(wrong))


def test_needs_a_drain_that_counts_cancelled_runs() -> None:
    """A drain_async that returns 0 while softclock stands at the lock of a cancelled run leads to a use after free."""
    with mutants.CANCELLED_IS_NOTHING.planted():
        assert isinstance(found(tear_down_with(teardown)), UseAfterFree)


# -- drains against each other, and against armings (D7135) -----------------------------------------------------------


def drained_twice(vm: VirtualSMP) -> None:
    """Two threads and a task drain one callout, two of them asynchronously; every promised completion is called."""
    c = Callout()
    promised: list[str] = []
    completed: list[str] = []

    def drain_async(who: str) -> None:
        if callout_drain_async(c, completed.append, who):
            promised.append(who)

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset(c, 1, lambda _: vm.platform.point(), None)
        vm.spawn(drain_async, "t1", name="t1")
    drain_async("main")
    vm.run(lambda: callout_drain(c))
    vm.settle()

    assert sorted(completed) == sorted(promised)


DRAIN_KEEPS_ARMING: Final = Mutant(
    "a drain leaves what is armed standing",
    stop_locked,
    "facts = REMOVED if unschedule(cpu, c) else 0",
    "facts = 0",
)


def test_every_drainer_completes() -> None:
    """Two asynchronous drains and a synchronous one of the same run all complete."""
    clean(drained_twice, at_least=119)


def test_a_single_slot_is_found() -> None:
    """A drain slot that the second drainer overwrites loses a completion."""
    with mutants.SINGLE_SLOT.planted():
        found(drained_twice)


def rearms_itself(vm: VirtualSMP) -> None:
    """The callback re-arms its callout while that is drained and, at the completion, freed."""
    c = Callout()
    freed: list[bool] = []

    def callback(again: bool) -> None:
        assert not freed, "a callback runs after the free"
        vm.platform.point()
        if again:
            callout_reset(c, 1, callback, False)
            vm.platform.point()

    def free(_: object) -> None:
        assert not callout_pending(c), "an armed callout was freed"
        freed.append(True)

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset(c, 1, callback, True)
    if callout_drain_async(c, free, None) == 0:
        free(None)
    vm.settle()

    assert freed == [True]


def test_a_callback_that_rearms_is_drained() -> None:
    """The drain removes what the callback has armed before it and refuses what it arms after it."""
    clean(rearms_itself, at_least=49)


@pytest.mark.parametrize("mutant", [DRAIN_KEEPS_ARMING, mutants.REARM_ACCEPTED], ids=str)
def test_an_arming_that_survives_the_drain_is_found(mutant: Mutant) -> None:
    """A callback that re-arms leaves its callout armed in freed memory if the drain does not both clear and refuse."""
    with mutant.planted():
        found(rearms_itself)


# -- migration (r277213; callout_lock() of kern_timeout.c) ------------------------------------------------------------


def stop_during_a_deferred_migration(vm: VirtualSMP) -> None:
    """The callback re-arms on CPU 1; code that gets 1 from stop assumes that the run is over, and frees."""
    c = Callout()
    freed: list[bool] = []

    def callback(again: bool) -> None:
        assert not freed, "freed under the callback"
        if again:
            callout_reset_on(c, 1, callback, False, 1)
        vm.platform.point()
        assert not freed, "freed under the callback"

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset(c, 1, callback, True)
    if callout_stop(c) == 1:
        freed.append(True)
    vm.settle()


def technique_3(vm: VirtualSMP) -> None:
    """The third technique of the man page: a callback that was overtaken by a reset sees that and does nothing."""
    lock = Mtx("own")
    c = Callout()
    latest = 0
    worked: list[int] = []

    def callback(number: int) -> None:
        mtx_lock(lock)
        if not callout_pending(c) and callout_active(c):
            callout_deactivate(c)
            assert number == latest, "it ran although it had been armed anew"
            worked.append(number)
        mtx_unlock(lock)

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset(c, 1, callback, 0)
    mtx_lock(lock)
    callout_reset_on(c, 1, callback, 1, 1)
    latest = 1
    assert callout_pending(c) or callout_active(c), "armed, and neither pending nor active"
    mtx_unlock(lock)
    vm.settle()

    assert worked in ([1], [0, 1])


def two_owners(vm: VirtualSMP) -> None:
    """Two threads move one callout between the CPUs while a third stops it; no two softclocks have it at once."""
    c = Callout()
    inside: list[int] = []

    def callback(_: object) -> None:
        assert not inside, "two softclocks run one callout"
        inside.append(vm.platform.current_cpu())
        vm.platform.point()
        inside.clear()

    with undisturbed(vm):
        callout_init(c, 1)
        callout_reset(c, 1, callback, None)
        vm.spawn(callout_stop, c, name="stopper")
    callout_reset_on(c, 1, callback, None, 1)
    vm.settle()

    assert not callout_pending(c)
    assert c.run is None


MIGRATION: Final[list[tuple[Scenario, Mutant, int, int]]] = [
    (stop_during_a_deferred_migration, mutants.MOVE_STOPPED_SAYS_1, 2, 54),
    (technique_3, mutants.MOVE_NOT_PENDING, 2, 175),
    (two_owners, mutants.NO_CPU_RECHECK, 1, 97),
]


@pytest.mark.parametrize(("scenario", "bound", "at_least"), [(row[0], *row[2:]) for row in MIGRATION])
def test_migration_is_clean(scenario: Scenario, bound: int, at_least: int) -> None:
    """A stop, the state bits and the search for a callout's CPU tell the truth while it migrates."""
    clean(scenario, at_least=at_least, bound=bound)


@pytest.mark.parametrize(("scenario", "mutant"), [row[:2] for row in MIGRATION])
def test_each_mistake_is_found(scenario: Scenario, mutant: Mutant) -> None:
    """A stop that lies, a move that is not pending, a CPU that is not looked at again: each breaks its scenario."""
    with mutant.planted():
        found(scenario)


# -- Giant (_callout_stop_safe() of kern_timeout.c; the mail's second rule) -------------------------------------------


def stop_of_a_waiting_run(*, with_giant: bool) -> Scenario:
    """Return the scenario of a stop, with or without Giant, while softclock waits for Giant."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        ran: list[int] = []
        results: list[int] = []
        callout_init(c, 0)
        with giant():
            callout_reset(c, 1, ran.append, 1)
            vm.settle()  # softclock stands at Giant now
            if with_giant:
                results.append(callout_stop(c))
            else:
                vm.spawn(lambda: results.append(callout_stop(c)), name="stopper")
                vm.settle()
        vm.settle()

        assert (results, ran) == (([1], []) if with_giant else ([0], [1]))

    return scenario


@pytest.mark.parametrize("with_giant", [True, False])
def test_a_stop_cancels_a_waiting_run_only_with_giant(*, with_giant: bool) -> None:
    """With Giant a stop cancels the run that waits for Giant and returns 1; without, it returns 0 and the run takes
    place.
    """
    clean(stop_of_a_waiting_run(with_giant=with_giant), at_least=1 if with_giant else 3)


def test_a_stop_that_cancels_without_giant_is_found() -> None:
    """An engine that lets a stop without Giant cancel a run that waits for Giant is found out."""
    with mutants.GIANT_STOP_CANCELS.planted():
        found(stop_of_a_waiting_run(with_giant=False))


def giant_on_two_cpus(vm: VirtualSMP) -> None:
    """Two Giant callouts that are armed for different CPUs."""
    ran: list[int] = []
    callouts = [Callout(), Callout()]
    for cpu, c in enumerate(callouts):
        callout_init(c, 0)
        callout_reset_on(c, 1, lambda _: ran.append(vm.platform.current_cpu()), None, cpu)
    vm.settle()

    assert ran == [0, 0]


def test_giant_callouts_hold_up_one_softclock_only() -> None:
    """Callouts under Giant all run on CPU 0, whichever CPU they were armed for."""
    clean(giant_on_two_cpus, at_least=48)
