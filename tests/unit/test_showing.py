"""What the repr of a callout says, and that it may be asked for at any instant."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from callout import (
    Callout,
    Mtx,
    RwLock,
    TimedNursery,
    callout_init,
    callout_init_rw,
    callout_reset,
    callout_reset_on,
    open_callouts,
)
from callout._core.cpu import BARRIER, CANCELLED, DRAIN, STARTED, WAITING, Run, Ticket
from callout._core.cpulock import acquire
from callout._core.describe import length_of_time
from callout._core.state import MOVING, PENDING
from callout._worlds.manual.platform import ManualPlatform
from callout.explore import explore
from callout.testing import ManualTimers, VirtualSMP


class Connection:
    """What has a timer."""

    def quiet(self, arg: object = None) -> None:
        """Be a callback."""


@pytest.fixture
def timers() -> ManualTimers:
    """Give some that stand at 0."""
    return ManualTimers()


def words(c: Callout) -> str:
    """Return what the repr says behind the CPU."""
    return repr(c).partition(" on cpu 0: ")[2].removesuffix(">")


def test_it_names_what_there_is(timers: ManualTimers) -> None:
    """Name, function, CPU, when it is due, the lock and its owner; without a name the address; never an argument."""
    lock = timers.mutex("conn")
    c = timers.call_later(12.345, Connection().quiet, "a secret", lock=lock, name="idle")
    plain = timers.callout()

    assert repr(c) == "<Callout 'idle' Connection.quiet on cpu 0: due in 12.3 s, lock 'conn'>"
    with lock:
        assert words(c) == f"due in 12.3 s, lock 'conn' held by thread '{threading.current_thread().name}'"
    assert repr(plain) == f"<Callout at {id(plain):#x} on cpu 0: idle>"


def test_readers_of_its_lock_are_named() -> None:
    """A read lock has any number of owners, and none has an exclusive right to be told."""
    with ManualTimers():
        rw, c = RwLock("table"), Callout()
        callout_init_rw(c, rw)
        with rw.read():
            assert words(c) == f"idle, lock 'table' held by thread '{threading.current_thread().name}'"
        assert words(c) == "idle, lock 'table'"


def test_it_says_when_it_is_due(timers: ManualTimers) -> None:
    """In time, now, or late; of a periodic one the period, too, also when it was stopped."""
    platform = timers._platform
    c = timers.call_later(0.004, print)
    p = timers.every(60, print, name="beat")
    said = []
    for ns in (1_000_000, 3_000_000, 3_000_000):
        platform.time += ns
        said.append(words(c))

    assert said == ["due in 3 ms", "due now", "late by 3 ms"]
    assert repr(p) == "<Periodic 'beat' print on cpu 0: due in 60 s, every 60 s>"
    p.stop()
    assert repr(p) == "<Periodic 'beat' print on cpu 0: idle, every 60 s>"


def test_it_says_how_far_it_is(timers: ManualTimers) -> None:
    """In its callback, armed anew there, closed there, and after that, when the function is forgotten."""
    said: list[str] = []

    def run(what: str) -> None:
        said.append(words(c))
        c.reset(5, Connection().quiet)
        said.append(repr(c).partition(" on ")[0] + ": " + words(c))
        c.close_soon(said.append, "closed")
        said.append(words(c))

    c = timers.call_later(1, run, "", name="c")
    timers.advance(2)

    assert said == [
        "running",
        "<Callout 'c' Connection.quiet: running, due in 5 s",
        "closed, running, draining",
        "closed",
    ]
    assert repr(c) == "<Callout 'c' on cpu 0: closed>"


@pytest.mark.parametrize(
    ("state", "asks", "said"),
    [
        (WAITING, None, "waiting for its lock"),
        (CANCELLED, DRAIN, "cancelled at its lock, draining"),
        (STARTED, BARRIER, "running"),  # that stops nothing
    ],
)
def test_it_says_what_softclock_is_at(timers: ManualTimers, state: int, asks: int | None, said: str) -> None:
    """Softclock at the lock, or in the callback; a drain that waits for it."""
    c = timers.callout(print)
    c.run = Run(c, c.c_cpu.softclock, state, False, False)
    c.run.tickets = None if asks is None else [Ticket(asks, None)]

    assert words(c) == said


def test_it_says_when_a_deferred_migration_is_due() -> None:
    """That is when the new run is due; the record still has the time of the run in progress."""
    said: list[str] = []

    def scenario() -> None:
        with VirtualSMP() as vm:
            c = Callout()

            def move(arg: object) -> None:
                callout_reset_on(c, 5, print, None, 1)
                said.append(words(c))

            callout_init(c, 1)
            callout_reset(c, 1, move, None)
            vm.settle()

    scenario()

    assert said == ["running, pending"]


def test_what_does_not_fit_together_is_told_all_the_same(timers: ManualTimers) -> None:
    """Another thread may be between any two stores: no such state raises."""
    c = timers.callout(print)
    for state in range(0x400):
        c.state = state
        assert repr(c).startswith(f"<Callout at {id(c):#x} print on cpu 0: ")
    c.state = PENDING | MOVING
    assert words(c) == "due now"


def test_what_was_never_made_or_initialised_is_told() -> None:
    """Such a callout has no CPU, and no state."""

    class Forgets(Callout):
        def __init__(self) -> None:
            """Forget the base class."""

    unmade, blank = Forgets(), Callout()

    assert repr(unmade) == f"<Forgets at {id(unmade):#x}: never made>"
    assert repr(blank) == f"<Callout at {id(blank):#x}: not initialised>"


def test_it_acquires_no_lock(timers: ManualTimers) -> None:
    """With the lock of its CPU held, where any other use is an error, it is told as ever."""
    c = timers.call_later(5, print)
    cpu = c.c_cpu
    acquire(cpu)
    try:
        assert words(c) == "due in 5 s"
    finally:
        cpu.busy = False
        cpu.lock.release()


@pytest.mark.trio
async def test_a_timeout_task_acquires_no_lock() -> None:
    """Nor does the repr of a timer that starts a task."""
    async with open_callouts() as system, system.open_nursery() as nursery:
        assert isinstance(nursery, TimedNursery)
        t = nursery.start_later(3600, print_later, name="later")
        cpu = t._callout.c_cpu
        acquire(cpu)
        try:
            said = repr(t)
        finally:
            cpu.busy = False
            cpu.lock.release()

        assert said.startswith("<TimeoutTask 'later' print_later on cpu 0: due in ")


async def print_later() -> None:
    """Be a task."""


def test_a_clock_or_a_lock_that_fails_is_left_out(timers: ManualTimers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repr that raises would hide the message that it stands in."""

    def fails(*_: object) -> str:
        raise ZeroDivisionError

    c = timers.call_later(5, print, lock=timers.mutex("m"))
    monkeypatch.setattr(ManualPlatform, "now", fails)
    monkeypatch.setattr(Mtx, "_holder", fails)

    assert words(c) == "pending, lock 'm'"


def test_looking_is_no_step() -> None:
    """An exploration with a look at callouts in every thread is the same as one without, and ends alike."""

    def scenario(vm: VirtualSMP, *, looks: bool) -> object:
        lock = vm.mutex("m")
        c = vm.callout(Connection().quiet, lock=lock)

        def use() -> None:
            c.reset(0.001)
            if looks:
                assert "Connection.quiet on cpu" in repr(c)
            with lock:
                c.stop()

        vm.spawn(use)
        vm.settle()
        return repr(c) if looks else None

    found = [explore(partial(scenario, looks=looks), cpus=1) for looks in (False, True)]
    without, with_looks = [(each.schedules, each.steps, each.longest, len(each.final_states)) for each in found]

    assert with_looks == without


def test_lengths_of_time_have_a_unit_that_suits_them() -> None:
    """Three digits, or one after the point; what is late is negative."""
    shown = [length_of_time(time) for time in (0, 2e-6, -0.0015, 0.25, 99.5, 150, 7200, 200_000)]

    assert shown == ["0 s", "2 us", "-1.5 ms", "250 ms", "99.5 s", "2.5 min", "2.0 h", "2.3 d"]
