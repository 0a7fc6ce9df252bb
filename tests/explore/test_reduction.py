"""What the reduction leaves out is a repetition: with it and without, a search ends in the same states."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from callout import (
    Callout,
    Mtx,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_running,
    callout_stop,
    pause_sync,
)
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP

Scenario = Callable[[VirtualSMP], object]


def program(seed: int) -> Scenario:
    """Return a random program of two or three threads, the same for the same *seed*, that cannot deadlock."""
    rng = random.Random(seed)
    threads, cells, locks = rng.choice((2, 2, 3)), rng.choice((1, 2, 3)), rng.choice((1, 2))

    def block(depth: int) -> list[tuple[str, int, list[object]]]:
        out: list[tuple[str, int, list[object]]] = []
        for _ in range(rng.randint(1, 5 - threads)):
            kind = rng.choice(("write", "write", "read", "read", "update", "lock", "lock", "try", "if"))
            if kind in ("lock", "try") and depth:
                kind = "read"
            inner = list(block(depth + 1)) if kind in ("lock", "try", "if") and depth < 2 else []
            out.append((kind, rng.randrange(locks if kind in ("lock", "try") else cells), list(inner)))
        return out

    bodies = [block(0) for _ in range(threads)]

    def scenario(vm: VirtualSMP) -> object:
        shared = [vm.cell(0, f"c{number}") for number in range(cells)]
        guards = [vm.lock(f"l{number}") for number in range(locks)]
        seen: list[list[object]] = [[] for _ in bodies]

        def run(me: int, ops: list[object]) -> None:
            for at, op in enumerate(ops):
                assert isinstance(op, tuple)
                kind, which, inner = op
                if kind == "write":
                    shared[which].value = 10 * (at + 1) + me
                elif kind == "read":
                    seen[me].append(shared[which].value)
                elif kind == "update":
                    seen[me].append(shared[which].update(lambda value: value + 1))
                elif kind == "lock":
                    with guards[which]:
                        run(me, inner)
                elif kind == "try":
                    if guards[which].try_acquire():
                        run(me, inner)
                        guards[which].release()
                    else:
                        seen[me].append("busy")
                elif shared[which].value % 2:
                    run(me, inner)

        for me, ops in enumerate(bodies):
            vm.spawn(run, me, ops, name=f"t{me}")
        vm.settle()
        return seen

    return scenario


@pytest.mark.parametrize("bound", [0, 1, 2, None])
@pytest.mark.parametrize("seed", range(12))
def test_the_same_states_with_the_reduction_and_without(seed: int, bound: int | None) -> None:
    """Random programs end as they end in a plain search, with as many preemptions; and no more schedules are run."""
    plain = explore(program(seed), cpus=1, bound=bound, reduce=False, schedules=3000)
    reduced = explore(program(seed), cpus=1, bound=bound, cells_only=True)

    assert reduced.exhausted
    if plain.exhausted:
        assert reduced.final_states == plain.final_states
        assert reduced.schedules <= plain.schedules
    else:
        assert reduced.final_states >= plain.final_states


def test_of_equivalent_schedules_one_is_run() -> None:
    """Three lock sections on each of two threads: they can be ordered in 20 ways, and no order is run twice."""

    def scenario(vm: VirtualSMP) -> None:
        mutex = Mtx("m")

        def thread() -> None:
            for _ in range(3):
                with mutex:
                    pass

        vm.spawn(thread)
        vm.spawn(thread)

    assert explore(scenario, cpus=1, bound=None).schedules == 20
    assert explore(scenario, cpus=1, bound=None, reduce=False).schedules == 3432


class Pcb:
    """A control block with callouts, a lock and a reference count."""

    def __init__(self, slab: Slab[Pcb], callouts: int) -> None:
        self.slab = slab
        self.lock = Mtx("pcb")
        self.callouts = [Callout() for _ in range(callouts)]
        for c in self.callouts:
            callout_init_mtx(c, self.lock)
        self.references = callouts + 1

    def drop(self) -> None:
        """Drop a reference; the last one frees it."""
        with self.lock:
            self.references -= 1
            last = not self.references
        if last:
            self.slab.free(self)

    def expired(self) -> None:
        """Be the callback."""


CALLOUTS: Final = 2


def teardown(vm: VirtualSMP) -> None:
    """Arm the callouts, and take it all down while they expire."""
    slab: Slab[Pcb] = Slab("pcb")
    with vm.setup():
        pcb = slab.alloc(Pcb, slab, CALLOUTS)
        with pcb.lock:
            for c in pcb.callouts:
                callout_reset(c, 1, Pcb.expired, pcb)
    with pcb.lock:
        for c in pcb.callouts:
            if not callout_drain_async(c, Pcb.drop, pcb):
                pcb.references -= 1
    pcb.drop()
    vm.settle()
    assert not slab.leaks()


def test_a_teardown_is_exhausted_in_few_schedules() -> None:
    """The reduction works on the engine: of a teardown's schedules it runs a small part."""
    plain = explore(teardown, bound=2, reduce=False, schedules=2000)
    reduced = explore(teardown, bound=2)

    assert reduced.exhausted
    assert reduced.schedules * 5 < plain.schedules


def test_what_disables_a_thread_for_good_is_a_race() -> None:
    """A timer that is stopped before it expires might have expired before."""

    def scenario(vm: VirtualSMP) -> object:
        c, ran = Callout(), list[str]()
        callout_init(c, 1)
        callout_reset(c, 1, ran.append, "ran")
        stopped = callout_stop(c)
        vm.settle()
        return stopped, ran

    certificate = explore(scenario, cpus=1)

    assert certificate.final_states == {"returned (1, [])", "returned (-1, ['ran'])", "returned (0, ['ran'])"}


def test_a_variable_that_is_no_cell_is_shared_unless_that_is_denied() -> None:
    """Plain variables are taken to be shared; with cells_only they are not, and a race on one is missed."""

    def scenario(vm: VirtualSMP) -> None:
        count = [0]

        def thread() -> None:
            before = count[0]
            vm.point()
            count[0] = before + 1

        vm.spawn(thread)
        vm.spawn(thread)
        vm.settle()
        assert count[0] == 2

    with pytest.raises(Violation):
        explore(scenario, cpus=1)
    assert explore(scenario, cpus=1, cells_only=True).schedules == 1


# -- fairness is no hiding place ---------------------------------------------------------------------------------------


def patient(vm: VirtualSMP, tries: Callable[[], bool]) -> Callable[[], None]:
    """Return a thread that tries three times. It shares no more than what *tries* does."""

    def thread() -> None:
        for _ in range(3):
            if tries():
                return
            vm.relax()
        raise TimeoutError("out of patience")

    return thread


def gives_up(vm: VirtualSMP) -> None:
    """Try a lock three times, while its holder makes a step."""
    with vm.setup():
        lock = vm.lock()

    def holder() -> None:
        with lock:
            vm.point()

    def tries() -> bool:
        if not lock.try_acquire():
            return False
        lock.release()
        return True

    vm.spawn(holder)
    vm.spawn(patient(vm, tries))
    vm.settle()


def gives_up_looking(vm: VirtualSMP) -> None:
    """Look at a cell three times."""
    ready = vm.cell(0, "ready")

    def setter() -> None:
        ready.value = 1

    def looks() -> bool:
        return ready.value != 0

    vm.spawn(setter)
    vm.spawn(patient(vm, looks))
    vm.settle()


@pytest.mark.parametrize("bound", [3, None])
@pytest.mark.parametrize("scenario", [gives_up, gives_up_looking])
@pytest.mark.parametrize("reduce", [True, False])
def test_a_loop_that_gives_up_is_found(scenario: Scenario, bound: int | None, reduce: bool) -> None:
    """Whose turn it is depends on every step of the others, since the loop has said that it gets nowhere."""
    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=1, bound=bound, reduce=reduce, shrink=False)

    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_loop_that_sleeps_ends() -> None:
    """Its timer may expire at once, again and again; but not for ever before the others have a turn."""

    def scenario(vm: VirtualSMP) -> None:
        ready = vm.cell(0, "ready")

        def poller() -> None:
            while not ready.value:
                pause_sync("poll", 1)

        def setter() -> None:
            ready.value = 1

        vm.spawn(poller)
        vm.spawn(setter)
        vm.settle()

    assert explore(scenario, cpus=1, bound=1).exhausted


def test_a_look_at_a_run_is_a_use() -> None:
    """``callout_running()`` acquires no lock."""

    def scenario(vm: VirtualSMP) -> int:
        with vm.setup():
            c = Callout()
            callout_init(c, 1)
            callout_reset(c, 5, _nothing, None)
        seen = callout_running(c)
        vm.settle()
        return seen

    assert explore(scenario, cpus=1).final_states == {"returned 0", "returned 1"}


def _nothing(_: object) -> None:
    """Be a callback."""


@pytest.mark.parametrize("use", ["read", "release"])
def test_what_a_long_run_takes_grows_with_its_steps_and_no_faster(use: str) -> None:
    """A thread that looks again and again: no step keeps a list of those before it."""

    def bytes_of(steps: int) -> int:
        def scenario(vm: VirtualSMP) -> None:
            cell, lock = vm.cell(0, "c"), vm.lock("l")
            for _ in range(steps):
                if use == "read":
                    assert not cell.value
                else:
                    lock.acquire()
                    lock.release()

        tracemalloc.start()
        try:
            assert explore(scenario, schedules=1).longest > steps
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    bytes_of(500)
    assert bytes_of(2000) < 5 * bytes_of(500)
