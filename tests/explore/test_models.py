"""What small models are made of: cells, structures, spin locks, interrupts, waits; and fairness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from callout import (
    CALLOUT_TRYLOCK,
    ArgumentTypeError,
    Callout,
    DeadlockError,
    LivelockError,
    LockNotHeldError,
    Mtx,
    RwLock,
    UseAfterFree,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_stop,
)
from callout.explore import Certificate, Violation, explore
from callout.testing import VirtualSMP

Scenario = Callable[[VirtualSMP], object]


def found(scenario: Scenario, *, bound: int = 2) -> BaseException:
    """Return what exploring a model finds."""
    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=1, bound=bound, cells_only=True, steps=2000)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


def clean(scenario: Scenario, *, bound: int | None = 3) -> Certificate:
    """Return the certificate of a model in which nothing is found."""
    certificate = explore(scenario, cpus=1, bound=bound, cells_only=True, steps=2000)
    assert certificate.exhausted
    return certificate


def test_reading_and_writing_a_cell_are_two_steps() -> None:
    """An increment that is not atomic loses counts, and one that is does not."""

    def counts(*, atomic: bool) -> Scenario:
        def scenario(vm: VirtualSMP) -> object:
            cell = vm.cell(0, "count")

            def add() -> None:
                if atomic:
                    cell.update(lambda value: value + 1)
                else:
                    cell.value += 1

            vm.spawn(add)
            vm.spawn(add)
            vm.settle()
            return cell.peek()

        return scenario

    lossy = clean(counts(atomic=False)).final_states
    exact = clean(counts(atomic=True)).final_states

    assert {state.split(";")[0] for state in lossy} == {"returned 1", "returned 2"}
    assert {state.split(";")[0] for state in exact} == {"returned 2"}


def test_what_is_freed_cannot_be_used_nor_freed_again() -> None:
    """Every field and lock of a structure raises after free(), and so does a second free()."""

    def uses(use: Callable[[VirtualSMP], object]) -> str:
        return str(found(lambda vm: use(vm)))

    def read(vm: VirtualSMP) -> None:
        s = vm.struct("timer", base=None)
        vm.free(s)
        assert s.base

    def write(vm: VirtualSMP) -> None:
        s = vm.struct("timer", base=None)
        vm.free(s)
        s.base = 1

    def lock(vm: VirtualSMP) -> None:
        s = vm.struct("timer", lock=vm.lock("its lock"))
        vm.free(s)
        s.lock.acquire()

    def twice(vm: VirtualSMP) -> None:
        s = vm.struct("timer", base=None)
        vm.free(s)
        vm.free(s)

    assert "reads timer.base, which main has freed" in uses(read)
    assert "writes timer.base, which main has freed" in uses(write)
    assert "acquires the lock 'its lock', which main has freed" in uses(lock)
    assert "a double free" in uses(twice)
    assert isinstance(found(read), UseAfterFree)


def test_a_structure_has_the_fields_that_it_was_given() -> None:
    """Another one is an error, to read and to write; and what is a lock stays that."""

    def scenario(vm: VirtualSMP) -> None:
        s = vm.struct("timer", base=None, lock=vm.lock())
        with pytest.raises(AttributeError, match="it has base, lock"):
            assert s.bass
        with pytest.raises(AttributeError, match="was not named"):
            s.bass = 1
        with pytest.raises(AttributeError, match="is fixed"):
            s.lock = 1
        with pytest.raises(ArgumentTypeError, match="Struct"):
            vm.free(3)  # type: ignore[arg-type]  # the mistake

    clean(scenario)


def test_a_spin_lock_excludes_and_is_not_recursive() -> None:
    """Two are never inside; a thread that acquires it twice waits for ever; another one cannot release it."""

    def excludes(vm: VirtualSMP) -> None:
        lock, inside = vm.lock(), vm.cell(0)

        def thread() -> None:
            with lock:
                assert inside.update(lambda value: value + 1) == 0
                inside.value = 0
            if lock.try_acquire():
                lock.release()

        vm.spawn(thread)
        vm.spawn(thread)

    def twice(vm: VirtualSMP) -> None:
        lock = vm.lock("base")
        with lock, lock:
            pass

    assert clean(excludes).schedules >= 5
    assert isinstance(found(twice), DeadlockError)
    assert "main waits for the lock 'base', which main holds" in str(found(twice))
    assert isinstance(found(lambda vm: vm.lock().release()), LockNotHeldError)


def test_wait_until_waits_and_says_for_what() -> None:
    """It goes on when the predicate is true, in whatever order; one that never is is a deadlock."""

    def scenario(vm: VirtualSMP) -> object:
        ready = vm.cell(False, "ready")

        def sets() -> None:
            ready.value = True

        vm.spawn(sets)
        vm.wait_until(lambda: ready.value)
        return ready.peek()

    assert clean(scenario).final_states == {"returned True; ready=True"}
    assert "to be ready" in str(found(lambda vm: vm.wait_until(lambda: False, "it to be ready")))
    assert isinstance(found(lambda vm: vm.wait_until(3)), ArgumentTypeError)  # type: ignore[arg-type]  # the mistake


def test_setup_is_one_piece() -> None:
    """Nobody runs and no timer expires in it; it may not wait."""

    def scenario(vm: VirtualSMP) -> None:
        c, ran = Callout(), list[int]()
        with vm.setup():
            vm.spawn(ran.append, 1)
            callout_init(c, 1)
            callout_reset(c, 1, ran.append, 2)
            lock = Mtx("m")
            with lock:
                pass
            assert not ran
        vm.settle()
        assert sorted(ran) == [1, 2]

    def waits(vm: VirtualSMP) -> None:
        with vm.setup():
            vm.wait_until(lambda: False)

    clean(scenario)
    assert "a block of vm.setup()" in str(found(waits))


def test_an_interrupt_comes_at_any_moment_and_the_thread_stands_still() -> None:
    """It runs on top of its victim: between any two of its steps, unless interrupts are off; the victim never runs in
    the middle of it.
    """

    def play(*, off: bool) -> Scenario:
        def scenario(vm: VirtualSMP) -> object:
            seen: list[str] = []
            x = vm.cell(0, "x")

            def victim() -> None:
                if off:
                    with vm.irqs_off():
                        x.value = 1
                        x.value = 2
                else:
                    x.value = 1
                    x.value = 2

            def handler() -> None:
                first = x.value
                assert x.value == first, "the victim has run in the middle of it"
                seen.append(str(first))

            vm.interrupt(handler, of=vm.spawn(victim))
            vm.settle()
            return seen

        return scenario

    def seen(certificate: Certificate) -> set[str]:
        return {state.split(";")[0] for state in certificate.final_states}

    assert seen(clean(play(off=False))) == {"returned ['0']", "returned ['1']", "returned ['2']"}
    assert seen(clean(play(off=True))) == {"returned ['0']", "returned ['2']"}
    assert isinstance(found(lambda vm: vm.interrupt(print, of=3)), ArgumentTypeError)  # type: ignore[arg-type]  # the mistake


def test_an_interrupt_that_needs_what_its_victim_holds_is_a_deadlock() -> None:
    """The victim cannot go on before the interrupt has returned."""

    def scenario(vm: VirtualSMP) -> None:
        lock = vm.lock("device")

        def use() -> None:
            with lock:
                pass

        vm.interrupt(use, of=vm.spawn(use, name="process"), name="irq")

    error = found(scenario)

    assert isinstance(error, DeadlockError)
    assert "process waits for the interrupt irq to return" in str(error)


# -- fairness ----------------------------------------------------------------------------------------------------------


def test_a_loop_that_relaxes_ends_when_another_thread_can_end_it() -> None:
    """No schedule has it run for ever while the other one could; without relaxing one has."""

    def spins(*, relaxes: bool) -> Scenario:
        def scenario(vm: VirtualSMP) -> None:
            flag = vm.cell(False, "flag")

            def sets() -> None:
                vm.point()
                flag.value = True

            def waits() -> None:
                while not flag.value:
                    if relaxes:
                        vm.relax()

            vm.spawn(waits)
            vm.spawn(sets)

        return scenario

    assert clean(spins(relaxes=True)).schedules >= 2
    assert isinstance(found(spins(relaxes=False)), LivelockError)


def test_a_loop_that_nobody_ends_is_a_livelock_though_it_relaxes() -> None:
    """Fairness does not hide what is the program's own fault."""

    def scenario(vm: VirtualSMP) -> None:
        while True:
            vm.relax()

    assert isinstance(found(scenario, bound=0), LivelockError)


@pytest.mark.parametrize("reduce", [True, False])
def test_a_periodic_callout_lets_others_have_a_turn(*, reduce: bool) -> None:
    """A callback that re-arms its callout makes no endless schedule as long as somebody is there to stop it."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        callout_init(c, 1)

        def again(_: None) -> None:
            callout_reset(c, 1, again, None)

        callout_reset(c, 1, again, None)
        callout_stop(c)
        callout_drain_sync(c)

    assert explore(scenario, cpus=1, bound=2, reduce=reduce).exhausted


def test_a_callout_that_tries_its_lock_lets_the_holder_have_a_turn() -> None:
    """CALLOUT_TRYLOCK tries again and again, on a free clock, and every schedule ends."""

    def scenario(vm: VirtualSMP) -> None:
        lock, c, ran = Mtx("m"), Callout(), list[int]()
        callout_init_mtx(c, lock, CALLOUT_TRYLOCK)
        with lock:
            callout_reset(c, 1, ran.append, 1)
            vm.point()
        vm.settle()
        assert ran == [1]

    assert explore(scenario, cpus=1, bound=2).exhausted


def test_a_holder_that_waits_for_the_cpu_of_such_a_callout_has_a_turn() -> None:
    """It is softclock that keeps it from running, again and again, and the interrupt that gives way: both are one."""

    def scenario(vm: VirtualSMP) -> None:
        lock, c = Mtx("m"), Callout()
        callout_init_mtx(c, lock, CALLOUT_TRYLOCK)
        with vm.setup(), lock:
            callout_reset(c, 1, str, None)
        with lock:
            callout_stop(c)

    certificate = explore(scenario, cpus=1, bound=2)

    assert certificate.exhausted
    assert certificate.longest < 200  # there are many more in a run that keeps it waiting


# -- a cell that a lock guards -----------------------------------------------------------------------------------------


def test_a_guarded_cell_is_used_with_its_lock_held() -> None:
    """With the lock every use is in order, of whatever kind the lock is; a read lock is enough to read."""

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("rw")
        locks: tuple[Any, ...] = (vm.lock("spin"), Mtx("m"), rw)
        cells = [vm.cell(0, "count", guarded_by=lock) for lock in locks]
        for lock, cell in zip(locks, cells, strict=True):
            with lock:
                cell.value += 1
                assert cell.update(lambda value: value + 1) == 1
        with rw.read():
            assert cells[-1].value == 2
        with vm.setup():
            cells[-1].value = 3
        vm.wait_until(lambda: cells[-1].value == 3)

    assert explore(scenario).exhausted


USES: Final[dict[str, Callable[[Any], object]]] = {
    "reads": lambda cell: cell.value,
    "writes": lambda cell: setattr(cell, "value", 1),
    "updates": lambda cell: cell.update(bool),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["spin", "mtx", "read"])
def test_a_guarded_cell_that_is_used_without_its_lock_is_a_violation(use: str, kind: str) -> None:
    """In the first schedule, whether or not anybody else uses it; another thread that holds the lock does not count."""
    if (use, kind) == ("reads", "read"):
        return  # that is in order

    def scenario(vm: VirtualSMP) -> None:
        rw = RwLock("lock")
        locks: dict[str, Any] = {"spin": vm.lock("lock"), "mtx": Mtx("lock"), "read": rw}
        lock = locks[kind]
        cell = vm.cell(0, "count", guarded_by=lock)

        def uses() -> None:
            with rw.read():
                USES[use](cell)

        if kind == "read":
            uses()
        with lock:
            vm.spawn(USES[use], cell, name="other")
            vm.settle()

    with pytest.raises(Violation) as caught:
        explore(scenario)
    assert caught.value.number == 1
    error = caught.value.__cause__
    assert isinstance(error, LockNotHeldError)
    assert f" {use} count without <" in str(error)
    assert "'lock'" in str(error)


def test_what_guards_a_cell_is_a_lock() -> None:
    """Anything else is refused."""
    with VirtualSMP(1) as vm, pytest.raises(TypeError, match=r"cell: guarded_by must be a lock, .*, not 5"):
        vm.cell(0, guarded_by=5)  # type: ignore[arg-type]
